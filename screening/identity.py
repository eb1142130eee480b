"""Whether two records describe the same crystal."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from screening.material import Material
from screening.symmetry import SYMPREC, cell_of, primitive_cell

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

NOISE_ANGSTROM = 0.02
"""Displacements up to this can be the noise of a relaxation that hides a symmetry from the search
at 0.01 Å; the off-centring of a ferroelectric is larger."""
NOISE_LATTICE = 0.003
"""The same for ratios of lattice constants; and, times 100, for angles in degrees."""

MIRRORED = {78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178,
            181: 180, 213: 212}  # fmt: skip
"""Space groups that come in pairs of mirror images; a tensor of rank two is the same in both."""


class CrystalIndex:
    """Crystals seen so far; recognises one again in another cell, origin, orientation or volume.

    Two records are the same crystal if they have the same composition and space group and their
    atoms can be mapped onto each other closely; mirror images count as the same. Where the space
    groups differ, the atoms have to agree within the noise of a relaxation. Close polymorphs, such
    as a cubic perovskite and its tilted forms, stay apart. Records of one id are the same crystal
    if composition and space group are: functionals may disagree on the distance of layers by more
    than polymorphs differ.
    """

    def __init__(self, materials: Iterable[Material] = ()) -> None:
        self._by_formula: dict[str, list[_Entry]] = defaultdict(list)
        self._hashes: dict[str, str] = {}
        self._asked: _Entry | None = None
        for material in materials:
            self.add(material)

    def add(self, material: Material) -> None:
        """Remember a crystal."""
        self._by_formula[_formula(material)].append(self._entry(material))
        self._hashes.setdefault(material.structure_hash, material.material_id)

    def __contains__(self, material: Material) -> bool:
        return self.find(material) is not None

    def find(self, material: Material) -> str | None:
        """Id of the first remembered record of the same crystal; None where there is none."""
        if (known := self._hashes.get(material.structure_hash)) is not None:
            return known
        others = self._by_formula.get(_formula(material))
        if not others:
            return None
        entry = self._entry(material)
        return next((o.material.material_id for o in others if _same(entry, o)), None)

    def _entry(self, material: Material) -> _Entry:
        if self._asked is None or self._asked.material is not material:
            self._asked = _Entry(material)
        return self._asked


@dataclass
class _Entry:
    """A crystal and what comparing it needs, worked out at the first comparison."""

    material: Material

    @functools.cached_property
    def space_group(self) -> int:
        import spglib

        cell: Any = cell_of(self.material.structure)
        dataset = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
        number = int(dataset.number) if dataset is not None else 1
        return MIRRORED.get(number, number)

    @functools.cached_property
    def reduced(self) -> Structure:
        """Primitive Niggli cell, without what a file may say of charges."""
        from pymatgen.core import Structure

        lattice, positions, species = primitive_cell(self.material.structure)
        return Structure(lattice, species.tolist(), positions).get_reduced_structure()

    @functools.cached_property
    def smallest(self) -> Structure:
        """The same by a search that forgives more noise, and takes far longer in large cells."""
        return self.reduced.get_primitive_structure().get_reduced_structure()


def _formula(material: Material) -> str:
    return str(material.structure.composition.reduced_formula)


def _same(first: _Entry, second: _Entry) -> bool:
    same_id = first.material.material_id == second.material.material_id
    if same_id and first.space_group == second.space_group:
        return True
    a, b = first.reduced, second.reduced
    if len(a) != len(b):
        a, b = first.smallest, second.smallest
    if len(a) != len(b):
        return False
    if first.space_group == second.space_group:
        return bool(_matcher().fit(a, b))
    distances = _matcher().get_rms_dist(a, b)
    if distances is None or not _same_lattice(a, b):
        return False
    return float(distances[1] * (a.volume / len(a)) ** (1 / 3)) < NOISE_ANGSTROM


def _same_lattice(a: Structure, b: Structure) -> bool:
    ratios = np.array(a.lattice.abc) / np.array(b.lattice.abc)
    angles = np.array(a.lattice.angles) - np.array(b.lattice.angles)
    return bool(np.ptp(ratios) < NOISE_LATTICE and np.abs(angles).max() < 100 * NOISE_LATTICE)


@functools.cache
def _matcher() -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import ElementComparator, StructureMatcher

    # Cells come primitive; oxidation states and spins that a file carries are no part of the
    # crystal.
    return StructureMatcher(
        ltol=0.05, stol=0.1, angle_tol=3, primitive_cell=False, comparator=ElementComparator()
    )
