"""Calculations handed over to jobflow-remote, with its own runner and a database in memory."""

from __future__ import annotations

import builtins
import json
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dft.calculation import State
from dft.gate import judge
from dft.jobflow_remote import JobflowRemoteLauncher
from dft.settings import JobflowRemoteSettings
from dft.verdict import Verdict
from screening.errors import UserError
from screening.material import KnownMaterial

pytest.importorskip("jobflow_remote", reason="jobflow-remote is not installed")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from jobflow_remote_project import InMemory

    return InMemory(tmp_path / "jobflow-remote", monkeypatch)


def launcher_of(bench: Any, **settings: Any) -> JobflowRemoteLauncher:
    return JobflowRemoteLauncher(bench.root, JobflowRemoteSettings(poll_s=0.0, **settings))


def executions(project: Any) -> list[str]:
    """Keys of the calculations, as often as jobflow-remote has executed them."""
    logs = sorted(project.work.rglob("executions.log"))
    inputs = [json.loads((log.parent / "jfremote_in.json").read_bytes()) for log in logs]
    starts = [log.read_text().count(" start ") for log in logs]
    return sorted(
        key
        for one, number in zip(inputs, starts, strict=True)
        for key in [one["job"]["metadata"]["calculation"]] * number
    )


def test_handed_over_once_executed_once_and_collected(
    bench: Any, project: Any, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many[:3])
    for _ in range(2):
        launcher = launcher_of(bench)
        launcher.submit(keys)
        assert launcher.poll(keys) == dict.fromkeys(keys, State.PENDING)
    assert project.controller.count_flows() == 3
    activity = launcher.look(keys)[keys[1]]
    assert datetime.fromisoformat(activity.since).tzinfo is not None
    assert re.fullmatch(r"job \d on here", activity.where) and activity.note == "ready"
    project.run()
    launcher = launcher_of(bench, cores=4)
    launcher.submit(keys[:1])
    assert launcher.poll(keys) == dict.fromkeys(keys, State.DONE)
    assert executions(project) == sorted(keys)
    for key, known in zip(keys, many, strict=False):
        output = launcher.fetch(key)
        judgement = judge(known.material.structure, output)
        assert judgement.verdict is Verdict.ACCEPTED and output.engine == "replay"
        assert judgement.tensors.ionic == pytest.approx(known.tensors.ionic)
        assert output.wall_s > 0 and output.cpu_s == pytest.approx(4 * output.wall_s)
    # A result that the disk has lost is fetched again, not calculated again.
    bench.calculation(keys[0]).result_path.write_text("{")
    assert launcher_of(bench).poll(keys[:1])[keys[0]] is State.DONE
    assert executions(project) == sorted(keys)


def test_what_fails_there_is_a_result_here(
    bench: Any, project: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.prepare(stubs.StubEngine("raises"), many[:1])
    launcher = launcher_of(bench)
    launcher.submit([key])
    project.run()
    assert launcher.poll([key])[key] is State.DONE
    output = launcher.fetch(key)
    assert "RuntimeError: no bands today" in output.error
    assert "\n" not in output.error and "Traceback" not in output.error
    assert judge(many[0].material.structure, output).verdict is Verdict.ENGINE_ERROR


def test_cancelled_on_either_side(bench: Any, project: Any, many: list[KnownMaterial]) -> None:
    here, there, other = keys = bench.replay(many[:3])
    launcher = launcher_of(bench)
    launcher.submit(keys)
    launcher.cancel([here])
    flow = json.loads(bench.calculation(there).flow_path.read_bytes())["uuid"]
    project.controller.stop_jobs(flow_ids=[flow])
    assert launcher.poll(keys) == {here: State.LOST, there: State.LOST, other: State.PENDING}
    assert "stopped in jobflow-remote" in bench.calculation(there).cancelled_path.read_text()
    project.run()
    assert launcher.poll(keys) == {here: State.LOST, there: State.LOST, other: State.DONE}
    assert executions(project) == [other]
    launcher.submit(keys)
    project.run()
    assert launcher.poll(keys) == dict.fromkeys(keys, State.DONE)
    assert executions(project) == sorted(keys)


def test_a_database_that_was_emptied(bench: Any, project: Any, many: list[KnownMaterial]) -> None:
    (key,) = bench.replay(many[:1])
    launcher = launcher_of(bench)
    launcher.submit([key])
    project.controller.reset()
    assert launcher.poll([key])[key] is State.PENDING
    project.run()
    assert launcher.poll([key])[key] is State.DONE and executions(project) == [key]


def test_the_worker_and_the_lines_that_were_chosen(
    bench: Any, project: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.replay(many[:1])
    with pytest.raises(UserError, match=r"no worker 'moon' \(it has: here\).*launcher\.worker"):
        launcher_of(bench, worker="moon").submit([key])
    with pytest.raises(UserError, match=r"no exec_config 'x' \(it has: lines\)"):
        launcher_of(bench, exec_config="x").submit([key])
    assert project.controller.count_flows() == 0
    launcher = launcher_of(bench, worker="here", exec_config="lines", priority=7)
    launcher.submit([key])
    (job,) = project.controller.get_jobs_info()
    assert (job.worker, job.priority, job.metadata["calculation"]) == ("here", 7, key)
    project.run()
    (script,) = project.work.rglob("submit.sh")
    assert "FROM_EXEC_CONFIG" in script.read_text()
    assert launcher.poll([key])[key] is State.DONE


def test_a_worker_that_cannot_be_reached(
    bench: Any, project: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.replay(many[:1])
    launcher = launcher_of(bench)
    launcher.submit([key])
    (job,) = project.controller.get_jobs_info()
    # What jobflow-remote notes after it has tried often enough.
    project.controller.set_job_doc_properties(
        {"state": "REMOTE_ERROR", "remote.error": "Traceback:\n  x\nOSError: no such host"},
        db_id=job.db_id,
    )
    with pytest.raises(UserError, match=r"job 1 \(OSError: no such host\).*jf job retry 1"):
        launcher.poll([key])
    project.controller.rerun_jobs(db_ids=[job.db_id])
    project.run()
    assert launcher_of(bench).poll([key])[key] is State.DONE


def test_no_project(
    bench: Any, many: list[KnownMaterial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobflow_remote import SETTINGS

    keys = bench.replay(many[:1])
    monkeypatch.setattr(SETTINGS, "projects_folder", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"not set up .*jf project list.*launcher\.project"):
        launcher_of(bench).submit(keys)


def test_no_database(
    bench: Any, many: list[KnownMaterial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import free_ports
    from jobflow_remote import SETTINGS
    from jobflow_remote_project import InMemory

    keys = bench.replay(many[:1])
    with pytest.MonkeyPatch.context() as patch:
        project = InMemory(tmp_path / "jobflow-remote", patch)
    monkeypatch.setattr(SETTINGS, "projects_folder", str(project.home / "projects"))
    soon = {"serverSelectionTimeoutMS": 200}
    store = {"type": "MongoStore", "database": "x", "collection_name": "jobs",
             "port": free_ports(1)[0], "mongoclient_kwargs": soon}  # fmt: skip
    project.write(queue={"store": store})
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"database .* does not answer .*nothing is lost"):
        launcher_of(bench).submit(keys)
    assert time.monotonic() - begun < 60


def test_without_jobflow_remote(
    bench: Any, many: list[KnownMaterial], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = bench.replay(many[:1])
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("jobflow_remote"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"not installed; pip install"):
        launcher_of(bench).submit(keys)
