"""The same campaign as a Prefect flow run, and without a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SCREEN = str(Path(sys.executable).with_name("screen"))
STEPS = ("train", "predict", "select", "calculate", "gate", "record")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A Prefect server of its own; its address."""
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=240):
        yield str(get_current_settings().api.url)


def flow_run(name: str) -> tuple[Any, list[Any], str]:
    """The flow run of that name, its task runs in the order of their start, and all it logged."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterName,
        LogFilter,
        LogFilterFlowRunId,
    )
    from prefect.logging.handlers import APILogWorker

    APILogWorker.instance().drain()
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        (run,) = client.read_flow_runs(flow_run_filter=wanted)
        tasks: list[Any] = []
        deadline = time.monotonic() + 30
        # Task runs are recorded from events, a moment after they have happened.
        while time.monotonic() < deadline:
            tasks = client.read_task_runs(flow_run_filter=wanted)
            if all(task.state and task.state.is_final() for task in tasks) and len(tasks) > 0:
                break
            time.sleep(0.3)
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])), limit=200)
    tasks.sort(key=lambda task: task.start_time)
    return run, tasks, "\n".join(log.message for log in logs)


def test_a_campaign_is_a_flow_run(
    server: str, finished: Any, tmp_path: Path, screen: Any, quick: str,
    executed: Callable[[Path], Any],
) -> None:  # fmt: skip
    """It does what the plain call does, and Prefect shows every step of it."""
    done = screen(tmp_path, f"run --task high-k --rounds 3 --batch 4 --json {quick}")
    assert done.status == 0, done.err
    plain = {k: v for k, v in finished[1].json.items() if k not in ("directory", "report")}
    assert {k: done.json[k] for k in plain} == plain
    assert set(map(tuple, executed(tmp_path).values())) == {("start", "end")}
    run, tasks, logs = flow_run("high-k")
    assert run.state.is_completed()
    steps = [f"{step} (round {number})" for number in (1, 2, 3) for step in STEPS]
    assert [task.name for task in tasks] == ["pull", "encode", *steps]
    assert all(task.state.is_completed() for task in tasks)
    assert "Round 2 of 3" in logs and "Trained on" in logs


def test_a_mistake_is_a_failed_run_and_one_sentence(
    server: str, tmp_path: Path, screen: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    done = screen(tmp_path, "run --name mistaken --set filters.min_band_gap=50")
    assert done.status == 2 and done.message.startswith("Error: No candidate is left")
    captured = capfd.readouterr()
    run, tasks, logs = flow_run("mistaken")
    assert run.state.is_failed() and [task.name for task in tasks] == ["pull"]
    assert "No candidate is left" in run.state.message
    for text in (done.out, done.err, captured.out, captured.err, logs):
        assert "Traceback" not in text


def test_ctrl_c_ends_the_run(server: str, tmp_path: Path, screen: Any, quick: str) -> None:
    command = f"run --name stopped --rounds 1 --batch 2 --set engine.delay_s=2 {quick}"
    log = tmp_path / "stderr.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [SCREEN, *command.split()],
            cwd=tmp_path,
            env={**os.environ, "PREFECT_API_URL": server},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("campaigns/*/calculations/*/executions.log")):
        assert time.monotonic() < deadline and process.poll() is None, log.read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    text = log.read_text()
    assert "screen resume stopped" in text.strip().splitlines()[-1]
    assert "Traceback" not in text
    run, _, _ = flow_run("stopped")
    assert run.state.is_final() and not run.state.is_completed()


def test_without_a_server_none_is_started(tmp_path: Path, quick: str) -> None:
    home = tmp_path / "prefect"
    environment = {**os.environ, "PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    code = (
        "import sys, threading; from flows.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.startswith('prefect.server.api.server')])\n"
        "print([t.name for t in threading.enumerate() if 'refect' in t.name])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--rounds", "1", "--batch", "1", *quick.split()],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]
    assert not list(home.rglob("*.db*")), "no database of a server"
    assert "prefect" not in done.stderr.lower()
