"""The dashboard measured: how soon it is there, how large a report gets, and what mishaps do to it.

    python benchmarks/dashboard.py start      # a fresh clone: time to the first page and artifact
    python benchmarks/dashboard.py report     # a report on 14,000 candidates, network off
    python benchmarks/dashboard.py mishaps    # killed server, killed worker, and the like

``start --install`` makes the clone's own environment first, as ``make install`` does, and times it.
Pages are opened in Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from browser import WIDE, chromium
from lab import (
    QUICK,
    ROOT,
    Lab,
    command,
    command_of,
    free_port,
    processes_with,
    server,
    surroundings,
    worker,
)

from screening.builtin import builtin_hidden

FINAL = ("COMPLETED", "CRASHED", "FAILED", "CANCELLED")
CANDIDATES = 14_000


def start(place: Path, install: bool) -> None:
    """From nothing to a first look."""
    clone, began = place / "clone", time.monotonic()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    say("cloned after", time.monotonic() - began)
    program = command("up")
    if install:
        subprocess.run(["make", "install"], cwd=clone, check=True, stdout=subprocess.DEVNULL)
        say("installed after", time.monotonic() - began)
        program = [str(clone / ".venv/bin/screen"), "up"]
    port, began = free_port(), time.monotonic()
    environment = surroundings(PYTHONPATH=str(clone), SCREEN_CACHE=str(place / "cache"))
    with (place / "up.log").open("wb") as file:
        process = subprocess.Popen(
            [*program, "--task", "high-k", "--port", str(port)], cwd=clone, env=environment,
            stdout=file, stderr=file,
        )  # fmt: skip
    lab = Lab(place, f"http://127.0.0.1:{port}", [process])
    try:
        lab.wait(lambda: answers(lab), "the server does not answer")
        with chromium(place / "browser") as page:
            page.open(f"{lab.url}/v2/dashboard", "document.body.innerText.includes('Deployments')")
            say("first page after", time.monotonic() - began)
            for key in ("pull-high-k", "model-high-k", "round-1-high-k", "campaign-high-k"):
                lab.wait(lambda key=key: lab.artifact(key), key)  # type: ignore[misc]
                say(f"artifact {key} after", time.monotonic() - began)
            page.open(lab.page_of("campaign-high-k"), "document.body.innerText.includes('Best:')")
            say("its page after", time.monotonic() - began)
        lab.wait(lambda: lab.runs("COMPLETED"), "the run does not end")
        say("campaign of three rounds finished after", time.monotonic() - began)
    finally:
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        say(f"stopped (exit status {process.wait(90)}) after", time.monotonic() - began)


def report(place: Path) -> None:
    """A report as large as they get, opened without a network."""
    sys.path.append(str(ROOT / "tests" / "results" / "reporting"))
    from conftest import Example

    from results.report import write_report

    with chromium(place / "browser") as page:
        for candidates in (len(builtin_hidden()), CANDIDATES):
            view = Example.view(n_candidates=candidates, n_known=min(3000, 10 * candidates))
            began = time.monotonic()
            path = write_report(view, place / f"report-{candidates}.html")
            written, size = time.monotonic() - began, path.stat().st_size
            packed = len(gzip.compress(path.read_bytes()))
            seconds = []
            page.offline()
            page.look(WIDE)
            for _ in range(3):
                page.open("about:blank")
                page.requests.clear()
                began = time.monotonic()
                page.open(f"file://{path}", "document.querySelectorAll('.main-svg').length > 6")
                seconds.append(time.monotonic() - began)
            outside = page.asked("file:", "about:")
            print(
                f"{candidates:6,} candidates: {size / 1e6:.1f} MB ({packed / 1e6:.1f} MB packed), "
                f"written in {written:.1f} s, opened with all figures drawn in "
                f"{', '.join(f'{s:.1f}' for s in seconds)} s; requests to outside: {len(outside)}, "
                f"script errors: {len(page.errors)}"
            )


class Mishaps:
    """A server, a worker, a deployment of one series, and everything that goes wrong with them."""

    def __init__(self, place: Path) -> None:
        self.place, self.port = place, free_port()
        self.lab = Lab(place, f"http://127.0.0.1:{self.port}")
        self.server = server(place, self.port)
        self.lab.wait(lambda: answers(self.lab), "the server does not answer")
        self.deploy(batch=1)
        self.worker = worker(place, self.port, "first")

    def deploy(self, *words: str, **fields: Any) -> None:
        """The deployment, from a campaign file with these fields."""
        campaign = {"name": "lab", "rounds": 2, "engine": {"delay_s": 4}, **fields}
        (self.place / "lab.yaml").write_text(yaml.safe_dump(campaign))
        subprocess.run(
            command("deploy", "lab.yaml", *QUICK, *words), cwd=self.place, check=True,
            env=surroundings(PREFECT_API_URL=f"{self.lab.url}/api"), stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def at_work(self) -> tuple[str, list[int]]:
        """A run in the middle of its calculations, and its processes."""
        before, identity = len(self.lab.executions()), self.lab.start_run()
        self.lab.wait(lambda: len(self.lab.executions()) > before, "no calculation begins")
        return identity, self.processes(identity)

    def processes(self, identity: str) -> list[int]:
        """Processes of a run, without workers of calculations, which have a life of their own."""
        return [p for p in processes_with(identity) if "dft.worker" not in command_of(p)]

    def end(self, identity: str, patience_s: float = 900.0) -> str:
        """How a run has ended."""
        ended = self.lab.wait(
            lambda: (r := self.lab.run(identity))["state_type"] in FINAL and r,
            "a run does not end", patience_s,
        )  # fmt: skip
        assert isinstance(ended, dict)
        return f"{ended['state_name']} ({ended['state']['message']})"

    def log(self, identity: str, words: str) -> str:
        """The line of a run's log with these words."""
        logs = self.lab.ask("/logs/filter", logs={"flow_run_id": {"any_": [identity]}})
        return next((log["message"] for log in logs if words in log["message"]), "-")

    def second_worker(self) -> None:
        """Two workers: a run is done by one of them; of two runs at once the second is refused."""
        second = worker(self.place, self.port, "second")
        runs = [self.lab.start_run() for _ in range(2)]
        print("two runs at once, two workers:", *(f"\n  {self.end(run)}" for run in runs))
        stop(second)

    def killed_worker(self) -> None:
        """The run goes on without it."""
        run, _ = self.at_work()
        os.kill(self.worker.pid, signal.SIGKILL)
        self.worker.wait()
        print("killed worker:\n  its run:", self.end(run))
        self.worker = worker(self.place, self.port, "first")
        print("  the next run, by a new worker:", self.end(self.lab.start_run()))

    def killed_run(self) -> None:
        """The worker sees it."""
        run, pids = self.at_work()
        kill(pids)
        began = time.monotonic()
        print(f"killed run:\n  {self.end(run)}", f"after {time.monotonic() - began:.0f} s")
        print("  the next run:", self.end(self.lab.start_run()))

    def dead_machine(self) -> None:
        """Run and worker at once: nobody sees it, until the next run does."""
        run, pids = self.at_work()
        kill([*pids, self.worker.pid])
        self.worker.wait()
        began = time.monotonic()
        self.worker = worker(self.place, self.port, "first")
        print("killed run and worker:")
        tried = 0
        while (following := self.end(self.lab.start_run())).startswith("Cancelled"):
            tried += 1
            time.sleep(20)
        print(f"  {tried} runs were cancelled, for the dead one held the only place; then, after")
        print(f"  {time.monotonic() - began:.0f} s: {following}\n  the dead run: {self.end(run)}")

    def killed_server(self) -> None:
        """Back after ten seconds."""
        run, _ = self.at_work()
        self.server.kill()
        self.server.wait()
        time.sleep(10)
        self.server = server(self.place, self.port)
        self.lab.wait(lambda: answers(self.lab), "the server does not come back")
        print("killed server, back after ten seconds:\n  its run:", self.end(run))
        print("  the next run:", self.end(self.lab.start_run()))

    def schedule_during_a_run(self) -> None:
        """Every minute, and calculations that take longer."""
        self.deploy("--cron", "* * * * *", "--timezone", "UTC", batch=1, engine={"delay_s": 45})
        known = {run["id"] for run in self.lab.runs(*FINAL)}

        def ended() -> list[dict[str, Any]]:
            return [r for r in self.lab.runs(*FINAL) if r["id"] not in known]

        self.lab.wait(lambda: any(r["state_type"] == "COMPLETED" for r in ended()), "", 900.0)
        print("a schedule of every minute, runs of two:")
        for run in ended():
            print(f"  {run['state_name']} ({run['state']['message']})")
        self.deploy(batch=1)
        for run in self.lab.runs("RUNNING", "PENDING"):
            self.end(run["id"])

    def changed_file(self) -> None:
        """Between two runs of one campaign, and then for the next."""
        run, pids = self.at_work()
        name = self.lab.run(run)["name"]
        kill(pids)
        self.end(run)
        self.deploy(batch=2)
        following = self.lab.start_run()
        print(f"campaign file changed (batch 1, then 2) after '{name}' was interrupted:")
        print("  the next run:", self.end(following))
        print("  its log:", self.log(following, "settings have changed"))
        following = self.lab.start_run()
        print("  the run after it:", self.end(following))
        from results.ledger import Ledger

        book = Ledger(self.place / "campaigns" / "ledger.sqlite")
        for record in book.campaigns()[-2:]:
            table = book.calculations(record.name)
            sizes = table.groupby("round").size().to_list()
            print(f"  '{record.name}': calculations per round {sizes}")

    def books(self) -> None:
        """Every calculation ran once, whatever happened around it."""
        found = [tuple(lines) for lines in self.lab.executions().values()]
        once = found.count(("start", "end"))
        print(f"{len(found)} calculations in all, {once} executed once and to the end")
        left = self.lab.runs("RUNNING", "PENDING", "CANCELLING")
        print(f"{len(left)} runs are shown as running")

    def close(self) -> None:
        """Stop worker and server."""
        stop(self.worker)
        stop(self.server)


def mishaps(place: Path, only: list[str]) -> None:
    """One after the other, on one series of campaigns."""
    trials: list[Callable[[Mishaps], None]] = [
        Mishaps.second_worker, Mishaps.killed_run, Mishaps.killed_worker, Mishaps.killed_server,
        Mishaps.changed_file, Mishaps.schedule_during_a_run, Mishaps.dead_machine,
    ]  # fmt: skip
    lab = Mishaps(place)
    try:
        for trial in trials:
            if not only or trial.__name__ in only:
                trial(lab)
                sys.stdout.flush()
        lab.books()
    finally:
        lab.close()


def answers(lab: Lab) -> bool:
    """Whether the server does."""
    with contextlib.suppress(OSError):
        lab.ask("/deployments/filter")
        return True
    return False


def kill(pids: list[int]) -> None:
    """kill -9."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
            return


def say(what: str, seconds: float) -> None:
    """One measurement."""
    print(f"{what} {seconds:.1f} s", flush=True)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="dashboard-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("start", "report", "mishaps"))
    parser.add_argument("only", nargs="*", help="of mishaps: these alone, e.g. killed_server")
    parser.add_argument("--install", action="store_true", help="of start: the clone's own .venv")
    chosen = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {load:.1f} before", flush=True)
    with scratch() as place:
        match chosen.what:
            case "start":
                start(place, chosen.install)
            case "report":
                report(place)
            case _:
                mishaps(place, chosen.only)


if __name__ == "__main__":
    main()
