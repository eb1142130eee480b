"""Processes die, disks fill up: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dft
import screening.io
from dft import worker
from dft.calculation import State
from dft.gate import Verdict, judge
from dft.processes import session_members
from dft.replay import ReplayEngine
from dft.settings import ReplaySettings
from dft.worker import MAX_RETRIES, StorageError, attend
from screening.errors import UserError
from screening.material import KnownMaterial


def forked(action: Callable[[], object]) -> int:
    """Run ``action`` in another process, as a parent that is killed later."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def start_worker(bench: Any, keys: list[str], slot: str = "0") -> int:
    """A worker without the second that a fresh Python needs for its imports."""
    return forked(lambda: worker.main([str(bench.root), slot, "none", *keys]))


@pytest.mark.parametrize("seed", [1, 2])
def test_killing_the_parent_loses_nothing_and_repeats_nothing(
    bench: Any, many: list[KnownMaterial], seed: int
) -> None:
    """kill -9 at random moments of preparing, submitting and polling, again and again."""
    rng = random.Random(seed)
    known = many[:8]

    def campaign() -> None:
        keys = bench.prepare(ReplayEngine(known, ReplaySettings(delay_s=0.2)), known)
        bench.run(keys)

    for _ in range(8):
        parent = forked(campaign)
        time.sleep(rng.choice([0.01, 0.05, 0.3, 1.0]) * rng.random())
        kill(parent)
        os.waitpid(parent, 0)
    keys = bench.replay(known, delay_s=0.2)
    outputs = bench.run(keys)
    assert all(output.error is None for output in outputs.values())
    assert [bench.names(key) for key in keys] == [["start", "end"]] * len(keys)


def test_killing_a_fresh_python_and_starting_it_again(
    bench: Any, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many[:6], delay_s=0.4)
    code = (
        "import sys, time; from pathlib import Path; from dft import *\n"
        "launcher = make_launcher(LocalLauncherSettings(), Path(sys.argv[1])); keys=sys.argv[2:]\n"
        "launcher.submit(keys)\n"
        "while set(launcher.poll(keys).values()) != {State.DONE}: time.sleep(0.02)\n"
    )
    command = [sys.executable, "-c", code, str(bench.root), *keys]
    home = Path(dft.__file__).parent.parent
    with subprocess.Popen(command, cwd=home) as parent:
        bench.wait(lambda: bench.names(keys[2]))
        parent.kill()
    subprocess.run(command, cwd=home, check=True, timeout=60)
    assert [bench.names(key) for key in keys] == [["start", "end"]] * len(keys)


@pytest.mark.usefixtures("quick")
def test_a_calculation_outlives_its_worker(bench: Any, many: list[KnownMaterial]) -> None:
    """The slot stays taken meanwhile, so that never more than one runs."""
    keys = bench.replay(many[:3], delay_s=0.5)
    launcher = bench.launcher(1)
    launcher.submit(keys)
    bench.wait(lambda: bench.names(keys[0]))
    kill(bench.calculation(keys[0]).handle().worker_pid)
    assert launcher.poll(keys)[keys[0]] is State.RUNNING
    bench.wait(lambda: set(launcher.poll(keys).values()) == {State.DONE})
    events = sorted(event for key in keys for event in bench.events(key))
    assert [name for _, name in events] == ["start", "end"] * 3


@pytest.mark.usefixtures("quick")
def test_a_calculation_that_keeps_dying_with_its_worker_is_given_up(
    bench: Any, many: list[KnownMaterial]
) -> None:
    lethal, harmless = keys = bench.replay(many[:2], delay_s=0.5)
    for attempt in range(1, MAX_RETRIES + 2):
        pid = start_worker(bench, keys)
        bench.wait(lambda n=attempt: bench.names(lethal) == ["start"] * n)
        handle = bench.calculation(lethal).handle()
        assert handle.attempt == attempt and handle.worker_pid == pid
        kill(handle.worker_pid)
        kill(handle.pid)
        os.waitpid(pid, 0)
        bench.wait(lambda: bench.calculation(lethal).state() is State.PENDING)
    output = bench.run(keys, max_parallel=1)[lethal]
    assert output.error == f"worker died {MAX_RETRIES + 1} times" and output.engine == "replay"
    judgement = judge(many[0].material.structure, output)
    assert judgement.verdict is Verdict.ENGINE_ERROR and "died 3 times" in judgement.detail
    assert bench.names(lethal) == ["start"] * (MAX_RETRIES + 1)
    assert bench.names(harmless) == ["start", "end"]


def test_a_request_to_end_is_not_a_result(bench: Any, many: list[KnownMaterial]) -> None:
    """A machine that goes down sends SIGTERM first; the calculation is done after its return."""
    (key,) = bench.replay(many[:1], delay_s=0.5)
    calculation = bench.calculation(key)
    pid = start_worker(bench, [key])
    bench.wait(lambda: bench.names(key))
    os.kill(calculation.handle().pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    assert calculation.state() is State.PENDING
    assert bench.attend([key])[key].error is None
    assert bench.names(key) == ["start", "start", "end"]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("exit", "status 3"),
        ("crash", "signal 11"),
        ("killed", "signal 9"),
        ("leave", "SystemExit: bye"),
        ("garbage", "not the record of a calculation"),
    ],
)
def test_a_crash_becomes_a_result(
    bench: Any, stubs: Any, many: list[KnownMaterial], behaviour: str, words: str
) -> None:
    (key,) = bench.prepare(stubs.StubEngine(behaviour), many[:1])
    output = bench.attend([key])[key]
    assert output.error is not None and words in output.error
    assert output.engine == "stub" and output.wall_s > 0
    judgement = judge(many[0].material.structure, output)
    assert judgement.verdict is Verdict.ENGINE_ERROR and words in judgement.detail
    assert f"hello from {behaviour}" in (bench.root / key / "run.log").read_text()


def test_a_flow_that_cannot_be_read_is_an_engine_error(
    bench: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.prepare(stubs.StubEngine("orphan"), many[:1])
    flow = bench.root / key / "flow.json"
    flow.write_text(flow.read_text().replace('"stub_engine"', '"no_such_module"'))
    assert "no_such_module" in bench.attend([key])[key].error


def test_a_calculation_deaf_to_its_time_limit_is_ended(
    bench: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.prepare(stubs.StubEngine("deaf"), many[:1])
    output = bench.attend([key], timeout_s=0.2)[key]
    assert output.timed_out and output.error is None
    assert judge(many[0].material.structure, output).verdict is Verdict.TIMEOUT


def burned_s(bench: Any, key: str) -> float:
    """CPU seconds that the program of a burning calculation says it has used."""
    note = bench.root / key / "attempt-1" / "burned"
    return float(note.read_text()) if note.exists() else 0.0


def test_what_programs_used_until_the_time_limit_counts(
    bench: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.prepare(stubs.StubEngine("burn"), many[:1])
    output = bench.attend([key], timeout_s=3.0)[key]
    assert output.timed_out and 0 < burned_s(bench, key) <= output.cpu_s


def test_what_a_killed_execution_took_counts(
    bench: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    """By the clock, until its last sign of life."""
    (key,) = bench.prepare(stubs.StubEngine("burn"), many[:1])
    calculation = bench.calculation(key)
    pid = start_worker(bench, [key])
    bench.wait(lambda: burned_s(bench, key) > 2.0)
    handle = calculation.handle()
    kill(handle.worker_pid)
    kill(handle.pid)
    os.waitpid(pid, 0)
    assert bench.attend([key], timeout_s=0.5)[key].cpu_s > 2.0


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize(("behaviour", "timeout_s"), [("program", 1.5), ("orphan", None)])
def test_programs_do_not_outlive_their_calculation(
    bench: Any, stubs: Any, many: list[KnownMaterial], behaviour: str, timeout_s: float | None
) -> None:
    (key,) = bench.prepare(stubs.StubEngine(behaviour), many[:1])
    bench.attend([key], timeout_s)
    program = int((bench.root / key / "program.pid").read_text())
    bench.wait(lambda: not alive(program))


@pytest.mark.usefixtures("quick")
def test_a_program_left_by_a_dead_attempt_is_ended_before_the_next(
    bench: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.prepare(stubs.StubEngine("program"), many[:1])
    pid = start_worker(bench, [key])
    note = bench.root / key / "program.pid"
    bench.wait(lambda: note.exists() and note.read_text())
    first = int(note.read_text())
    handle = bench.calculation(key).handle()
    kill(handle.worker_pid)
    kill(handle.pid)
    os.waitpid(pid, 0)
    assert first in session_members(handle.pid, inside=bench.root / key)
    assert session_members(handle.pid, inside=bench.root / "elsewhere") == []
    launcher = bench.launcher()
    launcher.submit([key])
    bench.wait(lambda: launcher.poll([key]) and int(note.read_text() or first) != first)
    assert not alive(first)
    launcher.cancel([key])
    assert not alive(int(note.read_text()))


@pytest.mark.usefixtures("quick")
def test_a_full_disk_leaves_the_calculation_pending(
    bench: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    """The disk fills up while an engine works: as often as it happens, it is no result."""
    (key,) = bench.prepare(stubs.StubEngine("full"), many[:1])
    for _ in range(MAX_RETRIES + 1):
        with pytest.raises(StorageError):
            attend(bench.calculation(key), "0", None)
    launcher = bench.launcher()
    launcher.submit([key])
    with pytest.raises(UserError, match="disk is full"):
        bench.wait(lambda: launcher.poll([key])[key] is State.DONE)
    assert bench.calculation(key).state() is State.PENDING
    assert "stays pending" in (bench.root / ".slots" / "0.log").read_text()


def test_no_space_for_the_result(
    bench: Any, many: list[KnownMaterial], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    (key,) = bench.replay(many[:1])
    calculation = bench.calculation(key)
    write = screening.io.Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if ".result.json" in self.name:
            write(self, data[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError) as caught:
        attend(calculation, "0", None)
    assert caught.value.args == (errno.ENOSPC,)
    assert f"{key} stays pending" in capfd.readouterr().err
    assert calculation.state() is State.PENDING and calculation.handle() is None
    assert not list(calculation.directory.glob(".result.json*")), "nothing is left behind"
    assert worker.main([str(bench.root), "0", "none", key]) == errno.ENOSPC
    assert "No space left on device; nothing is lost" in capfd.readouterr().err
    monkeypatch.undo()
    assert worker.main([str(bench.root), "0", "none", key]) == 0
    assert calculation.state() is State.DONE


def test_a_worker_that_may_write_only_small_files(
    bench: Any, crystals: dict[str, KnownMaterial]
) -> None:
    """A real refusal by the kernel, in the middle of writing a real result."""
    (key,) = bench.replay([crystals["monoclinic"]])
    small = 800
    done = subprocess.run(
        [sys.executable, "-m", "dft.worker", str(bench.root), "0", "none", key],
        cwd=Path(dft.__file__).parent.parent,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (small, small)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == errno.EFBIG, done.stderr
    assert f"{key} stays pending" in done.stderr and "File too large" in done.stderr
    assert bench.calculation(key).state() is State.PENDING
    assert bench.attend([key])[key].error is None


def test_a_worker_leaves_a_taken_slot_and_a_taken_calculation_alone(
    bench: Any, many: list[KnownMaterial]
) -> None:
    from dft.locks import try_lock

    (key,) = bench.replay(many[:1])
    slots = bench.root / worker.SLOTS
    slots.mkdir()
    with try_lock(slots / "0"):
        assert worker.main([str(bench.root), "0", "none", key]) == 0
    with try_lock(bench.calculation(key).lock_path):
        assert worker.main([str(bench.root), "0", "none", key]) == 0
    assert bench.names(key) == []
    assert worker.main([str(bench.root), "0", "none", key]) == 0
    assert bench.names(key) == ["start", "end"]


def test_what_a_killed_writer_left_is_removed(bench: Any, many: list[KnownMaterial]) -> None:
    (key,) = bench.replay(many[:1])
    stale = bench.root / key / ".result.json.abc123"
    stale.write_text("{")
    bench.attend([key])
    assert not stale.exists()
