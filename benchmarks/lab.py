"""A Prefect server with the deployment at work, as somebody beside it sees it.

For the tests of the dashboard and for ``benchmarks/dashboard.py``.
"""

from __future__ import annotations

import contextlib
import http
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[1]
PATIENCE_S = 600.0
POLL_S = 0.2
ATTEMPTS = 10
PROGRAM = "from flows.cli import main; main()"
QUICK = (
    "--set", "model.encoder=7net-0", "--set", "model.members=2", "--set", "model.min_steps=10",
    "--set", "model.max_steps=10",
)  # fmt: skip
"""Flags of a campaign that trains in a second; what is learned is of no use."""

T = TypeVar("T")


def free_port() -> int:
    """A port that nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(*words: str) -> list[str]:
    """The ``screen`` command of this working tree."""
    return [sys.executable, "-c", PROGRAM, *words]


def surroundings(**more: str) -> dict[str, str]:
    """Environment in which this working tree's software is found."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@dataclass
class Lab:
    """A server, and the place where its campaigns are kept.

    Attributes
    ----------
    place
        Directory that holds ``campaigns``.
    url
        Of the UI, without a path.
    processes
        What must not end while something is waited for.
    """

    place: Path
    url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ask(self, path: str, **question: Any) -> Any:
        """An answer of the server's API."""
        request = urllib.request.Request(
            f"{self.url}/api{path}", json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        for attempt in range(ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.load(answer)
            except (urllib.error.HTTPError, TimeoutError) as error:
                # A busy machine; Prefect's own clients ask again, too.
                code = getattr(error, "code", http.HTTPStatus.SERVICE_UNAVAILABLE)
                if code != http.HTTPStatus.SERVICE_UNAVAILABLE or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(1.0)
        raise AssertionError

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """Flow runs, oldest first, of the given types of state."""
        which = {"state": {"type": {"any_": states}}} if states else {}
        return list(self.ask("/flow_runs/filter", sort="START_TIME_ASC", flow_runs=which))

    def run(self, identity: str) -> dict[str, Any]:
        """A flow run as it stands."""
        (found,) = self.ask("/flow_runs/filter", flow_runs={"id": {"any_": [identity]}})
        return dict(found)

    def deployment(self) -> dict[str, Any]:
        """The only deployment."""
        (found,) = self.ask("/deployments/filter")
        return dict(found)

    def start_run(self) -> str:
        """Ask the deployment for a run, now; its id."""
        path = f"/deployments/{self.deployment()['id']}/create_flow_run"
        return str(self.ask(path, state={"type": "SCHEDULED"})["id"])

    def artifact(self, key: str) -> dict[str, Any] | None:
        """The latest version of an artifact."""
        found = self.ask("/artifacts/latest/filter", artifacts={"key": {"any_": [key]}})
        return dict(found[0]) if found else None

    def page_of(self, key: str) -> str:
        """Address of the latest version of an artifact in the UI."""
        artifact = self.artifact(key)
        assert artifact is not None, key
        return f"{self.url}/v2/artifacts/artifact/{artifact['latest_id']}"

    def wait(self, what: Callable[[], T], why: str, patience_s: float = PATIENCE_S) -> T:
        """The first true value of ``what()``."""
        deadline = time.monotonic() + patience_s
        while not (found := what()):
            alive = all(process.poll() is None for process in self.processes)
            assert alive and time.monotonic() < deadline, f"{why}\n{self.logs()}"
            time.sleep(POLL_S)
        return found

    def logs(self) -> str:
        """All that was written by server, worker and runs."""
        paths = [*self.place.glob("*.log"), *self.place.glob("campaigns/.prefect/*.log")]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')}" for path in paths)

    def executions(self) -> dict[str, list[str]]:
        """By calculation, "start" and "end" of every execution as the engine logged them."""
        return {
            log.parent.name: [line.split()[1] for line in log.read_text().splitlines()]
            for log in sorted(self.place.glob("campaigns/*/calculations/*/executions.log"))
        }


def up(place: Path, words: Sequence[str]) -> Lab:
    """``screen up`` with these words, as soon as it says that it is up."""
    port, output = free_port(), place / "up.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command("up", "--port", str(port), *words), cwd=place, stdout=file, stderr=file,
            env=surroundings(),
        )  # fmt: skip
    lab = Lab(place, f"http://127.0.0.1:{port}", [process])
    lab.wait(lambda: "Ctrl-C stops" in output.read_text(), "screen up is not up")
    return lab


def server(place: Path, port: int) -> subprocess.Popen[bytes]:
    """A server of its own, as quiet as that of ``screen up``, whose data lie in ``place``."""
    from flows.server import SERVER

    return _prefect(place, port, "server", SERVER, "server", "start", "--port", str(port))


def worker(place: Path, port: int, name: str) -> subprocess.Popen[bytes]:
    """A worker of the pool that ``screen deploy`` makes."""
    from flows.deployment import POOL
    from flows.server import WORKER

    words = ("worker", "start", "--pool", POOL, "--type", "process", "--name", name)
    return _prefect(place, port, name, WORKER, *words)


def _prefect(
    place: Path, port: int, log: str, settings: Mapping[str, str], *words: str
) -> subprocess.Popen[bytes]:
    url = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(place / "prefect"), "PREFECT_API_URL": url}
    with (place / f"{log}.log").open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *words], cwd=place, stdout=file, stderr=file,
            env=surroundings(**settings, **own),
            start_new_session=True,
        )  # fmt: skip


def processes_with(text: str) -> list[int]:
    """Processes that have a text in their environment, this one left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (path / "environ").read_bytes() and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found


def command_of(pid: int) -> str:
    """The command line of a process; empty where it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
