"""The replay engine, through real workers and the gate."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from dft.engine import CalculationOutput
from dft.gate import Verdict, judge
from dft.replay import ReplayEngine
from dft.replay_job import spoil
from dft.settings import ReplaySettings
from screening.material import KnownMaterial, Material
from screening.tensors import DielectricTensors

FAILURES = [verdict for verdict in Verdict if verdict is not Verdict.ACCEPTED]


@pytest.mark.usefixtures("quick")
def test_every_failure_earns_the_verdict_of_its_name(bench: Any, many: list[KnownMaterial]) -> None:
    known = many[: len(FAILURES) + 1]
    failures = {k.material.material_id: mode for k, mode in zip(known, FAILURES, strict=False)}
    keys = bench.replay(known, failures=failures)
    outputs = bench.run(keys, timeout_s=0.8)
    for record, key, expected in zip(known, keys, [*FAILURES, Verdict.ACCEPTED], strict=True):
        judgement = judge(record.material.structure, outputs[key])
        assert judgement.verdict is expected, judgement.detail
        assert judgement.detail.endswith(".") and len(judgement.detail.split()) >= 5
        assert (judgement.tensors is None) == (expected is not Verdict.ACCEPTED)
        assert bench.names(key) == ["start", "end"]


@pytest.mark.parametrize("system", ["cubic", "trigonal", "monoclinic", "triclinic"])
@pytest.mark.parametrize("failure", [f for f in FAILURES if f is not Verdict.ENGINE_ERROR])
def test_failures_do_not_depend_on_the_crystal_or_on_what_else_is_wrong(
    crystals: dict[str, KnownMaterial], system: str, failure: Verdict
) -> None:
    known = crystals[system]
    n_sites = known.material.n_sites
    good = CalculationOutput(
        electronic=known.tensors.electronic,
        ionic=known.tensors.ionic,
        converged=True,
        functional="PBE",
        engine="replay",
        engine_version="1",
    )
    bad = dataclasses.replace(good, ionic=None, min_optical_thz=-3.0, band_gap=0.0)
    for facts in (good, bad):
        raw = spoil(facts, failure, n_sites).to_dict()
        judgement = judge(known.material.structure, CalculationOutput.from_dict(raw))
        assert judgement.verdict is failure, judgement.detail


def test_a_timeout_without_a_limit_reports_itself(bench: Any, many: list[KnownMaterial]) -> None:
    failures = {many[0].material.material_id: Verdict.TIMEOUT}
    keys = bench.replay(many[:1], failures=failures, stall_s=0.3)
    outputs = bench.attend(keys)
    assert judge(many[0].material.structure, outputs[keys[0]]).verdict is Verdict.TIMEOUT


def test_answers_come_back_as_they_are_in_the_table(
    bench: Any, crystals: dict[str, KnownMaterial]
) -> None:
    known = list(crystals.values())
    outputs = bench.attend(bench.replay(known))
    for record, output in zip(known, outputs.values(), strict=True):
        np.testing.assert_array_equal(output.electronic, record.tensors.electronic)
        np.testing.assert_array_equal(output.ionic, record.tensors.ionic)
        np.testing.assert_array_equal(output.born_charges, record.extras["born_charges"])
        assert output.min_optical_thz == record.extras["min_optical_thz"]
        assert output.functional == "PBE" and output.engine == "replay"
        assert output.band_gap == record.material.band_gap
        assert output.cpu_s > 0 and output.wall_s > 0
        assert judge(record.material.structure, output).accepted


def test_an_unknown_material_is_an_engine_error_that_was_run(
    bench: Any, many: list[KnownMaterial]
) -> None:
    engine = ReplayEngine(many[1:], ReplaySettings())
    (key,) = bench.prepare(engine, many[:1])
    output = bench.attend([key])[key]
    assert output.error == "MgO-0 (MgO) is not in the table of known results"
    assert engine.elements == {e for record in many for e in record.material.elements}
    assert judge(many[0].material.structure, output).verdict is Verdict.ENGINE_ERROR
    assert bench.names(key) == ["start", "end"]


def test_the_answer_is_found_by_structure_and_not_by_id(
    bench: Any, many: list[KnownMaterial]
) -> None:
    other = Material("another-id", many[3].material.structure, formula="Mg1 O1")
    engine = ReplayEngine(many, ReplaySettings())
    (key,) = bench.prepare(engine, [dataclasses.replace(many[3], material=other)])
    assert bench.attend([key])[key].error is None


def test_settings_hold_what_changes_the_answer_and_nothing_else(
    many: list[KnownMaterial],
) -> None:
    def hash_of(answers: list[KnownMaterial] = many, **settings: Any) -> str:
        return ReplayEngine(answers, ReplaySettings(**settings)).settings_hash

    assert hash_of() == hash_of(delay_s=3.0, stall_s=9.0) == hash_of(many[::-1])
    other = dataclasses.replace(many[0], tensors=DielectricTensors(np.eye(3) * 4, np.eye(3)))
    different = [
        hash_of(),
        hash_of(failures={"MgO-0": "timeout"}),
        hash_of(failures={"MgO-0": "metallic"}),
        hash_of(many[1:]),
        hash_of([other, *many[1:]]),
        hash_of([dataclasses.replace(many[0], functional="PBEsol"), *many[1:]]),
    ]
    assert len(set(different)) == len(different)
    settings = ReplayEngine(many, ReplaySettings(failures={"MgO-0": "timeout"})).settings()
    assert json.loads(json.dumps(settings)) == settings
