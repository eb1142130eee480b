"""Structures whose hydrogen atoms are missing.

X-ray refinements often give hydrates, hydroxides, acids and organic molecules without their
hydrogen, and databases carry them on. Such an entry is another compound than its name says: its
lone oxygens and bare carbons have levels in the gap and soft modes, and its permittivity means
nothing.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]

CUTOFF = 3.2
"""Å; a bond to oxygen longer than this adds less than 0.02 valence units for all but Cs."""
BOND_SOFTNESS = 0.31
"""Å, of the bond valences of O'Keeffe and Brese, J. Am. Chem. Soc. 113, 3226 (1991)."""
WATER_VALENCE = 0.6
"""An oxygen with less than this, and no bond to a non-metal, is a water molecule without H."""
HYDROXYL_VALENCE = 1.6
"""An oxygen with less than this can be a hydroxyl without H; a saturated one has 1.7 to 2.2."""
COVALENT = 1.30
"""A bond shorter than this many sums of covalent radii joins two non-metals."""
NON_METALS = frozenset({"B", "C", "N", "O", "Si", "P", "S", "Cl", "As", "Se", "Br", "Te", "I", "F"})
NOBLE = frozenset({"He", "Ne", "Ar", "Kr", "Xe"})
BENT = 150.0
"""Degrees; a carbon with two bonds at a smaller angle lacks a third neighbour."""


def lacks_hydrogen(structure: Structure) -> bool:
    """Whether hydrogen is missing from a structure, judged by what is left.

    Only structures without any hydrogen are judged; one with a part of it passes. They lack
    hydrogen if

    - an oxygen has a bond-valence sum below 0.6 and no bond to a non-metal (bare water), or
    - a carbon has just two bonds, both to non-metals and at an angle below 150° (bare CH), or
    - an oxygen has a sum below 1.6 and no bond to oxygen or fluorine (bare hydroxyl), and the
      formula cannot be balanced with the common oxidation states.

    Of 2,500 stable oxides and carbon compounds of the Materials Project without hydrogen this
    refuses two, LaSO5 and Sr5V3O13, which are La(OH)SO4 and an apatite without their hydrogen; of
    400 such compounds with hydrogen, once that is deleted, it recognises six in ten. The rules on
    oxygen need bond-valence parameters for every element; Tc, Pm and most actinides have none.
    Hydrogen can also be missing where none of this shows: an element has taken up the charge, as
    Fe(III) for Fe(II), and the relaxation has drawn the oxygens to other atoms.
    """
    symbols = np.array([site.specie.symbol for site in structure])
    if "H" in symbols or "D" in symbols or not {"O", "C"} & set(symbols):
        return False
    bonds = _Bonds(structure, symbols)
    carbons = np.flatnonzero(symbols == "C").tolist()
    if any(bonds.is_bare_carbon(i) for i in carbons):
        return True
    if any(_parameters(symbol) is None for symbol in set(symbols) - NOBLE):
        return False
    oxygens = np.flatnonzero(symbols == "O").tolist()
    sums = [bonds.valence(i) for i in oxygens]
    joined = [bonds.covalent(i) for i in oxygens]
    if any(s < WATER_VALENCE and not j for s, j in zip(sums, joined, strict=True)):
        return True
    poor = any(
        s < HYDROXYL_VALENCE and not {"O", "F"} & set(symbols[j])
        for s, j in zip(sums, joined, strict=True)
    )
    return poor and not _balances(structure.composition.reduced_formula)


class _Bonds:
    """Neighbours within 3.2 Å, with what they mean for an atom."""

    def __init__(self, structure: Structure, symbols: NDArray[np.str_]) -> None:
        from matscipy.neighbours import neighbour_list

        self.symbols = symbols
        self.i, self.j, self.d, self.vectors = neighbour_list(
            "ijdD", pbc=[True] * 3, cell=structure.lattice.matrix,
            positions=structure.cart_coords, cutoff=CUTOFF,
        )  # fmt: skip

    def valence(self, atom: int) -> float:
        """Bond valences that other elements give to an anion."""
        mine = self.i == atom
        total = 0.0
        for other, distance in zip(self.symbols[self.j[mine]], self.d[mine], strict=True):
            total += _bond_valence(str(self.symbols[atom]), str(other), float(distance))
        return total

    def covalent(self, atom: int) -> list[int]:
        """Non-metals that an atom is bonded to."""
        return [j for j, _ in self._covalent(atom)]

    def is_bare_carbon(self, atom: int) -> bool:
        """Whether a carbon has just two neighbours, both non-metals, at a bent angle."""
        bonded = self._covalent(atom)
        metals = [
            j
            for j, d in zip(self.j[self.i == atom], self.d[self.i == atom], strict=True)
            if self.symbols[j] not in NON_METALS and d < _reach(self.symbols[atom], self.symbols[j])
        ]
        if len(bonded) != 2 or metals:
            return False
        first, second = (vector for _, vector in bonded)
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))) < BENT

    def _covalent(self, atom: int) -> list[tuple[int, Array]]:
        mine = self.i == atom
        return [
            (int(j), vector)
            for j, d, vector in zip(self.j[mine], self.d[mine], self.vectors[mine], strict=True)
            if self.symbols[j] in NON_METALS and d < _reach(self.symbols[atom], self.symbols[j])
        ]


def _reach(first: str, second: str) -> float:
    from ase.data import atomic_numbers, covalent_radii

    radii = covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]]
    return COVALENT * float(radii)


@functools.cache
def _parameters(symbol: str) -> tuple[float, float] | None:
    from pymatgen.analysis.bond_valence import BV_PARAMS
    from pymatgen.core import Element

    found = BV_PARAMS.get(Element(symbol))
    return None if found is None else (float(found["r"]), float(found["c"]))


def _bond_valence(anion: str, other: str, distance: float) -> float:
    a, b = _parameters(anion), _parameters(other)
    if anion == other or a is None or b is None:
        return 0.0
    (r1, c1), (r2, c2) = a, b
    length = r1 + r2 - r1 * r2 * (np.sqrt(c1) - np.sqrt(c2)) ** 2 / (c1 * r1 + c2 * r2)
    return float(np.exp((length - distance) / BOND_SOFTNESS))


@functools.lru_cache(maxsize=10_000)
def _balances(formula: str) -> bool:
    """Whether oxidation states add up to nothing; each atom may have one of its own.

    The states are those of pymatgen's ``oxi_state_guesses``, which lists every way to give them and
    so comes to no end for some, Sr2Ca49Mo12N56O3 among them; here sums alone are followed.
    """
    from pymatgen.core import Composition

    composition = Composition(formula)
    if len(composition) == 1:
        return True
    usual = {e: e.icsd_oxidation_states or e.common_oxidation_states for e in composition.elements}
    every = {e: e.oxidation_states for e in composition.elements}
    for states in (usual, every) if len(composition) <= 5 else (usual,):
        sums = {0}
        for element, amount in composition.items():
            # Without the restriction peroxide would balance almost anything; peroxides have O–O
            # bonds.
            given = (-2,) if element.symbol == "O" else states[element] or ()
            for _ in range(round(amount)):
                sums = {before + state for before in sums for state in given}
        if 0 in sums:
            return True
    return False
