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

import numpy as np
from numpy.typing import NDArray

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
    "M": "F. S. Galasso, Structure, Properties and Preparation of Perovskite-Type Compounds "
    "(1969); Landolt-Börnstein, New Series III/36",
    "J": "R. B. Jacobs, Phys. Rev. 54, 325 and 468 (1938), at the pressure of the transition",
    "D": "A. Dewaele et al., Phys. Rev. B 85, 214105 (2012), extrapolated to zero pressure",
    "F": "Y. Fei et al., PNAS 104, 9182 (2007), extrapolated to zero pressure",
    "R": "P. Richet, H.-K. Mao, P. M. Bell, J. Geophys. Res. 93, 15279 (1988), extrapolated to "
    "zero pressure",
    "BD": "I. O. Bashkin, V. F. Degtyareva, Y. M. Dergachev, E. G. Ponyatovskii, Phys. Status "
    "Solidi B 114 (1982), doi:10.1002/pssb.2221140252, kept at 100 K and no pressure",
    "DU": "S. J. Duclos, Y. K. Vohra, A. L. Ruoff, S. Filipek, B. Baranowski, Phys. Rev. B 36, "
    "7664 (1987), from the volume at the pressure of the transition, 29.3 GPa",
    "RH": "Phys. Status Solidi B 130 (1985), doi:10.1002/pssb.2221300103; at the pressure of the "
    "transition, 1.7 GPa, from the bulk modulus and the change of volume there",
    "LI": "L.-G. Liu, W. A. Bassett, J. Geophys. Res. 77, 4934 (1972), at 18 GPa",
    "PU": "K. Puhakainen et al., J. Solid State Chem. 183, 1785 (2010); hydrogen, which X-rays "
    "do not place, 1.63 Å from platinum",
    "SM": "D. K. Smith, C. F. Cline, S. B. Austerman, Acta Cryst. 18, 393 (1965), at 2,100 °C",
    "SH": "A. V. Shevelkov et al., J. Solid State Chem. 114, 379 (1995); heights, by which Te and "
    "I are hard to tell apart, as relaxed in PBEsol",
    "EG": "P. Ehrlich et al., Z. anorg. allg. Chem. 283, 58 (1956) and "
    "doi:10.1002/zaac.19562880305 (1956); heights, which powder patterns gave only coarsely, as "
    "relaxed in PBE",
    "BV": "B. Bertheville et al., J. Alloys Compd. 325, L13 (2001), of the deuteride; the height "
    "of the alkali metal as relaxed in PBE",
    "HA": "B. C. Hauback et al., J. Alloys Compd. 358, 142 (2003), of the deuteride at 8 K",
    "HI": "S. J. Hibble et al., Inorg. Chem. 41, 4990 (2002)",
    "HW": "cell: R. W. G. Wyckoff, Crystal Structures, 2nd ed., vol. 1 (1963); bond lengths: S. J. "
    "Hibble et al., Inorg. Chem. 42, 4724 (2003), G. A. Bowmaker et al., ibid. 37, 3968 (1998)",
    "PR": "cell: Pearson's Handbook of Crystallographic Data (1991); free coordinates as relaxed "
    "in PBE",
    "P": "single determinations as collected in Pearson's Handbook of Crystallographic Data "
    "(1991) and the Inorganic Crystal Structure Database",
}
"""Where the lattice constants of the list are from: compilations, and single papers."""

N_HALL = 530
FIRST_TETRAGONAL, FIRST_TRIGONAL, FIRST_CUBIC = 75, 143, 195
SAME = 1e-4
"""Fractional coordinates nearer than this are the same."""

Array = NDArray[np.float64]
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
        import spglib
        from pymatgen.core import Structure

        symbol, sites = _prototype(self.prototype)
        if len(self.species) != len(sites):
            raise UserError(f"{self.name} in the list of crystals needs {len(sites)} species.")
        operations: Any = spglib.get_symmetry_from_database(_hall(symbol)[0])
        species: list[str] = []
        positions: list[Array] = []
        for element, letter in zip(self.species, sorted(sites), strict=True):
            for site in sites[letter]:
                first = np.array([self._coordinate(word) for word in site.split()])
                orbit = operations["rotations"] @ first + operations["translations"]
                for position in _distinct(orbit):
                    species.append(element)
                    positions.append(position)
        full = Structure(self._lattice(), species, positions)
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

        _, number = _hall(self.space_group)
        if number >= FIRST_CUBIC:
            return Lattice.cubic(self.a)
        if number >= FIRST_TRIGONAL:
            return Lattice.hexagonal(self.a, self.c)
        if number >= FIRST_TETRAGONAL:
            return Lattice.tetragonal(self.a, self.c)
        return Lattice.orthorhombic(self.a, self.b, self.c)


@functools.cache
def crystals() -> tuple[Crystal, ...]:
    """The list, in the order in which it is written."""
    text = (resources.files("screening") / "data" / "crystals.csv").read_text(encoding="utf-8")
    return tuple(_crystal(row) for row in csv.DictReader(text.splitlines()))


def _crystal(row: dict[str, str]) -> Crystal:
    a, b, c = (float(row[axis] or 0) for axis in "abc")
    parameters = dict(_assignment(word) for word in row["parameters"].split())
    species = tuple(row["species"].split())
    return Crystal(row["name"], row["prototype"], species, a, b, c, parameters, row["source"])


def _assignment(word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    return name, float(value)


@functools.cache
def _hall(symbol: str) -> tuple[int, int]:
    """Hall number and number of a space group in its first setting: origin 1, hexagonal axes."""
    import spglib

    for hall in range(1, N_HALL + 1):
        found = spglib.get_spacegroup_type(hall)
        if found is not None and found.international_short == symbol:
            return hall, int(found.number)
    raise UserError(f"There is no space group '{symbol}' as in the list of prototypes.")


def _distinct(orbit: Array) -> list[Array]:
    """Positions (n, 3) in fractions of the cell, without those that coincide."""
    found: list[Array] = []
    for position in orbit:
        differences = (position - found) if found else np.ones((1, 3)) / 2
        differences = differences - np.round(differences)
        if (np.abs(differences).max(axis=1) > SAME).all():
            found.append(position % 1.0)
    return found


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
