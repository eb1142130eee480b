"""Crystals from structure types and lattice constants."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import spglib
from pymatgen.core import Composition, Structure

from screening.errors import UserError
from screening.prototypes import SOURCES, Crystal, crystals
from screening.symmetry import cell_of

RADII = 0.55
"""Shortest distance of two atoms, as a share of the sum of their atomic radii. Bonds to hydrogen
come down to 0.75, triple bonds of carbon to 0.85, those of cations to 0.65."""


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[Crystal, Structure]]:
    return {crystal.name: (crystal, crystal.structure()) for crystal in crystals()}


def test_the_list_is_long_small_and_has_its_sources() -> None:
    names = [crystal.name for crystal in crystals()]
    assert len(names) == len(set(names)) >= 250
    assert {crystal.source for crystal in crystals()} == set(SOURCES)
    assert len({crystal.prototype for crystal in crystals()}) >= 40


def test_formulas_and_space_groups_come_back(built: dict[str, tuple[Crystal, Structure]]) -> None:
    for name, (crystal, structure) in built.items():
        formula = Composition(name.split("-")[0]).reduced_formula
        assert structure.composition.reduced_formula == formula, name
        found = spglib.get_symmetry_dataset(cell_of(structure), symprec=0.01)
        assert found.international == crystal.space_group, name
        assert len(structure) <= 12 and len(found.std_positions) % len(structure) == 0, name


def test_no_two_atoms_are_too_near(built: dict[str, tuple[Crystal, Structure]]) -> None:
    for name, (_, structure) in built.items():
        centres, others, _, distances = structure.get_neighbor_list(4.5)
        radii = np.array([float(site.specie.atomic_radius or 1.0) for site in structure])
        assert len(distances), name
        assert (distances > RADII * (radii[centres] + radii[others])).all(), name
        assert distances.min() > 0.9, name


def test_a_known_structure() -> None:
    rutile = next(c for c in crystals() if c.name == "TiO2")
    distances = rutile.structure().get_neighbor_list(2.2)[3]
    # Four at 1.95 and two at 1.98 Å around each titanium (Wyckoff).
    assert np.allclose(np.unique(distances.round(2)), [1.95, 1.98])
    material = rutile.material()
    assert material.material_id == "TiO2" and "Wyckoff" in material.source


def test_mistakes_in_the_list_are_named() -> None:
    salt = next(c for c in crystals() if c.name == "BeO")
    with pytest.raises(UserError, match="BeO in the list of crystals lacks 'z'"):
        dataclasses.replace(salt, parameters={}).structure()
    with pytest.raises(UserError, match="BeO in the list of crystals needs 2 species"):
        dataclasses.replace(salt, species=("Be",)).structure()
    with pytest.raises(UserError, match="no structure type 'wurzit'"):
        dataclasses.replace(salt, prototype="wurzit").structure()
