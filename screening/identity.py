"""Whether two records describe the same crystal."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from screening.material import Material
from screening.symmetry import SYMPREC, cell_of

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure


class CrystalIndex:
    """Crystals seen so far; recognises one again in another cell, origin, orientation or volume.

    Two records are the same crystal if they have the same composition and space group and their
    atoms can be mapped onto each other closely. Close polymorphs, such as a cubic perovskite and
    its tilted forms, stay apart.
    """

    def __init__(self, materials: Iterable[Material] = ()) -> None:
        self._by_formula: dict[str, list[Material]] = defaultdict(list)
        self._hashes: set[str] = set()
        for material in materials:
            self.add(material)

    def add(self, material: Material) -> None:
        """Remember a crystal."""
        self._by_formula[_formula(material)].append(material)
        self._hashes.add(material.structure_hash)

    def __contains__(self, material: Material) -> bool:
        if material.structure_hash in self._hashes:
            return True
        return any(
            _same(material.structure, other.structure)
            for other in self._by_formula.get(_formula(material), ())
        )


def _formula(material: Material) -> str:
    return str(material.structure.composition.reduced_formula)


def _same(first: Structure, second: Structure) -> bool:
    if _space_group(first) != _space_group(second):
        return False
    return bool(_matcher().fit(first, second))


def _space_group(structure: Structure) -> int:
    import spglib

    cell: Any = cell_of(structure)
    dataset = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
    return int(dataset.number) if dataset is not None else 1


@functools.cache
def _matcher() -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=0.05, stol=0.1, angle_tol=3)
