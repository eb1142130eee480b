"""The data that come with the software."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure

from dft.settings import GateThresholds
from screening.bonding import is_molecular
from screening.builtin import TABLE, builtin_hidden, builtin_known
from screening.identity import CrystalIndex
from screening.material import KnownMaterial
from screening.prototypes import SOURCES, crystals
from screening.settings import BuiltinSource
from screening.sources import load_answers, load_candidates, load_known
from screening.symmetry import asymmetry, point_group_rotations


@pytest.fixture(scope="module")
def everything() -> list[KnownMaterial]:
    return [*builtin_known(), *builtin_hidden()]


def test_a_part_is_known_and_the_rest_is_hidden(everything: list[KnownMaterial]) -> None:
    assert len(builtin_known()) >= 15 and len(builtin_hidden()) >= 44
    assert 0.2 < len(builtin_known()) / len(everything) < 0.4
    assert len({k.material.material_id for k in everything}) == len(everything)
    for n, known in enumerate(everything):
        others = CrystalIndex(k.material for k in everything[:n])
        assert known.material not in others


def test_the_draw_is_fixed() -> None:
    """What is known stays known, and what is hidden stays hidden, however the table grows."""
    known = {k.material.material_id for k in builtin_known()}
    hidden = {k.material.material_id for k in builtin_hidden()}
    first = {"AlP", "BP", "Be2C", "CaO", "K2S", "KF", "Li2Te", "LiCl", "MgO", "SrS", "SrSe"}
    assert first | {"SrCl2", "BaS", "PtS2", "KH"} <= known
    assert {"LiI", "BaO", "TlCl", "HfO2", "CsCl", "Se", "HfS2", "NaF", "GaN"} <= hidden


def test_enough_is_known_to_train_on() -> None:
    assert len({k.material.formula for k in builtin_known()}) >= 10
    assert sum(k.tensors.static is not None for k in builtin_known()) >= 10


def test_tensors_are_physical(everything: list[KnownMaterial]) -> None:
    for known in everything:
        rotations = point_group_rotations(known.material.structure)
        electronic, ionic = known.tensors.electronic, known.tensors.ionic
        assert electronic is not None
        # Solid neon: 1.24 measured; helium alone is below.
        least = 1.1 if {*known.material.elements} == {"He"} else 1.2
        assert np.linalg.eigvalsh(electronic).min() > least
        assert asymmetry(electronic, rotations) < 1e-12
        if ionic is not None:
            # Atoms that symmetry makes all equal, as in diamond, carry no charge.
            polar = len(known.material.elements) > 1
            assert np.linalg.eigvalsh(ionic).min() > 0 or not polar
            # Of crystals without an infrared-active mode there is only noise.
            part = ionic if np.abs(ionic).max() > 1e-4 else electronic + ionic
            assert asymmetry(part, rotations) < 1e-12


def test_records_are_complete(everything: list[KnownMaterial]) -> None:
    for known in everything:
        assert known.functional == "PBE"
        assert known.material.band_gap is not None
        assert known.material.band_gap > 0
        assert "abinit" in known.material.source
        name = known.material.material_id.partition("-")[0]
        molecules = {"N2", "HCN", "HCl", "HBr", "SiF4", "KrF2", "XeF2"}
        molecular = name in {"He", "Ne", "Ar", "Kr", "Xe"} | molecules
        assert is_molecular(known.material.structure) == molecular, name
        charges = np.array(known.extras["born_charges"])
        assert charges.shape == (known.material.n_sites, 3, 3)
        # Neutral but for the finite meshes.
        limit = GateThresholds().born_charge_sum * known.material.n_sites
        assert np.abs(charges.sum(axis=0)).max() < limit


def test_every_calculation_is_in_the_tables_with_what_it_took() -> None:
    """Those that gave no tensors too, with the reason; each with its lattice's source."""
    folder = resources.files("screening") / "data"
    text = (folder / TABLE).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    listed = {crystal.name: crystal for crystal in crystals()}
    for row in rows:
        crystal = listed[row["name"]]
        assert row["lattice_source"] == SOURCES[crystal.source]
        assert Structure.from_dict(row["structure"]).matches(crystal.structure())
        assert (row["eps_electronic"] is not None) or row["status"] != "accepted"
        assert row["detail"] and row["settings"]["level"] == "standard"
        assert row["cpu_s"] == pytest.approx(sum(a["cpu_s"] for a in row["attempts"]), abs=0.1)
    known = {k.material.material_id: k for k in (*builtin_known(), *builtin_hidden())}
    assert all(k.extras["cpu_s"] > 0 for k in known.values())
    assert {row["name"] for row in rows if row["eps_electronic"] is not None} <= set(known)


def test_values_from_the_literature(everything: list[KnownMaterial]) -> None:
    """ε∞ and ε0 of MgO: 2.95 and 9.8 measured (CRC Handbook); PBE gives about 3.2 and 10."""
    tensors = next(k for k in everything if k.material.material_id == "MgO").tensors
    assert tensors.electronic is not None
    assert tensors.static is not None
    assert tensors.electronic[0, 0] == pytest.approx(3.1, abs=0.2)
    assert tensors.static[0, 0] == pytest.approx(9.9, abs=0.5)


def test_charges_are_polarisation_by_displacement(everything: list[KnownMaterial]) -> None:
    """ABINIT's words on AlH3: 0.488 e along x for a displacement of the first Al along y."""
    hydride = next(k for k in everything if k.material.material_id == "AlH3")
    (_, x_for_y, _), (y_for_x, *_), _ = hydride.extras["born_charges"][0]
    assert (x_for_y, y_for_x) == pytest.approx((0.488, -0.488), abs=1e-3)


def test_the_source_keeps_hidden_what_is_hidden() -> None:
    def ids(items: Any) -> list[str]:
        return [getattr(item, "material", item).material_id for item in items]

    source = BuiltinSource()
    known, candidates, answers = load_known(source), load_candidates(source), load_answers(source)
    assert ids(known) == ids(builtin_known())
    assert ids(candidates) == ids(answers) == ids(builtin_hidden())
    assert not set(ids(known)) & set(ids(candidates))


def test_callers_cannot_spoil_the_table() -> None:
    before = len(builtin_known())
    builtin_known().clear()
    assert len(builtin_known()) == before > 0
