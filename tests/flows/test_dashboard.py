"""Prefect's server, a worker, a schedule and a browser: what a lab would leave running."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import NARROW, WIDE, Browser, chromium, installed
from lab import PATIENCE_S, QUICK, Lab, command_of, free_port, processes_with, up

from results.campaigns import RUNNING
from results.markdown import formula
from results.text import number
from results.view import CampaignView
from screening.builtin import builtin_known

BOX = "[data-testid=markdown-display]"
"""Where the UI puts the text of an artifact."""
SHOWN = f"(document.querySelector('{BOX}') || {{innerText: ''}}).innerText.includes('Campaign')"
ROUNDS = """[...document.querySelectorAll('label')].find(
    e => e.innerText.startsWith('Rounds')).control"""
"""The form's field of that name."""
TALL = 2600
"""Pixels in which a whole artifact has room, pictures and all."""
PAGE_S = 30.0
SETTLE_S = 5.0
"""For the graph of a run, which is drawn after the text and tells nobody."""


@pytest.fixture(scope="module")
def words() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's address and what was posted there."""
    said: list[dict[str, Any]] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            said.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    listener = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_address[1]}/", said
    listener.shutdown()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, words: Any) -> Iterator[Lab]:
    """Server, worker and a deployment that runs every minute, and somebody to be told."""
    flags = "--task high-k --rounds 2 --batch 2 --no-start --timezone UTC --set engine.delay_s=2"
    schedule = ["--cron", "* * * * *", "--notify", words[0]]
    here = up(tmp_path_factory.mktemp("lab"), [*flags.split(), *QUICK, *schedule])
    try:
        yield here
    finally:
        (process,) = here.processes
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if installed() is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def pictures(tmp: Path) -> Path:
    """Where pictures of pages go: ``SCREEN_PICTURES``, or nowhere for long."""
    return Path(os.environ.get("SCREEN_PICTURES", tmp))


def test_a_schedule_fires_and_the_browser_follows(lab: Lab, page: Browser, tmp_path: Path) -> None:
    """Run and log in the browser, step by step, and a bar that moves while calculations run."""
    (run, *_) = lab.wait(lambda: lab.runs("RUNNING", "COMPLETED"), "no scheduled run has begun")
    assert run["auto_scheduled"] and run["deployment_id"]
    page.look(WIDE)
    address = f"{lab.url}/v2/runs/flow-run/{run['id']}"
    page.open(address, "document.body.innerText.includes('Logs')")
    trained = f"Trained on {len(builtin_known())} materials"
    page.wait(f"document.body.innerText.includes('{trained}')", PATIENCE_S)

    def moves() -> bool:
        bar = lab.artifact("progress-high-k")
        return bar is not None and "ended" in bar["description"]

    page.open("about:blank")  # the graph of a run at work is drawn without end
    lab.wait(moves, "no calculation is shown")
    lab.wait(lambda: lab.run(run["id"])["state_type"] == "COMPLETED", "the run does not end")
    page.open(address, "document.body.innerText.includes('Picked for calculation')")
    time.sleep(SETTLE_S)
    page.picture(pictures(tmp_path) / "run.png")
    tasks = lab.ask(
        "/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}}, sort="EXPECTED_START_TIME_ASC"
    )
    steps = ["encode", "train", "predict", "select", "calculate", "gate", "record"]
    names = [re.sub(r" \(.*", "", task["name"]) for task in tasks]
    assert names == ["pull", *steps, *steps[1:]]
    bar = lab.artifact("progress-high-k")
    assert bar is not None and bar["type"] == "progress" and int(bar["data"]) == 100


def test_the_artifacts_are_the_ledger(
    lab: Lab, page: Browser, tmp_path: Path, ledger_of: Any
) -> None:
    """Figures on the pages are the ledger's; nothing is cut or lies upon anything else."""
    lab.wait(lambda: lab.runs("COMPLETED"), "no run has ended")
    view = CampaignView.from_ledger(ledger_of(lab.place), "high-k")
    assert len(view.validated)
    first = view.calculations[view.calculations["round"] == 1].to_dict("records")
    pages = {
        "campaign-high-k": [
            *map(number, view.validated["merit"]), *map(number, view.validated["epsilon"]),
            *(formula(row) for row in view.validated.to_dict("records")), "4 of 4",
        ],
        "round-1-high-k": [
            *(number(row[name]) for row in first for name in ("merit_mean", "epsilon", "merit")),
            *(formula(row) for row in first),
        ],
        "candidates-high-k": [
            f"{number(row['epsilon_mean'])} ± {number(row['epsilon_std'], 2)}"
            for row in view.candidates.sort_values("rank").head(5).to_dict("records")
        ],
        "calculations-high-k": [*(key[:8] for key in view.calculations["key"]), "✓ accepted"],
        "model-high-k": [
            number(view.metrics[1]["static"]["mae_9"]), "Predicted against calculated",
        ],
    }  # fmt: skip
    drawn = {"campaign-high-k": 2, "model-high-k": 2}
    for key, expected in pages.items():
        page.look(WIDE)
        page.open(lab.page_of(key), SHOWN)
        page.wait(
            f"[...document.querySelectorAll('{BOX} img')].filter(i => i.naturalWidth > 0).length"
            f" === {drawn.get(key, 0)}"
        )
        words = json.dumps(expected, ensure_ascii=False)
        page.wait(f"{words}.every(word => document.body.innerText.includes(word))", PAGE_S)
        for size in ((WIDE[0], TALL), (NARROW[0], TALL)):
            for dark in (False, True):
                colours = "dark" if dark else "light"
                page.look(size, dark)
                page.wait(f"document.documentElement.className === '{colours}'", PAGE_S)
                assert page.cut(BOX) == [], f"{key} at {size}"
                page.picture(pictures(tmp_path) / f"{key}-{size[0]}-{colours}.png")

    time.sleep(SETTLE_S)
    assert page.asked(lab.url, "about:") == set(), "the pages ask nobody else"


def test_the_run_form(lab: Lab, page: Browser, tmp_path: Path) -> None:
    """Fields of the campaign with their help; nonsense is refused before anything starts."""
    page.look(WIDE)
    deployment = lab.deployment()
    page.open(
        f"{lab.url}/v2/deployments/deployment/{deployment['id']}/run",
        "document.body.innerText.includes('Calculations per round')",
    )
    page.picture(pictures(tmp_path) / "form.png", whole=True)
    text = page.text()
    for words in ("Rounds of the loop", "Fixes all chance", "where campaigns are kept"):
        assert words in text
    asked_for = [run["id"] for run in lab.runs() if not run["auto_scheduled"]]
    page.run(f"({ROUNDS}).focus(), document.execCommand('selectAll')")
    page.call("Input.insertText", text="0")
    page.run("[...document.querySelectorAll('button')].find(e => e.innerText === 'Submit').click()")
    page.wait(f"({ROUNDS}).value === '0' && ({ROUNDS}).validationMessage !== ''", PAGE_S)
    assert page.run("location.pathname.endsWith('/run')")
    assert [run["id"] for run in lab.runs() if not run["auto_scheduled"]] == asked_for
    parameters = deployment["parameters"]
    for field, value in {"rounds": 0, "task": "nonsense", "colour": "blue"}.items():
        wrong = {**parameters, "campaign": {**parameters["campaign"], field: value}}
        with pytest.raises(urllib.error.HTTPError) as refused:
            lab.ask(f"/deployments/{deployment['id']}/create_flow_run", parameters=wrong)
        assert refused.value.code in (409, 422), field


def test_the_next_runs_follow_and_word_is_sent(lab: Lab, words: Any, ledger_of: Any) -> None:
    """Another run: the next campaign; and somebody was told about each round."""
    book = ledger_of(lab.place)
    lab.start_run()  # or the schedule's, whichever is first; the other is cancelled
    lab.wait(lambda: book.campaign("high-k-2"), "no second campaign has begun")
    assert book.campaign("high-k-2").config["follows"] == "high-k"
    lab.wait(lambda: any("Round 2 of 'high-k'" in str(w) for w in words[1]), "nobody was told")
    texts = [word["text"] for word in words[1]]
    assert any("has spent 4 of its 4 calculations" in text for text in texts)


def test_what_was_killed_is_marked_and_taken_up(lab: Lab, ledger_of: Any) -> None:
    """kill -9 of a run's process: the worker says that it crashed, and the next run goes on."""
    book = ledger_of(lab.place)

    def at_work() -> list[dict[str, Any]]:
        return [r for r in lab.runs("RUNNING") if r["name"].startswith("high-k")]

    def unfinished() -> list[str]:
        return [c.name for c in book.campaigns() if c.status == RUNNING]

    if not at_work():
        lab.start_run()
    (run, *_) = lab.wait(lambda: unfinished() and at_work(), "no run is at work")
    pids = [p for p in processes_with(run["id"]) if "dft.worker" not in command_of(p)]
    before = {r["id"] for r in lab.runs("COMPLETED")}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    final = ("CRASHED", "COMPLETED", "FAILED")
    lab.wait(lambda: lab.run(run["id"])["state_type"] in final, "a killed run is shown as running")
    assert pids and lab.run(run["id"])["state_type"] == "CRASHED"
    (killed,) = unfinished()
    lab.start_run()
    lab.wait(lambda: killed not in unfinished(), "nobody took it up")
    lab.wait(
        lambda: [r for r in lab.runs("COMPLETED") if r["id"] not in before], "no run has ended"
    )
    # What was calculating went on without its campaign.
    keys = CampaignView.from_ledger(book, killed).calculations["key"]
    assert len(keys) and {tuple(lab.executions()[key]) for key in keys} == {("start", "end")}
    assert {tuple(lines) for lines in lab.executions().values()} <= {("start", "end"), ("start",)}


def test_it_stops_cleanly(lab: Lab) -> None:
    """Last: nothing is left that listens or works for it, and the same command would go on."""
    (process,) = lab.processes
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 0
    assert "Stopping worker and server" in (lab.place / "up.log").read_text()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{lab.url}/api/health", timeout=5)
    left = [command_of(pid) for pid in processes_with(f"PREFECT_API_URL={lab.url}/")]
    assert [words for words in left if words and "dft." not in words] == []


def test_the_report_without_a_network(finished: Any, page: Browser, tmp_path: Path) -> None:
    """Opened from the disk: figures drawn, nothing cut, data behind the figures, no errors."""
    home = finished[0] / "campaigns" / "high-k"
    page.open("about:blank")
    page.requests.clear()
    page.errors.clear()
    page.offline(True)
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
    assert page.asked("file:") == set()
    page.offline(False)


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
