"""Screens that look at the structure: layers, missing hydrogen, elements nobody knows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from screening.bonding import is_layered, is_molecular
from screening.errors import UserError
from screening.filters import filter_candidates
from screening.hydrogen import _balances, lacks_hydrogen
from screening.material import Material
from screening.settings import FilterSettings
from screening.tasks import get_task

LAYERED = {"MoS2", "graphite"}


def test_layers_are_told_from_networks_chains_and_molecules(prototypes: dict[str, Any]) -> None:
    found = {name for name, structure in prototypes.items() if is_layered(structure)}
    assert found == LAYERED
    assert not any(is_molecular(prototypes[name]) for name in LAYERED)


def test_layers_are_known_in_any_cell(
    prototypes: dict[str, Any], described_anew: Any, turned: Any, rotation: Any
) -> None:
    for name in ("MoS2", "rutile"):
        for seed, other in enumerate(described_anew(prototypes[name], 4).values()):
            assert is_layered(turned(other, rotation(seed, bool(seed % 2)))) == (name == "MoS2")


def test_real_layered_crystals(low_symmetry: dict[str, Any]) -> None:
    found = {i for i, known in low_symmetry.items() if is_layered(known.material.structure)}
    assert {"mp-19921", "mp-22965", "mp-984"} <= found
    assert not found & {"mp-22862", "mp-15776", "mp-22885"}


def test_complete_structures_do_not_lack_hydrogen(
    prototypes: dict[str, Any], low_symmetry: dict[str, Any]
) -> None:
    for structure in [*prototypes.values(), *(k.material.structure for k in low_symmetry.values())]:
        assert not lacks_hydrogen(structure)


def test_hydroxides_hydrates_and_molecules_without_their_hydrogen() -> None:
    from pymatgen.core import Lattice, Structure

    # Brucite, Mg(OH)2: Zigan and Rothbauer, Neues Jahrb. Mineral. Mh. (1967) 137
    brucite = Structure.from_spacegroup(
        "P-3m1", Lattice.hexagonal(3.142, 4.766), ["Mg", "O", "H"],
        [[0, 0, 0], [1 / 3, 2 / 3, 0.22], [1 / 3, 2 / 3, 0.413]],
    )  # fmt: skip
    # Ice XI: oxygens 2.76 Å apart, each alone once the hydrogens are gone
    ice = Structure(
        Lattice.hexagonal(4.5, 7.3), ["O"] * 4,
        [[1 / 3, 2 / 3, 0.06], [2 / 3, 1 / 3, 0.56], [1 / 3, 2 / 3, 0.44], [2 / 3, 1 / 3, 0.94]],
    )  # fmt: skip
    ring = [[np.cos(a), np.sin(a), 0] for a in np.arange(6) * np.pi / 3]
    benzene = Structure(
        Lattice.cubic(8), ["C"] * 6, 1.39 * np.array(ring) + 4, coords_are_cartesian=True
    )
    assert not lacks_hydrogen(brucite)
    brucite.remove_species(["H"])
    assert lacks_hydrogen(brucite)
    assert lacks_hydrogen(ice)
    assert lacks_hydrogen(benzene)


def test_formulas_balance_as_for_pymatgen() -> None:
    from pymatgen.core import Composition

    formulas = ["SiO2", "Fe3O4", "NaO", "LaSO5", "Sr5V3O13", "K2Ti6O13", "Zn4P6N12O", "O2", "ArO"]
    for formula in formulas:
        composition = Composition(formula)
        guesses = [
            composition.oxi_state_guesses({"O": [-2]}, all_oxi_states=every, max_sites=-1)
            for every in (False, True)
        ]
        assert _balances(formula) == any(guesses), formula
    assert {_balances(f) for f in formulas} == {True, False}
    assert _balances("Sr2Ca49Mo12N56O3"), "pymatgen would go through every way to give the states"


def test_most_compounds_without_their_hydrogen_are_recognised(screen_data: Any) -> None:
    import pandas as pd
    from pymatgen.core import Structure

    frame = pd.read_parquet(
        screen_data / "stable_nonmetals.parquet", columns=["formula", "nsites", "structure"]
    )
    frame = frame[(frame["nsites"] <= 24) & frame["formula"].str.contains("O")]
    holds = frame["structure"].str.contains('"element": "H"')
    found = {}
    for name, rows in (("with", frame[holds]), ("without", frame[~holds])):
        drawn = rows.sample(120, random_state=3)["structure"]
        structures = [Structure.from_dict(json.loads(text)) for text in drawn]
        for structure in structures:
            if name == "with":
                structure.remove_species(["H"])
        found[name] = sum(lacks_hydrogen(s) for s in structures if len(s))
    assert found["without"] <= 2
    assert found["with"] >= 55


def test_filters_name_what_they_take(prototypes: dict[str, Any]) -> None:
    def material(name: str, structure: Any, gap: float | None = 3.0) -> Material:
        return Material(name, structure, band_gap=gap)

    rutile = prototypes["rutile"]
    bare = prototypes["quartz"].copy()
    bare.remove_species(["Si"])
    offered = [
        material("a", rutile), material("b", rutile * [1, 1, 2]), material("c", prototypes["NaCl"]),
        material("d", prototypes["MoS2"]), material("e", prototypes["Te"]),
        material("f", prototypes["wurtzite"], None), material("g", bare),
        material("h", prototypes["anatase"]),
    ]  # fmt: skip
    settings = FilterSettings(exclude_layered=True)
    elements = {
        "encoder": {"Ti", "O", "Mo", "S", "Zn", "Na", "Cl"},
        "engine": {"Ti", "O", "Mo", "S", "Na", "Cl", "Te", "Si"},
    }
    pool = filter_candidates(
        offered, get_task("high-k"), settings, elements, [material("k", prototypes["NaCl"] * 2)]
    )
    assert [m.material_id for m in pool.candidates] == ["a", "h"]
    summary = pool.summary()
    for text in (
        "1 taken by 'band gap unknown'", "1 taken by 'element unknown to the encoder' (Te 1)",
        "1 taken by 'already known'", "1 taken by 'offered twice'",
        "1 taken by 'hydrogen missing'", "1 taken by 'layered crystal'",
    ):  # fmt: skip
        assert text in summary
    with pytest.raises(UserError, match=r"element unknown to the engine' .*Te 1"):
        strange = [material("e", prototypes["Te"])]
        known_to = {"encoder": {"Te"}, "engine": {"O"}}
        filter_candidates(strange, get_task("high-k"), settings, known_to, [])
