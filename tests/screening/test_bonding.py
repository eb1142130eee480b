"""Which crystals are molecular."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from screening.bonding import is_molecular

MOLECULAR = ("CO2", "N2", "I2", "Ar")
EXTENDED = (
    "NaCl",  # ionic
    "CsCl",  # ionic; atoms farther apart than covalent radii allow
    "MoS2",  # layers
    "graphite",
    "Te",  # chains
    "quartz",  # a network
    "baddeleyite",
    "rutile",
    "zincblende",
    "SrTiO3",
    "K2PtCl6",  # isolated octahedra, but charged, with ions between
)


@pytest.mark.parametrize("name", MOLECULAR)
def test_molecules_are_recognised(name: str, prototypes: dict[str, Any]) -> None:
    assert is_molecular(prototypes[name])


@pytest.mark.parametrize("name", EXTENDED)
def test_bonds_that_go_on_are_recognised(name: str, prototypes: dict[str, Any]) -> None:
    assert not is_molecular(prototypes[name])


def test_ions_of_several_atoms_are_no_molecules() -> None:
    """NH4Cl: covalent pieces, which Voronoi-based neighbours leave apart, but charged.

    Levy and Peterson, Phys. Rev. 86 (1952) 766.
    """
    from pymatgen.core import Lattice, Structure

    positions = [[0, 0, 0], [0.153] * 3, [0.5] * 3]
    salt = Structure.from_spacegroup("P-43m", Lattice.cubic(3.87), ["N", "H", "Cl"], positions)
    assert salt.composition.reduced_formula == "H4NCl"
    assert not is_molecular(salt)


@pytest.mark.parametrize("material_id", ["mp-24336", "mp-558134"])
def test_pieces_that_ionic_bonds_join_are_no_molecules(material_id: str, tensor_table: Any) -> None:
    """Mg(H2O)2Cl2 and layers of TlF: finite pieces as far as covalent radii tell."""
    from pymatgen.core import Structure

    text = tensor_table[tensor_table["material_id"] == material_id]["structure"].iloc[0]
    assert not is_molecular(Structure.from_str(text, fmt="json"))


def test_real_crystals(low_symmetry: dict[str, Any]) -> None:
    found = {name for name, k in low_symmetry.items() if is_molecular(k.material.structure)}
    assert found == {"mp-22885", "mp-29443", "mp-632326"}  # XeF2, P2I4, HCl


@pytest.mark.parametrize(
    ("element", "edge"), [("Ne", 4.46), ("Kr", 5.65), ("Xe", 6.13), ("Xe", 15)]
)
def test_noble_gases_are_molecules_of_one_atom(element: str, edge: float) -> None:
    """Lattice constants from Kittel, Introduction to Solid State Physics; one far too large."""
    from pymatgen.core import Lattice, Structure

    crystal = Structure.from_spacegroup("Fm-3m", Lattice.cubic(edge), [element], [[0, 0, 0]])
    assert is_molecular(crystal)


@pytest.mark.parametrize("name", ["CO2", "I2", "MoS2", "NaCl", "quartz"])
def test_the_answer_does_not_depend_on_the_cell(
    name: str, prototypes: dict[str, Any], described_anew: Callable[..., dict[str, Any]]
) -> None:
    anew = described_anew(prototypes[name], 1)
    for other in (anew["supercell"], anew["permuted"], anew["shifted"], anew["unimodular"]):
        assert is_molecular(other) == (name in MOLECULAR)
