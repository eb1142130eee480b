"""The same campaign as a Prefect flow run, and without a server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flows.sources import SECRET_BLOCK, secret_block
from screening.errors import UserError

SCREEN = str(Path(sys.executable).with_name("screen"))
ROOT = Path(__file__).parents[2]
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


def test_deployments(server: str, tmp_path: Path, screen: Any) -> None:
    """One from the command line, made anew by the same command; mistakes are one sentence."""
    from prefect.client.orchestration import get_client

    for rounds in (2, 5):
        words = f'deploy --rounds {rounds} --ledger my.sqlite --cron "0 2 * * *" --timezone UTC'
        done = screen(tmp_path, words)
        assert done.status == 0 and "Runs at '0 2 * * *' (UTC)" in done.out, done.err
    with get_client(sync_client=True) as client:
        (made,) = client.read_deployments()
        assert made.parameters["campaign"]["rounds"] == 5 and made.enforce_parameter_schema
        # A worker runs it in a folder of its own, which it then deletes.
        assert made.parameters["ledger"] == str(tmp_path / "my.sqlite")
        assert [s.schedule.cron for s in made.schedules] == ["0 2 * * *"]
        assert made.work_pool_name == "dielectric-screening"
        assert made.global_concurrency_limit.limit == 1
    for words, message in {
        "--pool nope": "There is no work pool 'nope' on the server; it has: dielectric-screening",
        "--cron nonsense": "'nonsense' is no cron schedule",
        "--notify slack-webhook/lab": "'slack-webhook/lab' is neither an http(s) address nor",
    }.items():
        done = screen(tmp_path, f"deploy {words}")
        assert done.status == 2 and message in done.message, done.err
        assert len(done.err.strip().splitlines()) == 1


def test_the_written_deployment_is_that_of_the_command() -> None:
    """prefect.yaml, for those who deploy with Prefect's own command."""
    import importlib

    import yaml

    from flows.config import Campaign
    from flows.deployment import POOL
    from flows.scheduled import scheduled

    (entry,) = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    module, _, name = entry["entrypoint"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is scheduled
    assert Campaign.model_validate(entry["parameters"]["campaign"]).task == "high-k"
    assert entry["work_pool"]["name"] == POOL
    assert entry["work_pool"]["job_variables"]["working_dir"] == "."
    assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_artifacts_belong_to_runs(server: str) -> None:
    """Inside a run a page has a key made of the campaign's name; outside there is none."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from flows.artifacts import artifact_key
    from flows.sources import show_pull

    @flow
    def shows() -> None:
        show_pull("My_Campaign.2", "# inside")

    key = artifact_key("pull", "My_Campaign.2")
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        show_pull("My_Campaign.2", "# outside")
        assert client.read_artifacts(artifact_filter=wanted) == []
        shows()
        (made,) = client.read_artifacts(artifact_filter=wanted)
    assert made.data == "# inside" and made.flow_run_id is not None
    assert key.startswith("pull-my-campaign-2-") and key != artifact_key("pull", "my-campaign.2")


def test_the_key_in_a_secret_block(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server
    from prefect.blocks.system import Secret

    assert secret_block() is None
    Secret(value="k" * 32).save(SECRET_BLOCK)
    assert secret_block() == SecretStr("k" * 32)
    Secret(value={"key": "k" * 32}).save(SECRET_BLOCK, overwrite=True)
    with pytest.raises(UserError, match="'mp-api-key' cannot be read as a Secret; make it again"):
        secret_block()
    Secret.delete(SECRET_BLOCK)
    assert secret_block() is None

    def unreadable(_name: str) -> Any:
        raise ValueError("1 validation error for Secret: k k k")

    monkeypatch.setattr(Secret, "load", staticmethod(unreadable))
    with pytest.raises(UserError, match="cannot be read as a Secret") as refused:
        secret_block()
    assert "k k k" not in str(refused.value)


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


def test_a_run_that_died_with_its_machine_is_marked(
    server: str, tmp_path: Path, screen: Any, quick: str, executed: Callable[[Path], Any]
) -> None:
    """kill -9, and nobody is left to tell the server: the next run does, and goes on."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.exceptions import ObjectNotFound

    def states() -> list[str]:
        wanted = FlowRunFilter(name=FlowRunFilterName(any_=["died"]))
        order = FlowRunSort.START_TIME_ASC
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(flow_run_filter=wanted, sort=order)
        return [f"{run.state.name}: {run.state.message}" for run in runs if run.state]

    # The server of Prefect's own tests has no service that ends leases: without it what the killed
    # run holds would never be free. A limit that is not there limits nothing.
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        client.delete_global_concurrency_limit_by_name("calculations")
    command = f"run --name died --rounds 1 --batch 2 --set engine.delay_s=2 {quick}"
    process = subprocess.Popen(
        [SCREEN, *command.split()], cwd=tmp_path, env={**os.environ, "PREFECT_API_URL": server},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not executed(tmp_path):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    (state,) = states()
    assert state.startswith("Running")
    done = screen(tmp_path, command)
    assert done.status == 0 and "was killed from outside" in done.err, done.err
    crashed, completed = states()
    assert crashed.startswith("Crashed: Killed from outside") and completed.startswith("Completed")
    assert set(map(tuple, executed(tmp_path).values())) == {("start", "end")}


def test_campaigns_take_turns_at_what_they_share(server: str, tmp_path: Path) -> None:
    """Calculations up to the limit's slots, one computation on the GPU; the CPU is free to all."""
    from types import SimpleNamespace

    from prefect.client.orchestration import get_client

    from flows.config import build_campaign
    from flows.limits import limit_of, make_limits
    from flows.reporter import Reporter
    from flows.run import CampaignRun
    from results.ledger import Ledger

    config = build_campaign(None, {"launcher.max_parallel": 2})
    with get_client(sync_client=True) as client:
        make_limits(client, config)
        make_limits(client, config)
    book = Ledger(tmp_path / "ledger.sqlite")

    def most_at_once(step: str, device: str) -> int:
        at_work, most = 0, 0
        lock = threading.Lock()

        def work() -> None:
            nonlocal at_work, most
            run = CampaignRun(config, tmp_path, book, Reporter())
            run.__dict__["cache"] = SimpleNamespace(device=device)
            barrier.wait()
            with limit_of(step, run):
                with lock:
                    at_work += 1
                    most = max(most, at_work)
                time.sleep(1.0)
                with lock:
                    at_work -= 1

        barrier = threading.Barrier(2)
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        return most

    assert most_at_once("calculate", "cpu") == 1
    assert most_at_once("train", "cuda:0") == 1
    assert most_at_once("train", "cpu") == 2


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
