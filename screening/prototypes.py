"""Crystals written down as a structure type, lattice constants and free parameters.

``data/crystals.csv`` lists small crystals with their measured lattice constants and where these are
from; ``data/prototypes.json`` says where the atoms of each structure type are.
"""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from screening.errors import UserError
from screening.material import Material

if TYPE_CHECKING:
    from pymatgen.core import Lattice, Structure

SOURCES = {
    "W1": "R. W. G. Wyckoff, Crystal Structures, 2nd ed., vol. 1 (1963)",
    "W2": "R. W. G. Wyckoff, Crystal Structures, 2nd ed., vol. 2 (1964)",
    "W3": "R. W. G. Wyckoff, Crystal Structures, 2nd ed., vol. 3 (1965)",
    "LB": "Landolt-Börnstein, New Series III/17 and III/41; O. Madelung, Semiconductors: Data "
    "Handbook (2004)",
    "M": "F. S. Galasso, Structure, Properties and Preparation of Perovskite-Type Compounds (1969); "
    "Landolt-Börnstein, New Series III/36",
    "P": "single determinations as collected in Pearson's Handbook of Crystallographic Data (1991) "
    "and the Inorganic Crystal Structure Database",
}
"""Compilations in which the lattice constants of the list are tabulated."""

Sites = dict[str, list[str]]


@dataclass(frozen=True)
class Crystal:
    """One row of the list.

    Attributes
    ----------
    name
        Formula, with the structure type where there are several.
    prototype
        Key of ``data/prototypes.json``.
    species
        Elements on the sites A, B, … of the structure type.
    a, b, c
        Measured lattice constants in Å, of the conventional cell; 0 where symmetry gives them.
    parameters
        Free coordinates of the structure type.
    source
        Key of :data:`SOURCES`.
    """

    name: str
    prototype: str
    species: tuple[str, ...]
    a: float
    b: float
    c: float
    parameters: dict[str, float]
    source: str

    @property
    def space_group(self) -> str:
        """Hermann-Mauguin symbol."""
        return _prototype(self.prototype)[0]

    def structure(self) -> Structure:
        """The primitive cell, in the frame of the conventional one.

        Raises
        ------
        UserError
            The row does not fit its structure type.
        """
        from pymatgen.core import Structure

        symbol, sites = _prototype(self.prototype)
        if len(self.species) != len(sites):
            raise UserError(f"{self.name} in the list of crystals needs {len(sites)} species.")
        species, coordinates = [], []
        for element, letter in zip(self.species, sorted(sites), strict=True):
            for site in sites[letter]:
                species.append(element)
                coordinates.append([self._coordinate(word) for word in site.split()])
        full = Structure.from_spacegroup(symbol, self._lattice(), species, coordinates)
        return full.get_primitive_structure().get_sorted_structure()

    def material(self) -> Material:
        """As a candidate, before anything of it is known."""
        text = json.dumps(self.structure().as_dict())
        return Material(self.name, text, source=SOURCES[self.source])

    def _coordinate(self, word: str) -> float:
        if word in self.parameters:
            return self.parameters[word]
        numerator, _, denominator = word.partition("/")
        try:
            return float(numerator) / float(denominator or 1)
        except ValueError:
            raise UserError(f"{self.name} in the list of crystals lacks '{word}'.") from None

    def _lattice(self) -> Lattice:
        from pymatgen.core import Lattice
        from pymatgen.symmetry.groups import SpaceGroup

        system = SpaceGroup(self.space_group).crystal_system
        match system:
            case "cubic":
                return Lattice.cubic(self.a)
            case "tetragonal":
                return Lattice.tetragonal(self.a, self.c)
            case "hexagonal" | "trigonal":
                return Lattice.hexagonal(self.a, self.c)
            case _:
                return Lattice.orthorhombic(self.a, self.b, self.c)


@functools.cache
def crystals() -> tuple[Crystal, ...]:
    """The list, in the order in which it is written."""
    text = (resources.files("screening") / "data" / "crystals.csv").read_text(encoding="utf-8")
    return tuple(
        Crystal(
            row["name"], row["prototype"], tuple(row["species"].split()),
            *(float(row[axis] or 0) for axis in "abc"),
            dict(_assignment(word) for word in row["parameters"].split()), row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )  # fmt: skip


def _assignment(word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    return name, float(value)


@functools.cache
def _prototypes() -> dict[str, Any]:
    text = (resources.files("screening") / "data" / "prototypes.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _prototype(name: str) -> tuple[str, Sites]:
    try:
        symbol, sites = _prototypes()[name]
    except KeyError:
        raise UserError(f"There is no structure type '{name}' in the list of prototypes.") from None
    return symbol, sites
