"""The local launcher: order, limits, cancelling, and what it says when it cannot go on."""

from __future__ import annotations

import dataclasses
import datetime
import os
import time
from pathlib import Path
from typing import Any

import pytest

import dft.local
from dft.calculation import State
from dft.gate import Verdict, judge
from dft.launcher import make_launcher
from dft.local import LocalLauncher
from dft.settings import LocalLauncherSettings
from screening.errors import UserError
from screening.material import KnownMaterial


def most_at_once(bench: Any, keys: list[str]) -> int:
    """Largest number of calculations under way at one moment, as they logged it themselves."""
    events = sorted(event for key in keys for event in bench.events(key))
    running, most = 0, 0
    for _, name in events:
        running += 1 if name == "start" else -1
        most = max(most, running)
    return most


@pytest.mark.usefixtures("quick")
def test_as_many_run_at_once_as_there_are_slots(
    bench: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    """Three calculations that each wait for two others to be under way."""
    keys = bench.prepare(stubs.StubEngine("meet"), many[:3])
    outputs = bench.run(keys, max_parallel=3)
    assert all(output.error is None for output in outputs.values())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("slots", [1, 3])
def test_never_more_run_at_once_than_there_are_slots(
    bench: Any, many: list[KnownMaterial], slots: int
) -> None:
    keys = bench.replay(many[: 4 * slots], delay_s=0.1)
    bench.run(keys, max_parallel=slots)
    assert 1 <= most_at_once(bench, keys) <= slots
    assert all(bench.names(key) == ["start", "end"] for key in keys)


@pytest.mark.usefixtures("quick")
def test_launchers_over_one_root_share_slots_and_run_nothing_twice(
    bench: Any, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many[:12], delay_s=0.1)
    launchers = [bench.launcher(2) for _ in range(3)]
    for launcher, order in zip(launchers, (keys, keys[::-1], keys[5:] + keys[:5]), strict=True):
        launcher.submit(order)
    bench.wait(lambda: all(set(la.poll(keys).values()) == {State.DONE} for la in launchers))
    assert all(bench.names(key) == ["start", "end"] for key in keys)
    assert most_at_once(bench, keys) <= 2


def test_twenty_answers_take_seconds_and_few_processes(
    bench: Any, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many)
    outputs = bench.run(keys, max_parallel=2)
    assert len(outputs) == 20 and all(output.error is None for output in outputs.values())
    workers = {bench.calculation(key).handle().worker_pid for key in keys}
    assert len(workers) <= 3


@pytest.mark.usefixtures("quick")
def test_calculations_are_taken_up_in_the_order_given(
    bench: Any, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many[:6])[::-1]
    bench.run(keys, max_parallel=1)
    starts = [bench.events(key)[0][0] for key in keys]
    assert starts == sorted(starts)


@pytest.mark.usefixtures("quick")
def test_submitting_again_and_later_additions(bench: Any, many: list[KnownMaterial]) -> None:
    keys = bench.replay(many[:4], delay_s=0.1)
    launcher = bench.launcher()
    first = launcher.submit(keys[:2])
    assert launcher.submit(keys[:2]) == first
    launcher.submit(keys)
    bench.wait(lambda: set(launcher.poll(keys).values()) == {State.DONE})
    assert launcher.submit(keys).keys() == set(keys)
    assert all(bench.names(key) == ["start", "end"] for key in keys)


def test_polling_what_is_done_is_cheap(bench: Any, many: list[KnownMaterial]) -> None:
    keys = bench.replay(many[:5])
    bench.attend(keys)
    launcher = bench.launcher()
    launcher.poll(keys)
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: opened.append(str(self)))
        assert set(launcher.poll(keys).values()) == {State.DONE}
    assert opened == []


def test_a_calculation_that_is_not_prepared(bench: Any, many: list[KnownMaterial]) -> None:
    ready, missing = bench.replay(many[:2])
    (bench.root / missing / "flow.json").unlink()
    launcher = bench.launcher()
    with pytest.raises(UserError, match=f"{missing} has no flow.json"):
        launcher.submit([ready, missing])
    assert launcher.poll([missing, "f" * 32]) == dict.fromkeys([missing, "f" * 32], State.LOST)
    with pytest.raises(UserError, match=r"has no result .it is lost"):
        launcher.fetch(missing)
    bench.replay(many[:2])
    launcher.submit([ready, missing])
    bench.attend([missing])
    assert bench.names(missing) == ["start", "end"]


@pytest.mark.usefixtures("quick")
def test_time_limit(bench: Any, many: list[KnownMaterial]) -> None:
    keys = bench.replay(many[:2], delay_s=20.0)
    output = bench.run(keys, timeout_s=0.4)[keys[0]]
    assert output.timed_out and 0.4 <= output.wall_s < 10
    judgement = judge(many[0].material.structure, output)
    assert judgement.verdict is Verdict.TIMEOUT and f"{output.wall_s:.0f} s" in judgement.detail
    assert "time limit of 0.4 s" in (bench.root / keys[0] / "run.log").read_text()


@pytest.mark.usefixtures("quick")
def test_cancel_stops_and_submit_starts_again(bench: Any, many: list[KnownMaterial]) -> None:
    keys = bench.replay(many[:4], delay_s=0.6)
    launcher = bench.launcher(2)
    launcher.submit(keys)
    bench.wait(lambda: bench.names(keys[0]) and bench.names(keys[1]))
    launcher.cancel([keys[0], keys[3]])
    assert launcher.poll(keys)[keys[0]] is State.LOST
    bench.wait(lambda: [launcher.poll(keys)[k] for k in keys[1:3]] == [State.DONE] * 2)
    assert launcher.poll(keys)[keys[3]] is State.LOST
    assert bench.names(keys[0]) == ["start"] and bench.names(keys[3]) == []
    launcher.cancel(keys)
    assert launcher.fetch(keys[1]).error is None, "a result outlives a cancellation"
    launcher.submit(keys)
    bench.wait(lambda: set(launcher.poll(keys).values()) == {State.DONE})
    assert launcher.fetch(keys[0]).error is None
    # A cancelled attempt is not held against a calculation.
    assert bench.calculation(keys[0]).handle().attempt == 1
    assert bench.names(keys[0]) == ["start", "start", "end"] and bench.names(keys[3]) == [
        "start",
        "end",
    ]


@pytest.mark.usefixtures("quick")
def test_a_look_counts_the_cores_that_programs_keep_busy(
    bench: Any, stubs: Any, many: list[KnownMaterial]
) -> None:
    """However they were started; here three seconds of one core are made to look like one."""
    (key,) = bench.prepare(stubs.StubEngine("burn"), many[:1])
    calculation, launcher = bench.calculation(key), bench.launcher()
    launcher.submit([key])
    note = calculation.directory / "attempt-1" / "burned"
    bench.wait(lambda: launcher.poll([key]) and note.exists() and float(note.read_text()) > 3.0)
    now = datetime.datetime.now(datetime.UTC).isoformat()
    calculation.write_handle(dataclasses.replace(calculation.handle(), started_at=now))
    activity = launcher.look([key])[key]
    assert activity.cores > 1.5 and activity.core_hours < 0.01
    launcher.cancel([key])
    assert launcher.look([key])[key].cores == 1.0


@pytest.mark.usefixtures("quick")
def test_cancel_elsewhere_is_refused(bench: Any, many: list[KnownMaterial]) -> None:
    (key,) = bench.replay(many[:1], delay_s=0.6)
    launcher = bench.launcher()
    launcher.submit([key])
    bench.wait(lambda: bench.names(key))
    calculation = bench.calculation(key)
    calculation.write_handle(dataclasses.replace(calculation.handle(), host="elsewhere"))
    with pytest.raises(UserError, match="runs on elsewhere; cancel it there"):
        launcher.cancel([key])
    bench.wait(lambda: launcher.poll([key])[key] is State.DONE)


def test_a_closed_launcher_leaves_its_calculations_running(
    bench: Any, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many[:3], delay_s=0.3)
    launcher = make_launcher(LocalLauncherSettings(max_parallel=1), bench.root)
    launcher.submit(keys)
    launcher.close()
    bench.wait(lambda: all(bench.calculation(key).result() for key in keys))
    assert all(bench.names(key) == ["start", "end"] for key in keys)


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(UserError, match=r"Cannot write .*file"):
        LocalLauncher(blocked, LocalLauncherSettings())
    with pytest.raises(UserError, match=r"Cannot write .*file/below"):
        LocalLauncher(blocked / "below", LocalLauncherSettings())


def test_an_unwritable_directory_is_a_users_error(bench: Any, many: list[KnownMaterial]) -> None:
    bench.root.parent.mkdir(exist_ok=True)
    bench.root.write_text("in the way")
    try:
        with pytest.raises(UserError, match="Cannot write"):
            bench.replay(many[:1])
    finally:
        bench.root.unlink()
        bench.root.mkdir()


def test_a_worker_that_cannot_start_says_why(
    bench: Any, many: list[KnownMaterial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "jobflow.py").write_text("raise ImportError('no jobflow today')\n")
    keys = bench.replay(many[:1])
    real = dft.local.import_path()
    monkeypatch.setattr(dft.local, "import_path", lambda: f"{broken}{os.pathsep}{real}")
    launcher = bench.launcher(1)
    launcher.submit(keys)
    with pytest.raises(UserError, match=r"status 1 .ImportError: no jobflow today.; see .*0\.log"):
        bench.wait(lambda: launcher.poll(keys)[keys[0]] is State.DONE)
    assert bench.names(keys[0]) == []
    monkeypatch.undo()
    assert bench.run(keys)[keys[0]].error is None


def test_workers_do_not_look_into_the_users_directory(
    bench: Any, many: list[KnownMaterial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "jobflow.py").write_text("raise ImportError('wrong file')\n")
    monkeypatch.chdir(tmp_path)
    keys = bench.replay(many[:1])
    assert bench.run(keys)[keys[0]].error is None


@pytest.mark.usefixtures("quick")
def test_poll_takes_no_lock_from_a_worker(bench: Any, many: list[KnownMaterial]) -> None:
    """Polling as fast as possible must not keep workers from their slots and calculations."""
    keys = bench.replay(many[:10])
    launcher = bench.launcher(2)
    launcher.submit(keys)
    give_up = time.monotonic() + 30
    while set(launcher.poll(keys).values()) != {State.DONE}:
        assert time.monotonic() < give_up
    assert all(bench.names(key) == ["start", "end"] for key in keys)
