"""Calculations on a real Slurm: each executed once, whatever becomes of jobs and launchers."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dft.allocations import Allocations, Plan
from dft.calculation import State
from dft.gate import judge
from dft.slurm import SlurmLauncher
from dft.slurm_settings import SlurmLauncherSettings
from dft.verdict import Verdict
from screening.errors import UserError
from screening.material import KnownMaterial

pytestmark = pytest.mark.usefixtures("node_at_work")

QUICK = {"poll_s": 0.3, "settle_s": 0.5, "time": 600}
PATIENCE_S = 240.0


@pytest.fixture
def node_at_work(cluster: Any) -> None:
    """Slurm as it should be: a killed controller may have left the node drained."""
    cluster.tend()


def job_ids(bench: Any) -> list[str | None]:
    paths = [*bench.root.glob(".jobs/open/*.json"), *bench.root.glob(".jobs/*/job.json")]
    return [json.loads(path.read_bytes())["job_id"] for path in paths]


def alone(bench: Any, launcher: SlurmLauncher, key: str) -> str:
    """Submit one calculation and wait until it is at work; returns its job."""
    launcher.submit([key])
    bench.wait(lambda: launcher.poll([key]) and bench.names(key) == ["start"], PATIENCE_S)
    bench.wait(lambda: launcher.poll([key])[key] is State.RUNNING, PATIENCE_S)
    activity = launcher.look([key])[key]
    assert activity.state is State.RUNNING and activity.attempt == 1
    return re.fullmatch(r"job (\d+) on \S+", activity.where)[1]


def test_packs_arrays_and_the_limit_on_jobs(bench: Any, many: list[KnownMaterial]) -> None:
    keys = bench.replay(many[:14])
    launcher = bench.slurm(pack=3, at_once=2, array=2, max_jobs=3)
    launcher.submit(keys)
    most = 0

    def all_done() -> bool:
        nonlocal most
        tasks = [task for a in launcher.allocations.open() for task in a.tasks]
        results = {path.parent.name for path in bench.root.glob("*/result.json")}
        most = max(most, sum(not results.issuperset(task) for task in tasks))
        return set(launcher.poll(keys).values()) == {State.DONE}

    bench.wait(all_done, PATIENCE_S)
    # Five jobs of at most three calculations; an array of two and a single one at first.
    assert most == 3 and len(job_ids(bench)) in (3, 4)
    assert all(bench.names(key) == ["start", "end"] for key in keys)
    assert launcher.fetch(keys[0]).engine == "replay"
    bench.wait(lambda: launcher.poll(keys) and not launcher.allocations.open())
    launcher.submit(keys)
    assert len(job_ids(bench)) in (3, 4), "what is done is not submitted"


def test_a_batch_script_asks_for_what_the_campaign_says(tmp_path: Path) -> None:
    settings = SlurmLauncherSettings(
        nodes=2, cores=4, memory_gb=1.5, time="1-02:00:00", account="chem", partition="normal",
        qos="high", options=("--constraint=fast",), modules=("abinit/9.6",),
        pre_run=("export A=1", "ulimit -s unlimited"),
    )  # fmt: skip
    script = SlurmLauncher(tmp_path, settings).queue.script(tmp_path, "screen-x", ["run", "it"], 3)
    wanted = (
        "job-name=screen-x", "nodes=2", "ntasks-per-node=4", "mem=1536M", "time=1-2:0:0",
        "account=chem", "partition=normal", "qos=high", "no-requeue", "constraint=fast",
        "array=0-2", "open-mode=append",
    )  # fmt: skip
    assert [w for w in wanted if f"#SBATCH --{w}\n" not in script] == []
    body = script[script.rindex("#SBATCH") :]
    lines = ("module load abinit/9.6", "export A=1", "ulimit -s unlimited", "run it")
    assert [body.index(line) for line in lines] == sorted(body.index(line) for line in lines)
    single = SlurmLauncher(tmp_path, settings).queue.script(tmp_path, "screen-x", ["run"], 1)
    assert "--dependency=singleton" in single and "--array" not in single


def test_a_crash_between_sbatch_and_its_number_is_harmless(
    bench: Any, many: list[KnownMaterial]
) -> None:
    """The record says "not submitted", and Slurm has the job: in the queue, at work, or done."""
    keys = bench.replay(many[:2], delay_s=1.0)
    for moment in (State.PENDING, State.RUNNING, State.DONE):
        launcher = bench.slurm()
        launcher.submit(keys)
        bench.wait(lambda at=moment, by=launcher: at in by.poll(keys).values(), PATIENCE_S)
        for path in bench.root.glob(".jobs/open/*.json"):
            record = json.loads(path.read_bytes())
            path.write_text(json.dumps({**record, "job_id": None, "submitted_at": None}))
    launcher = bench.slurm()
    bench.finish(launcher, keys)
    assert len(job_ids(bench)) == 2 and all(bench.names(k) == ["start", "end"] for k in keys)


def test_a_submission_outlives_who_submits(
    bench: Any, many: list[KnownMaterial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher is killed while sbatch is on its way; the next one waits for that."""
    (key,) = bench.replay(many[:1])
    slow = tmp_path / "bin" / "sbatch"
    slow.parent.mkdir()
    begun = tmp_path / "begun"
    slow.write_text(
        f'#!/bin/sh\ntouch {begun}\nsleep 2\nPATH="{os.environ["PATH"]}"\nexec sbatch "$@"\n'
    )
    slow.chmod(0o755)
    context = multiprocessing.get_context("fork")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
        process = context.Process(target=lambda: bench.slurm().submit([key]))
        process.start()
        bench.wait(begun.exists)
        process.kill()
        process.join()
    launcher = bench.slurm()
    launcher.submit([key])
    assert job_ids(bench) == [None], "nothing is done as long as the other sbatch runs"
    bench.finish(launcher, [key])
    assert bench.names(key) == ["start", "end"]
    assert len(job_ids(bench)) == 1


def test_two_launchers_at_once(bench: Any, many: list[KnownMaterial]) -> None:
    """Two campaigns on the same calculations, in other orders and other packs."""
    keys = bench.replay(many, delay_s=0.05)
    context = multiprocessing.get_context("fork")

    def work(pack: int) -> None:
        launcher = bench.slurm(pack=pack, array=2)
        launcher.submit(keys[:: -1 if pack == 2 else 1])
        bench.finish(launcher, keys)

    workers = [context.Process(target=work, args=(pack,)) for pack in (2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert all(bench.names(key) == ["start", "end"] for key in keys)


@pytest.mark.parametrize("who", ["job", "calculation", "node"])
def test_what_is_killed_is_knowingly_started_again(
    bench: Any, cluster: Any, many: list[KnownMaterial], who: str
) -> None:
    (key,) = bench.replay(many[:1], delay_s=3.0)
    launcher = bench.slurm()
    job = alone(bench, launcher, key)
    handle = bench.calculation(key).handle()
    assert handle is not None and handle.attempt == 1 and handle.slot == f"{job}.0"
    if who == "node":
        cluster.fail_node()
    else:
        os.kill(handle.worker_pid if who == "job" else handle.pid, signal.SIGKILL)
    bench.finish(launcher, [key])
    assert bench.names(key) == ["start", "start", "end"]
    assert bench.calculation(key).handle().attempt == 2
    assert launcher.fetch(key).error is None


def test_a_calculation_that_never_ends_is_given_up(
    bench: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.prepare(stubs.StubEngine("killed"), many[:1])
    launcher = bench.slurm(attempts=2)
    launcher.submit([key])
    bench.finish(launcher, [key])
    output = launcher.fetch(key)
    assert output.error is not None and "after 2 attempts" in output.error
    assert judge(many[0].material.structure, output).verdict is Verdict.ENGINE_ERROR


def test_cancelled_in_the_queue_is_reported_and_not_submitted_again(
    bench: Any, cluster: Any, many: list[KnownMaterial]
) -> None:
    running, other = bench.replay(many[:2], delay_s=1.0)
    launcher = bench.slurm()
    job = alone(bench, launcher, running)
    cluster.ask(f"scancel {job}")
    bench.wait(lambda: launcher.poll([running])[running] is State.LOST, PATIENCE_S)
    assert "cancelled in the queue" in bench.calculation(running).cancelled_path.read_text()
    launcher.submit([other])
    bench.finish(launcher, [other])
    assert launcher.poll([running])[running] is State.LOST and bench.names(running) == ["start"]
    launcher.submit([running])
    bench.finish(launcher, [running])
    assert bench.names(running) == ["start", "start", "end"]


def test_cancelling_one_of_a_pack_leaves_the_others(
    bench: Any, cluster: Any, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many[:3], delay_s=3.0)
    launcher = bench.slurm(pack=3, at_once=3)
    launcher.submit(keys)
    bench.wait(lambda: launcher.poll(keys) and all(bench.names(k) for k in keys), PATIENCE_S)
    launcher.cancel(keys[:1])
    bench.wait(lambda: State.DONE in launcher.poll(keys).values(), PATIENCE_S)
    bench.finish(launcher, keys[1:])
    assert bench.calculation(keys[0]).result() is None and bench.names(keys[0]) == ["start"]
    assert launcher.poll(keys)[keys[0]] is State.LOST
    launcher.submit(keys)
    bench.wait(lambda: launcher.poll(keys) and bench.names(keys[0])[1:], PATIENCE_S)
    launcher.cancel(keys)
    bench.wait(lambda: not cluster.ask("squeue -h -t PD,R").strip(), PATIENCE_S)


def test_a_result_cut_short_is_calculated_again(
    cluster: Any, bench: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.replay(many[:1])
    launcher = bench.slurm()
    launcher.submit([key])
    bench.finish(launcher, [key])
    # A worker that does not find the result it has just written takes it for a failure.
    bench.wait(lambda: not cluster.ask("squeue -h -t PD,R,CG").strip(), PATIENCE_S)
    result = bench.calculation(key).result_path
    whole = result.read_text()
    result.write_text(whole[: len(whole) // 2])
    launcher = bench.slurm()
    launcher.submit([key])
    bench.finish(launcher, [key])
    assert bench.names(key) == ["start", "end"] * 2 and launcher.fetch(key).error is None


def test_slurm_that_does_not_answer_is_waited_for(
    bench: Any, cluster: Any, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many[:3], delay_s=0.5)
    launcher = bench.slurm(max_jobs=2)
    launcher.submit(keys)
    cluster.end("slurmctld", signal.SIGKILL)
    states = bench.slurm().poll(keys)
    assert State.LOST not in states.values()
    impatient = bench.slurm(patience_s=0.01)
    with pytest.raises(UserError, match=r"Slurm has not answered .* nothing is lost"):
        bench.wait(lambda: impatient.poll(keys) and False, PATIENCE_S)
    cluster.start("slurmctld")
    # What it had not saved it has forgotten; the node may need its administrator.
    cluster.wait(
        lambda: cluster.tend() or set(launcher.poll(keys).values()) == {State.DONE},
        PATIENCE_S,
    )
    assert all(bench.names(key) == ["start", "end"] for key in keys)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"partition": "nowhere"}, r"Invalid partition .*launcher\.partition \(now .*nowhere"),
        ({"partition": "closed"}, r"launcher\.partition"),
        ({"partition": "short", "time": 7200}, r"Partition.*launcher\.time.* \(now time: 7200"),
        ({"nodes": 7}, r"launcher\.nodes, launcher\.cores"),
        ({"memory_gb": 9000}, r"launcher\.nodes, launcher\.cores, launcher\.memory_gb \(now "),
        ({"options": ("--constraint=gold",)}, r"launcher\.options"),
        ({"python": "/no/such/python"}, r"before it could start .*No such file.*launcher\.python"),
        ({"pre_run": ("exit 3",)}, r"before it could start a calculation .*launcher\.pre_run"),
    ],
)
def test_what_slurm_refuses_is_one_sentence(
    bench: Any, many: list[KnownMaterial], settings: dict[str, Any], words: str
) -> None:
    (key,) = bench.replay(many[:1])
    launcher = bench.slurm(**settings)
    with pytest.raises(UserError, match=words) as caught:
        launcher.submit([key])
        bench.wait(lambda: launcher.poll([key]) and False, PATIENCE_S)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))
    assert bench.calculation(key).state() is State.PENDING and not bench.names(key)
    corrected = bench.slurm()
    corrected.submit([key])
    bench.finish(corrected, [key])
    assert bench.names(key) == ["start", "end"]


def test_a_job_that_its_node_turned_away_was_not_cancelled_by_anybody(
    bench: Any, many: list[KnownMaterial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller without memory does it to jobs at times: here a program answers as sacct then.

    What a person cancels is in test_slurm_accounts.
    """
    keys = bench.replay(many[:2])
    waited, turned_away = keys
    launcher = bench.slurm(settle_s=0)
    ended = {}
    for key, job, node in ((waited, "990001", "None assigned"), (turned_away, "990002", "vm")):
        one = launcher.allocations.create([[key]], 1, Plan([[key]], 1, 4, None))
        launcher.allocations.submitted(one, job)
        ended[job] = f"{job}|{one.name}|CANCELLED by 0|0:0|00:00:00|{node}\n"
    stand_in = tmp_path / "bin" / "sacct"
    stand_in.parent.mkdir()
    cases = "".join(f"*{job}*) printf '{line}' ;; " for job, line in ended.items())
    stand_in.write_text(f'#!/bin/sh\ncase "$*" in {cases}esac\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    bench.wait(lambda: set(launcher.poll(keys).values()) == {State.DONE, State.LOST}, PATIENCE_S)
    assert launcher.poll(keys)[waited] is State.LOST
    assert [bench.names(key) for key in keys] == [[], ["start", "end"]]


def test_a_machine_without_slurm(
    bench: Any, many: list[KnownMaterial], monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = bench.replay(many[:1])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"no Slurm on this machine .*--launcher local"):
        SlurmLauncher(bench.root, SlurmLauncherSettings(**QUICK)).submit([key])


def test_scratch_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        SlurmLauncher(tmp_path / "file" / "below", SlurmLauncherSettings(**QUICK))


@pytest.fixture
def small_scratch(tmp_path: Path) -> Any:
    """A file system of one megabyte, which only root can make."""
    place = tmp_path / "scratch"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can make a file system that is full")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_scratch(
    small_scratch: Path, bench: Any, cluster: Any, many: list[KnownMaterial]
) -> None:
    bench.root = small_scratch / "calculations"
    (key,) = bench.replay(many[:1], delay_s=0.5)
    launcher = bench.slurm()
    launcher.submit([key])
    bench.wait(lambda: bench.names(key), PATIENCE_S)
    ballast = small_scratch / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(b"0" * 512)
    bench.wait(lambda: not cluster.ask("squeue -h -t PD,R,CG"), PATIENCE_S)
    with pytest.raises(UserError, match="disk is full"):
        bench.wait(lambda: launcher.poll([key])[key] is State.DONE, PATIENCE_S)
    assert bench.calculation(key).result() is None
    ballast.unlink()
    again = bench.slurm()
    again.submit([key])
    bench.finish(again, [key])
    assert bench.names(key).count("start") == 2, "retried, because the first answer was lost"


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("24:00:00", 86400), ("1-00:00:00", 86400), ("00:30", 1800), (90, 90)],
)
def test_times_are_as_slurm_writes_them(given: Any, seconds: int) -> None:
    assert SlurmLauncherSettings(time=given).time == seconds


@pytest.mark.parametrize(
    "settings",
    [{"time": "soon"}, {"time": 0}, {"pack": 2, "at_once": 3}, {"account": "a b"},
     {"options": ("-N2",)}, {"modules": ("x; rm",)}],
)  # fmt: skip
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"time|at_once|word|--"):
        SlurmLauncherSettings(**settings)


def test_the_job_needs_no_more_than_its_files(bench: Any, many: list[KnownMaterial]) -> None:
    """What a compute node runs, without Slurm: the record is all that it reads."""
    (key,) = bench.replay(many[:1])
    allocations = Allocations(bench.root)
    allocation = allocations.create([[key]], 1, Plan([[key]], 1, 2, None))
    done = subprocess.run(
        [sys.executable, "-m", "dft.slurm_task", str(bench.root), allocation.name, "0"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bench.names(key) == ["start", "end"] and allocations.has_started(allocation.name, 0)
