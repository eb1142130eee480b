"""Prefect's server, a worker, a schedule and a browser: what a lab would leave running."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from browser import NARROW, WIDE, Browser, chromium

import flows
from results.text import number

PATIENCE_S = 240.0
PROGRAM = "from flows.cli import main; main()"


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Up:
    """A running ``screen up``."""

    place: Path
    url: str
    process: subprocess.Popen[bytes]
    output: Path
    words: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, path: str, **question: Any) -> Any:
        """An answer of the server's API."""
        request = urllib.request.Request(
            f"{self.url}/api{path}", json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """Flow runs, oldest first, of the given types of state."""
        found = self.ask("/flow_runs/filter", sort="START_TIME_ASC")
        return [run for run in found if not states or run["state_type"] in states]

    def artifact(self, key: str) -> dict[str, Any]:
        """The latest version of an artifact."""
        (found,) = self.ask("/artifacts/latest/filter", artifacts={"key": {"any_": [key]}})
        return dict(found)

    def wait(self, what: Any, why: str) -> Any:
        """The first true value of ``what()``."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := what()):
            assert self.process.poll() is None, self.output.read_text()
            logs = [p.read_text() for p in self.place.glob("campaigns/.prefect/*.log")]
            assert time.monotonic() < deadline, f"{why}\n{self.output.read_text()}\n{logs}"
            time.sleep(0.3)
        return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, quick: str) -> Iterator[Up]:
    """Server, worker, deployment on a schedule of every minute, and somebody to be told."""
    place = tmp_path_factory.mktemp("up")
    words: list[dict[str, Any]] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            words.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    listener = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    port, output = free_port(), place / "output"
    command = [
        "up", "--task", "high-k", "--rounds", "2", "--batch", "2", "--no-start", "--timezone",
        "UTC",
        *quick.split(), "--cron", "* * * * *", "--port", str(port), "--set", "engine.delay_s=2",
        "--notify", f"http://127.0.0.1:{listener.server_address[1]}/",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(flows.__file__).parents[1])}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *command],
            cwd=place, stdout=file, stderr=file, env=environment,
        )  # fmt: skip
    here = Up(place, f"http://127.0.0.1:{port}", process, output, words)
    try:
        here.wait(lambda: "Ctrl-C stops" in output.read_text(), "screen up is not up")
        yield here
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        listener.shutdown()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def pictures(tmp: Path) -> Path:
    """Where pictures of pages go: ``SCREEN_PICTURES``, or nowhere for long."""
    return Path(os.environ.get("SCREEN_PICTURES", tmp))


def test_a_schedule_fires_and_the_browser_follows(
    up: Up, page: Browser, tmp_path: Path, ledger_of: Any
) -> None:
    """From the schedule to figures on the page that are those of the ledger."""
    (run, *_) = up.wait(lambda: up.runs("RUNNING", "COMPLETED"), "no scheduled run has begun")
    assert run["auto_scheduled"] and run["deployment_id"]
    page.look(WIDE)
    page.open(f"{up.url}/v2/runs/flow-run/{run['id']}", "document.body.innerText.includes('Logs')")
    page.wait("document.body.innerText.includes('Trained on 13 materials')", PATIENCE_S)
    page.picture(pictures(tmp_path) / "run.png")
    up.wait(lambda: run["id"] in [r["id"] for r in up.runs("COMPLETED")], "the run does not end")
    page.open(f"{up.url}/v2/runs/flow-run/{run['id']}", "document.body.innerText.includes('Logs')")
    page.wait("document.body.innerText.includes('Picked for calculation')", PATIENCE_S)
    page.picture(pictures(tmp_path) / "run-finished.png")
    tasks = up.ask(
        "/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}}, sort="EXPECTED_START_TIME_ASC"
    )
    steps = ["encode", "train", "predict", "select", "calculate", "gate", "record"]
    names = [re.sub(r" \(.*", "", task["name"]) for task in tasks]
    assert names == ["pull", *steps, *steps[1:]]

    from results.view import CampaignView

    view = CampaignView.from_ledger(ledger_of(up.place), "high-k")
    shown = [number(value) for value in view.validated["merit"]]
    assert shown
    for key, expected in {
        "campaign-high-k": [*shown, *view.validated["material_id"], "Figure of merit"],
        "round-1-high-k": [number(v) for v in view.calculations.query("round == 1")["merit_mean"]],
        "candidates-high-k": [number(v) for v in view.candidates["epsilon_mean"].head(5)],
        "calculations-high-k": [key[:8] for key in view.calculations["key"]],
        "model-high-k": [number(view.metrics[1]["static"]["mae_9"]), "Calibration of σ"],
    }.items():
        address = f"{up.url}/v2/artifacts/artifact/{up.artifact(key)['id']}"
        for size, dark in ((WIDE, False), (WIDE, True), (NARROW, False)):
            page.look(size, dark)
            page.open(address, "document.body.innerText.includes('Campaign high-k')")
            name = f"{key}-{size[0]}-{'dark' if dark else 'light'}.png"
            page.picture(pictures(tmp_path) / name)
            text = page.text()
            assert [word for word in expected if word not in text] == [], key
            loaded = "[...document.querySelectorAll('article img, main img')].every(i => i.complete"
            assert page.run(f"{loaded} && (i.naturalWidth > 0 || i.clientWidth === 0))")
    bar = up.artifact("progress-high-k")
    assert bar["type"] == "progress" and json.loads(bar["data"]) == 100
    outside = {u for u in page.requests if not u.startswith((up.url, "data:", "blob:", "about:"))}
    assert outside == set(), "the pages ask nobody else"


def test_the_next_runs_follow_and_word_is_sent(up: Up, ledger_of: Any) -> None:
    """The schedule fires again: the next campaign; and somebody was told about each round."""
    book = ledger_of(up.place)
    up.wait(lambda: len(up.runs("COMPLETED")) >= 1, "no run has ended")
    up.wait(lambda: book.campaign("high-k-2"), "no second campaign has begun")
    assert book.campaign("high-k-2").config["follows"] == "high-k"
    up.wait(lambda: any("Round 2 of 'high-k'" in str(w) for w in up.words), "nobody was told")
    texts = [word["text"] for word in up.words]
    assert any("has spent 4 of its 4 calculations" in text for text in texts)


def test_what_was_killed_is_marked_and_taken_up(up: Up, executed: Any) -> None:
    """kill -9 of the run's process and its worker together: the next run says that it crashed."""
    deployment = up.ask("/deployments/filter")[0]["id"]

    def at_work() -> Any:
        return [r for r in up.runs("RUNNING") if r["name"].startswith("high-k")]

    (run, *_) = up.wait(at_work, "no run is at work")
    pids = [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if run["id"] in _environment(path) and path.name != str(os.getpid())
    ]
    for pid in pids:
        if "dft.worker" not in _command(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def ended() -> bool:
        state = next(r for r in up.runs() if r["id"] == run["id"])["state_type"]
        return state in ("CRASHED", "COMPLETED", "FAILED")

    up.wait(ended, "a killed run is shown as running")
    state = next(r for r in up.runs() if r["id"] == run["id"])["state_type"]
    assert pids and state == "CRASHED", deployment
    later = len(up.runs("COMPLETED"))
    up.wait(lambda: len(up.runs("COMPLETED")) > later, "nobody took it up")
    assert {tuple(lines) for lines in executed(up.place).values()} <= {("start", "end")} | {
        ("start",)
    }


def _environment(process: Path) -> str:
    try:
        return (process / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_it_stops_cleanly(up: Up) -> None:
    """Last: nothing is left that listens or works for it, and the same command would go on."""
    group = up.process.pid
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(90) == 0
    assert "Stopping worker and server" in up.output.read_text()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{up.url}/api/health", timeout=5)
    assert group and not [
        path for path in Path("/proc").glob("[0-9]*") if f"PREFECT_API_URL={up.url}/" in
        _environment(path) and "dft." not in _command(int(path.name))
    ]  # fmt: skip


def test_the_report_without_a_network(finished: Any, page: Browser, tmp_path: Path) -> None:
    """Opened from the disk: figures drawn, nothing cut, data behind the figures, no errors."""
    home = finished[0] / "campaigns" / "high-k"
    page.requests.clear()
    page.offline()
    for size in (WIDE, NARROW):
        for dark in (False, True):
            page.look(size, dark)
            page.open(
                f"file://{home}/report.html", "document.querySelectorAll('.main-svg').length > 6"
            )
            page.picture(pictures(tmp_path) / f"report-{size[0]}-{dark}.png", whole=True)
            assert page.too_wide() == []
    best = finished[1].json["validated"][0]
    assert number(best["E_g·ε̄ (eV)"]) in page.text()
    assert page.run("document.querySelectorAll('svg.crystal circle').length") > 20
    page.run(
        "window.saved = []; URL.createObjectURL = b => { window.saved.push(b); return '#'; };"
        "document.querySelectorAll('[data-download]').forEach(b => b.click())"
    )
    page.wait("window.saved.length === document.querySelectorAll('[data-download]').length")
    files = page.run("Promise.all(window.saved.map(blob => blob.text()))")
    parity = next(text for text in files if "epsilon_predicted" in text)
    rows = parity.strip().splitlines()[1:]
    assert len(rows) == len(finished[1].json["validated"])
    assert best["formula"] in parity
    assert page.errors == []
    assert [u for u in page.requests if not u.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("deploy", "No Prefect server is named"),
        ("up --port 1", "Port 1 cannot be used"),
        ("up --set model.members=1", "model.members"),
    ],
)
def test_mistakes_of_one_sentence(tmp_path: Path, screen: Any, command: str, message: str) -> None:
    if "--port" in command:
        with contextlib.closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            command, message = command.replace("1", str(port)), message.replace("1", str(port))
            done = screen(tmp_path, command)
    else:
        done = screen(tmp_path, command)
    assert done.status == 2 and message in done.message
    assert len(done.err.strip().splitlines()) == 1


def test_a_server_that_is_none_or_another(tmp_path: Path, monkeypatch: Any) -> None:
    from flows.server import check_server
    from screening.errors import UserError

    class Old(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'"2.20.1"')

        def log_message(self, format: str, *args: object) -> None:
            return

    with pytest.raises(UserError, match="does not answer"):
        check_server(f"http://127.0.0.1:{free_port()}/api")
    server = http.server.HTTPServer(("127.0.0.1", 0), Old)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(UserError, match=r"has version 2\.20\.1"):
        check_server(f"http://127.0.0.1:{server.server_address[1]}/api")
    server.shutdown()


def test_cron_nonsense() -> None:
    from flows.deployment import cron_schedule
    from screening.errors import UserError

    for cron in ("every day", "61 * * * *", "* * *"):
        with pytest.raises(UserError, match="is no cron schedule"):
            cron_schedule(cron, "UTC")
    with pytest.raises(UserError, match="no time zone 'Mars'"):
        cron_schedule("0 2 * * *", "Mars")
