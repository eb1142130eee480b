from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dft.engine import CalculationOutput
from dft.gate import Verdict, judge, second_look
from dft.settings import GateThresholds
from screening.material import KnownMaterial
from screening.symmetry import point_group_rotations

SYSTEMS = ("cubic", "trigonal", "monoclinic", "triclinic")


def output(known: KnownMaterial, **facts: Any) -> CalculationOutput:
    good = CalculationOutput(
        electronic=known.tensors.electronic,
        ionic=known.tensors.ionic,
        born_charges=np.array(known.extras["born_charges"]),
        min_optical_thz=known.extras["min_optical_thz"],
        band_gap=known.material.band_gap,
        converged=True,
        functional="PBE",
        engine="test",
        engine_version="0",
    )
    return dataclasses.replace(good, **facts)


def turned(
    structure: Any, facts: CalculationOutput, rotation: np.ndarray
) -> tuple[Any, CalculationOutput]:
    """The same calculation in a frame turned by ``rotation``."""
    from pymatgen.core import Lattice, Structure

    lattice = Lattice(structure.lattice.matrix @ rotation.T)
    copy = Structure(lattice, structure.species, structure.frac_coords)
    parts = {
        name: rotation @ getattr(facts, name) @ rotation.T
        for name in ("electronic", "ionic", "born_charges")
        if getattr(facts, name) is not None
    }
    return copy, dataclasses.replace(facts, **parts)


def random_rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_good_tensors_are_accepted_and_made_exact(
    crystals: dict[str, KnownMaterial], system: str, noise: float
) -> None:
    known = crystals[system]
    facts = output(known)
    assert facts.electronic is not None and facts.ionic is not None
    shake = np.random.default_rng(0).uniform(-noise, noise, (2, 3, 3))
    shaken = dataclasses.replace(
        facts,
        electronic=facts.electronic * (1 + shake[0]) + shake[0],
        ionic=facts.ionic * (1 + shake[1]) + shake[1],
    )
    judgement = judge(known.material.structure, shaken)
    assert judgement.verdict is Verdict.ACCEPTED and judgement.accepted, judgement.detail
    assert judgement.tensors is not None
    rotations = point_group_rotations(known.material.structure)
    for tensor, given_ in (
        (judgement.tensors.electronic, facts.electronic),
        (judgement.tensors.ionic, facts.ionic),
    ):
        assert tensor is not None
        np.testing.assert_array_equal(tensor, tensor.T)
        images = rotations @ tensor @ np.swapaxes(rotations, 1, 2)
        assert np.abs(images - tensor).max() < 1e-13 * np.abs(tensor).max()
        np.testing.assert_allclose(tensor, given_, atol=20 * noise + 1e-3)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    system=st.sampled_from(SYSTEMS),
    seed=st.integers(0, 2**32 - 1),
    bend=st.floats(0.0, 0.2),
    shift=st.floats(-3.0, 1.0),
)
def test_the_verdict_does_not_depend_on_the_frame(
    crystals: dict[str, KnownMaterial], system: str, seed: int, bend: float, shift: float
) -> None:
    """Good, bent and shrunk tensors alike; accepted ones turn with the frame."""
    known = crystals[system]
    rng = np.random.default_rng(seed)
    facts = output(known)
    assert facts.electronic is not None
    wrong = facts.electronic + bend * rng.normal(size=(3, 3)) + shift * np.eye(3)
    facts = dataclasses.replace(facts, electronic=wrong)
    rotation = random_rotation(seed)
    structure = known.material.structure
    here = judge(structure, facts)
    there = judge(*turned(structure, facts, rotation))
    assert here.verdict is there.verdict
    if here.tensors is not None and there.tensors is not None:
        assert here.tensors.electronic is not None and there.tensors.electronic is not None
        expected = rotation @ here.tensors.electronic @ rotation.T
        np.testing.assert_allclose(there.tensors.electronic, expected, atol=1e-6)


def test_a_tensor_in_another_frame_than_its_structure_is_refused(
    crystals: dict[str, KnownMaterial],
) -> None:
    known = crystals["monoclinic"]
    facts = output(known)
    _, elsewhere = turned(known.material.structure, facts, random_rotation(3))
    judgement = judge(known.material.structure, elsewhere)
    assert judgement.verdict is Verdict.NOT_SYMMETRIC
    assert "point group" in judgement.detail and judgement.tensors is None


DIAGONAL = np.diag([1.0, 2.0, 3.0])
CASES: list[tuple[dict[str, Any], Verdict, str]] = [
    ({"error": "SIGSEGV in a library.", "converged": False}, Verdict.ENGINE_ERROR, "SIGSEGV"),
    ({"timed_out": True, "wall_s": 61.0, "error": "killed"}, Verdict.TIMEOUT, "61 s"),
    ({"converged": False}, Verdict.UNCONVERGED, "self-consistent"),
    ({"electronic": None}, Verdict.INCOMPLETE, "no electronic"),
    ({"electronic": np.eye(2)}, Verdict.NOT_FINITE, "(2, 2)"),
    ({"electronic": np.full((3, 3), np.inf)}, Verdict.NOT_FINITE, "9 of 9"),
    ({"ionic": np.full((3, 3), np.nan)}, Verdict.NOT_FINITE, "ionic"),
    ({"born_charges": np.zeros((5, 3, 3))}, Verdict.ENGINE_ERROR, "Born charges"),
    ({"band_gap": 0.05}, Verdict.METALLIC, "0.050 eV"),
    ({"electronic": np.eye(3) * 9718.0, "band_gap": 1.3}, Verdict.METALLIC, "9718"),
    ({"electronic": np.eye(3)}, Verdict.ELECTRONIC_IS_IDENTITY, "identity"),
    ({"min_optical_thz": -1.25}, Verdict.IMAGINARY_MODE, "-1.25 THz"),
    ({"min_optical_thz": -1.25, "ionic": None}, Verdict.IMAGINARY_MODE, "3.19"),
    ({"min_optical_thz": 0.0}, Verdict.SOFT_MODE, "0.00 THz"),
    ({"electronic": DIAGONAL}, Verdict.NOT_SYMMETRIC, "point group"),
    ({"ionic": DIAGONAL}, Verdict.NOT_SYMMETRIC, "ionic"),
    ({"electronic": np.eye(3) * -31279.0}, Verdict.EIGENVALUE_BELOW_1, "-3.128e+04"),
    ({"electronic": np.eye(3) * 0.99}, Verdict.EIGENVALUE_BELOW_1, "0.99"),
    ({"ionic": np.eye(3) * -0.1}, Verdict.IONIC_EIGENVALUE_BELOW_0, "-0.1"),
    ({"ionic": None}, Verdict.INCOMPLETE, "no ionic part"),
    ({"born_charges": np.ones((2, 3, 3))}, Verdict.BORN_CHARGES_NOT_NEUTRAL, "e per atom"),
]


@pytest.mark.parametrize(("facts", "verdict", "words"), CASES)
def test_refusals(
    crystals: dict[str, KnownMaterial], facts: dict[str, Any], verdict: Verdict, words: str
) -> None:
    known = crystals["cubic"]
    judgement = judge(known.material.structure, output(known, **facts))
    assert judgement.verdict is verdict, judgement.detail
    assert words in judgement.detail
    assert judgement.detail.endswith(".") and "\n" not in judgement.detail
    assert judgement.tensors is None and not judgement.accepted


@pytest.mark.parametrize(
    "facts",
    [
        {"min_optical_thz": None},
        {"min_optical_thz": float("nan"), "band_gap": float("nan")},
        {"band_gap": None, "born_charges": None},
        {"ionic": np.eye(3) * -0.01},
        {"ionic": np.diag([0.0, 0.01, 0.0])},
        {"electronic": np.eye(3) * 1.02},
    ],
)
def test_unknown_or_borderline_facts_are_no_reason_to_refuse(
    crystals: dict[str, KnownMaterial], facts: dict[str, Any]
) -> None:
    known = crystals["cubic"]
    assert judge(known.material.structure, output(known, **facts)).accepted


def test_thresholds_decide(crystals: dict[str, KnownMaterial]) -> None:
    known = crystals["cubic"]
    structure, soft = known.material.structure, output(known, min_optical_thz=0.1)
    assert judge(structure, soft).verdict is Verdict.SOFT_MODE
    assert judge(structure, soft, GateThresholds(soft_thz=0.0)).accepted
    small = output(known, band_gap=0.3)
    assert judge(structure, small).accepted
    assert judge(structure, small, GateThresholds(metallic_gap=0.5)).verdict is Verdict.METALLIC


def test_known_tensors_of_real_crystals_pass_and_their_failures_do_not(screen_data: Path) -> None:
    import pandas as pd
    from pymatgen.core import Structure

    table = pd.read_parquet(screen_data / "dielectric_tensors.parquet")
    verdicts: dict[str, list[Verdict]] = {"ok": [], "imaginary": [], "soft": []}
    picks = [
        rows.sample(min(12, len(rows)), random_state=0)
        for _, rows in table.groupby(["crystal_system", "ionic_status"])
    ]
    for row in pd.concat(picks).itertuples():
        if row.ionic_status not in verdicts or not row.use_electronic or row.band_gap <= 0.05:
            continue
        if row.ionic_status == "ok" and not row.use_ionic:
            continue
        electronic, ionic = (np.stack(list(t)) for t in (row.eps_electronic, row.eps_ionic))
        charges = row.born_charges
        facts = CalculationOutput(
            electronic=electronic,
            ionic=ionic,
            born_charges=np.array(json.loads(charges)) if isinstance(charges, str) else None,
            min_optical_thz=row.min_optical_thz,
            band_gap=row.band_gap,
            converged=True,
            functional=row.functional,
            engine="table",
            engine_version="0",
        )
        structure = Structure.from_dict(json.loads(row.structure))
        verdicts[row.ionic_status].append(judge(structure, facts).verdict)
    assert len(verdicts["ok"]) > 60
    assert verdicts["ok"].count(Verdict.ACCEPTED) >= 0.97 * len(verdicts["ok"])
    assert set(verdicts["imaginary"]) == {Verdict.IMAGINARY_MODE}
    assert set(verdicts["soft"]) == {Verdict.SOFT_MODE}


def test_a_metal_without_response_is_metallic_and_not_incomplete(
    crystals: dict[str, KnownMaterial],
) -> None:
    known = crystals["cubic"]
    stopped = output(known, electronic=None, ionic=None, born_charges=None, min_optical_thz=None)
    structure = known.material.structure
    assert judge(structure, stopped).verdict is Verdict.INCOMPLETE
    closed = dataclasses.replace(stopped, band_gap=-1.7)
    assert judge(structure, closed).verdict is Verdict.METALLIC


def test_what_was_not_tried_is_not_a_failure_of_the_run(
    crystals: dict[str, KnownMaterial],
) -> None:
    known = crystals["cubic"]
    refused = CalculationOutput.failure("test", unsupported="Mn2+ has an open shell")
    judgement = judge(known.material.structure, refused)
    assert judgement.verdict is Verdict.UNSUPPORTED and "Mn2+" in judgement.detail
    assert CalculationOutput.from_dict(refused.to_dict()).unsupported == refused.unsupported


def test_a_relaxed_run_is_judged_by_the_structure_it_ended_with(
    crystals: dict[str, KnownMaterial],
) -> None:
    """Tensors with the symmetry of the relaxed crystal, which is not that of the given one."""
    from pymatgen.core import Structure

    known = crystals["cubic"]
    cubic = known.material.structure
    lattice = cubic.lattice.matrix @ np.diag([1, 1, 1.02])
    stretched = Structure(lattice, cubic.species, cubic.frac_coords)
    eps = np.diag([3.0, 3.0, 4.0])
    facts = output(known, electronic=eps, ionic=eps)
    assert judge(known.material.structure, facts).verdict is Verdict.NOT_SYMMETRIC
    relaxed = dataclasses.replace(facts, relaxed_structure=stretched.as_dict())
    assert judge(known.material.structure, relaxed).verdict is Verdict.ACCEPTED


@pytest.mark.parametrize(
    ("predicted", "spread", "flagged"),
    [
        (9.96, 0.5, False),  # MgO as calculated
        (5.5, 0.1, False),  # far outside the spread, but less than a factor of 2
        (4.0, 0.5, True),
        (4.0, 3.0, False),  # far off, and the model said that it might be
        (25.0, 1.0, True),
        (float("nan"), 1.0, False),
    ],
)
def test_a_surprise_is_flagged_and_stays_accepted(
    crystals: dict[str, KnownMaterial], predicted: float, spread: float, flagged: bool
) -> None:
    known = crystals["cubic"]
    judgement = judge(known.material.structure, output(known))
    said = second_look(judgement, predicted, spread)
    assert (said is not None) is flagged
    if said is not None:
        assert "Second look" in said and "9.96" in said
    metal = judge(known.material.structure, output(known, band_gap=0.0))
    assert second_look(metal, predicted, spread) is None


def test_records_of_the_first_release_can_be_read(crystals: dict[str, KnownMaterial]) -> None:
    record = output(crystals["cubic"]).to_dict()
    later = (
        "unsupported",
        "frequencies_thz",
        "acoustic_thz",
        "relaxed_structure",
        "attempts",
        "cost",
    )
    old = {name: value for name, value in record.items() if name not in later}
    assert CalculationOutput.from_dict(old).to_dict() == record
    for broken in ({**old, "cost": []}, {**old, "attempts": None}, {**old, "unheard": 1}):
        with pytest.raises(ValueError, match=r"record"):
            CalculationOutput.from_dict(broken)
