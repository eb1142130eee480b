"""The directory of a calculation."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dft import attempts
from dft.activity import of_directory
from dft.calculation import Calculation, Handle, State, calculation_key
from dft.engine import CalculationOutput
from dft.execution import failed
from dft.locks import is_locked, try_lock
from dft.replay import ReplayEngine
from dft.settings import ReplaySettings
from dft.worker import attend
from screening.material import KnownMaterial

OUTPUT = CalculationOutput(
    electronic=np.eye(3) * 3, converged=True, functional="PBE", engine="e", engine_version="1"
)


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()}


def test_a_person_can_read_it(bench: Any, crystals: dict[str, KnownMaterial]) -> None:
    from pymatgen.core import Structure

    known = crystals["monoclinic"]
    (key,) = bench.replay([known])
    directory = bench.root / key
    assert {p.name for p in directory.iterdir()} == {"POSCAR", "calculation.json", "flow.json"}
    assert (directory / "POSCAR").read_text().startswith("ZrO2 ZrO2\n")
    read = Structure.from_file(directory / "POSCAR")
    np.testing.assert_allclose(read.cart_coords, known.material.structure.cart_coords, atol=1e-12)
    assert read.species == known.material.structure.species
    description = json.loads((directory / "calculation.json").read_text())
    assert description["key"] == key and description["formula"] == "ZrO2"
    assert description["engine"] == "replay" and description["settings"]["failures"] == {}


def test_the_flow_is_a_jobflow_flow(bench: Any, crystals: dict[str, KnownMaterial]) -> None:
    from jobflow import Flow
    from monty.json import MontyDecoder

    (key,) = bench.replay([crystals["cubic"]])
    text = (bench.root / key / "flow.json").read_text()
    flow = json.loads(text, cls=MontyDecoder)
    assert isinstance(flow, Flow) and len(flow.jobs) == 1
    assert flow.jobs[0].metadata == {"material_id": "MgO"}


def test_preparing_again_changes_nothing(bench: Any, many: list[KnownMaterial]) -> None:
    (key,) = bench.replay(many[:1])
    before = contents(bench.root / key)
    assert bench.replay(many[:1]) == [key]
    assert contents(bench.root / key) == before


@pytest.mark.parametrize("name", ["POSCAR", "calculation.json", "flow.json"])
@pytest.mark.parametrize("damage", [None, b'{"half": ', b"\xff\xfe", "cut", "a line short"])
def test_preparing_again_repairs(
    bench: Any, many: list[KnownMaterial], name: str, damage: bytes | str | None
) -> None:
    (key,) = bench.replay(many[:1])
    path = bench.root / key / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(whole[:-45])
    elif damage == "a line short":
        path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    bench.replay(many[:1])
    if name == "flow.json":  # its jobs are given new random names each time
        assert len(path.read_bytes()) == len(whole)
        assert json.loads(path.read_bytes()).keys() == json.loads(whole).keys()
    else:
        assert path.read_bytes() == whole


def test_a_directory_of_another_calculation_is_refused(
    tmp_path: Path, many: list[KnownMaterial]
) -> None:
    engine = ReplayEngine(many, ReplaySettings())
    with pytest.raises(ValueError, match="not the directory"):
        Calculation(tmp_path / "0123").prepare(engine, many[0].material)


@pytest.mark.parametrize(
    "garbage", [b"", b'{"electronic": [[3.', b"\xff\x00", b"[]", b"{}", b'"done"']
)
def test_a_broken_result_is_moved_aside_and_calculated_again(
    bench: Any, many: list[KnownMaterial], garbage: bytes
) -> None:
    (key,) = bench.replay(many[:1])
    calculation = bench.calculation(key)
    calculation.result_path.write_bytes(garbage)
    assert calculation.state() is State.PENDING
    assert calculation.result() is None
    assert (bench.root / key / "result.json.broken").read_bytes() == garbage
    calculation.result_path.write_bytes(garbage)
    attend(calculation, "0", None)
    assert calculation.state() is State.DONE
    assert bench.names(key) == ["start", "end"]


def test_a_broken_result_under_way_is_left_to_its_writer(tmp_path: Path) -> None:
    calculation = Calculation(tmp_path)
    calculation.result_path.write_text("{")
    with try_lock(calculation.lock_path) as held:
        assert held
        assert calculation.result() is None
        assert calculation.result_path.exists()
        assert calculation.state() is State.RUNNING


def test_states(tmp_path: Path) -> None:
    calculation = Calculation(tmp_path / "k")
    assert calculation.state() is State.LOST and calculation.handle() is None
    calculation.directory.mkdir()
    assert calculation.state() is State.LOST
    calculation.flow_path.write_text("{}")
    assert calculation.state() is State.PENDING
    calculation.cancelled_path.touch()
    assert calculation.state() is State.LOST
    calculation.cancelled_path.unlink()
    with try_lock(calculation.lock_path):
        assert calculation.state() is State.RUNNING
    calculation.write_result(OUTPUT)
    assert calculation.state() is State.DONE
    result = calculation.result()
    assert result is not None and result.to_dict() == OUTPUT.to_dict()


def test_executions_that_were_ended_cost_what_they_took(
    bench: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.replay(many[:1])
    calculation = bench.calculation(key)
    step = calculation.directory / "attempt-1" / "2-ground-state"
    step.mkdir(parents=True)
    (step / "log").touch()
    written = (step / "log").stat().st_mtime
    for before_s in (100.0, 30.0):
        begun = datetime.datetime.fromtimestamp(written - before_s, datetime.UTC).isoformat()
        calculation.write_handle(Handle("here", 1, 1, "0", 1, begun))
        calculation.close_execution()
        calculation.cancelled_path.touch()
        calculation.allow()
    assert calculation.spent_s() == pytest.approx(130.0, abs=0.01)
    assert of_directory(calculation, State.PENDING).core_hours == pytest.approx(130 / 3600)
    assert calculation.conclude(dataclasses.replace(OUTPUT, cpu_s=5.0))
    output = calculation.result()
    assert output is not None and output.cpu_s == pytest.approx(130.0, abs=0.01)


def test_a_failure_keeps_the_attempts_that_were_made(tmp_path: Path) -> None:
    """One came to its end, another had finished one step when it was stopped."""
    first, second = (tmp_path / f"attempt-{number}" for number in (1, 2))
    ended = {"number": 1, "why": "w", "settings": {}, "failure": "f", "cpu_s": 7.0, "wall_s": 8.0}
    attempts.begin(first, 1, "w", {})
    attempts.end(first, ended)
    attempts.begin(second, 2, "finer mesh", {"ecut": 25})
    step = {"converged": True, "cpu_s": 2.004, "wall_s": 3.0, "restarts": 0}
    (second / "2-ground-state").mkdir()
    (second / "2-ground-state" / "done").write_text(json.dumps(step))
    (second / "5-response").mkdir()
    output = failed(Calculation(tmp_path), None)
    assert output.timed_out and output.cost == {"cpu_s": 9.0}
    assert output.attempts[0] == ended
    unfinished = {"number": 2, "why": "finer mesh", "settings": {"ecut": 25}, "cpu_s": 2.0}
    assert unfinished.items() <= output.attempts[1].items()
    assert output.attempts[1]["failure"] == attempts.UNFINISHED
    assert output.attempts[1]["steps"] == {"2-ground-state": 2.0}
    assert failed(Calculation(tmp_path / "none"), "x").attempts == []


def test_what_says_nothing_about_the_crystal_is_asked_again(
    bench: Any, many: list[KnownMaterial]
) -> None:
    """With a longer time limit; what the first execution took still counts."""
    (key,) = bench.replay(many[:1], delay_s=1.0)
    calculation = bench.calculation(key)
    first = bench.attend([key], timeout_s=0.3)[key]
    assert first.timed_out and not first.conclusive
    engine = ReplayEngine(many[:1], ReplaySettings(delay_s=1.0))
    calculation.prepare(engine, many[0].material, keep=True)
    assert calculation.state() is State.DONE, "a campaign keeps what it has waited for"
    bench.replay(many[:1], delay_s=1.0)
    assert calculation.state() is State.PENDING and calculation.handle() is None
    assert (calculation.directory / "result.json.earlier").exists()
    assert calculation.spent_s() == pytest.approx(first.cpu_s)
    second = bench.attend([key])[key]
    assert second.error is None and second.conclusive and second.cpu_s > first.cpu_s
    bench.replay(many[:1], delay_s=1.0)
    assert calculation.state() is State.DONE


@pytest.mark.parametrize("external", [True, False])
def test_failures_from_outside_do_not_stand(
    bench: Any, many: list[KnownMaterial], external: bool
) -> None:
    (key,) = bench.replay(many[:1])
    calculation = bench.calculation(key)
    assert calculation.conclude(failed(calculation, "no program", external=external))
    bench.replay(many[:1])
    assert calculation.state() is (State.PENDING if external else State.DONE)


def test_a_question_has_a_key_for_each_time_it_is_asked(
    tmp_path: Path, many: list[KnownMaterial]
) -> None:
    engine, material = ReplayEngine(many, ReplaySettings()), many[0].material
    again = calculation_key(material.structure_hash, engine.settings_hash, 2)
    assert again != calculation_key(material.structure_hash, engine.settings_hash)
    Calculation(tmp_path / again).prepare(engine, material)
    assert (Calculation(tmp_path / again).description() or {})["key"] == again


def test_another_way_of_starting_programs_takes_effect_while_nothing_runs(
    bench: Any, many: list[KnownMaterial]
) -> None:
    (key,) = bench.replay(many[:1], delay_s=5.0)
    flow = bench.root / key / "flow.json"
    before = flow.read_text()
    with try_lock(bench.calculation(key).lock_path):
        bench.replay(many[:1], delay_s=0.0)
        assert flow.read_text() == before, "it may be being read"
    bench.replay(many[:1], delay_s=0.0)
    assert json.loads(flow.read_text())["uuid"] == json.loads(before)["uuid"]
    assert flow.read_text() == before.replace('"delay_s": 5.0', '"delay_s": 0.0') != before


def test_a_lock_is_held_once_and_survives_in_children(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path) and not path.exists()
    with try_lock(path) as first, try_lock(path) as second:
        assert first and not second and is_locked(path)
    assert not is_locked(path)
    reader, writer = os.pipe()
    if (parent := os.fork()) == 0:
        with try_lock(path):
            if os.fork() == 0:
                os.read(reader, 1)
            os._exit(0)
    os.waitpid(parent, 0)
    assert is_locked(path), "the grandchild holds what its parent held"
    os.write(writer, b"x")
    for _ in range(500):
        if not is_locked(path):
            break
        time.sleep(0.01)
    assert not is_locked(path)
