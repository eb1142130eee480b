"""What VASP calculations will cost, learned from those that are done."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from dft.cost import LEAST_DONE
from dft.vasp import VaspEngine
from dft.vasp_presets import demand
from dft.vasp_settings import Preset, VaspSettings
from screening.material import Material

CATIONS, ANIONS = ("Li", "Na", "K", "Mg", "Ca", "Ba"), ("F", "Cl", "O", "Te")
SALTS = [(cation, anion) for cation in CATIONS for anion in ANIONS]


def salt(cation: str, anion: str, length: float) -> Structure:
    lattice = Lattice.cubic(length)
    positions = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure.from_spacegroup(
        "Fm-3m", lattice, [cation, anion], positions
    ).get_primitive_structure()


@pytest.mark.parametrize(
    ("preset", "divisions", "cutoff", "spins"),
    [("dtnet", 11, 600, 1), ("goectp", 11, 700, 1), ("mp", 11, 600, 2)],
)
def test_what_the_cost_depends_on_is_what_the_inputs_say(
    preset: Preset, divisions: int, cutoff: float, spins: int
) -> None:
    """The mesh of rock salt; GoeCTP's by its distance of 0.03 · 2π/Å."""
    from spglib import get_ir_reciprocal_mesh

    from screening.symmetry import cell_of

    crystal = salt("Na", "Cl", 5.64)
    found = demand(preset, {}, crystal)
    mapping, _ = get_ir_reciprocal_mesh([divisions] * 3, cell_of(crystal), symprec=0.01)
    assert found["k_points"] == len(np.unique(mapping))
    assert found["electrons"] == spins * (1 + 7) and found["perturbations"] == 3
    # Plane waves in a sphere of energy E: V (2mE)^(3/2) / (6 π² ħ³).
    waves = crystal.volume * (cutoff / 3.8099821) ** 1.5 / (6 * np.pi**2)
    assert found["plane_waves"] == pytest.approx(waves, rel=1e-4)


def test_spin_and_tags_count() -> None:
    oxide = salt("Mn", "O", 4.44)
    assert demand("dtnet", {}, oxide)["electrons"] == 2 * (7 + 6)
    ordinary = demand("dtnet", {}, salt("Na", "Cl", 5.64))
    harder = demand("dtnet", {"ENCUT": 1200}, salt("Na", "Cl", 5.64))
    assert harder["plane_waves"] == pytest.approx(2**1.5 * ordinary["plane_waves"])


def test_costs_are_learned_from_what_is_done() -> None:
    engine = VaspEngine(VaspSettings(preset="mp"), potcar_spec=True)
    random = np.random.default_rng(0)
    crystals = [salt(*SALTS[i], 5.0 + 0.1 * i) for i in random.permutation(len(SALTS))]
    seconds = []
    for crystal in crystals:
        own = demand("mp", {}, crystal)
        law = 3e-4 * own["electrons"] * own["plane_waves"] * own["k_points"] ** 1.2
        seconds.append(float(law * np.exp(0.1 * random.normal())))
    done = list(zip(crystals, seconds, strict=True))
    asked = [Material(f"m{i}", crystal) for i, crystal in enumerate(crystals[16:])]
    assert engine.costs(asked, lambda: done[: LEAST_DONE - 1]) == [None] * 8
    inside = 0
    for cost, truth in zip(engine.costs(asked, lambda: done[:16]), seconds[16:], strict=True):
        assert cost is not None
        assert cost.core_hours * 3600 == pytest.approx(truth, rel=0.4)
        inside += cost.low * 3600 <= truth <= cost.high * 3600
    assert inside >= 6


def test_what_cannot_be_calculated_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymatgen.core import SETTINGS

    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", None)
    (cost,) = VaspEngine(VaspSettings()).costs([Material("LiF", salt("Li", "F", 4.03))])
    assert cost is not None and cost.high == 0
