"""Dimensionality of the bonding network."""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.int64]

BOND_TOLERANCE = 0.45
"""Å that a covalent bond may be longer than the sum of the radii (Jmol's rule)."""

Bonds = dict[int, list[tuple[int, tuple[int, ...]]]]
"""Atom → its bonded atoms, each with the lattice translation to it."""


def is_molecular(structure: Structure) -> bool:
    """Whether the crystal consists of molecules: bonding of dimensionality 0 (Larsen et al. 2019).

    Bonds come from covalent radii first, which is quick but misses ionic bonds. In a compound, an
    atom other than of a noble gas that has no such bond is an ion, and the crystal not molecular;
    one that falls apart into larger pieces is looked at again with Voronoi-based neighbours
    (CrystalNN).
    """
    bonds = _covalent_bonds(structure)
    lone = [site for n, site in enumerate(structure) if n not in bonds]
    if len(structure.composition) > 1 and any(not site.specie.is_noble_gas for site in lone):
        return False
    return not _is_extended(bonds) and _dimensionality(structure) == 0


def is_layered(structure: Structure) -> bool:
    """Whether the crystal consists of layers: bonding of dimensionality 2 (Larsen et al. 2019).

    A network of covalent bonds that extends in three directions settles the matter at once; bonds
    of all other crystals come from Voronoi-based neighbours (CrystalNN), which know ionic bonds.
    """
    if _rank(_covalent_bonds(structure)) == 3:
        return False
    return _dimensionality(structure) == 2


def _covalent_bonds(structure: Structure) -> Bonds:
    from matscipy.neighbours import neighbour_list

    radii = np.array([_radii()[site.specie.symbol] for site in structure])
    i, j, distance, shift = neighbour_list(
        "ijdS", pbc=[True] * 3, cell=structure.lattice.matrix, positions=structure.cart_coords,
        cutoff=2 * radii.max() + BOND_TOLERANCE,
    )  # fmt: skip
    bonds: Bonds = defaultdict(list)
    # Noble gases have radii in the table that would bond them to each other.
    noble = np.array([site.specie.is_noble_gas for site in structure])
    near = (distance < radii[i] + radii[j] + BOND_TOLERANCE) & ~(noble[i] & noble[j])
    for n in np.flatnonzero(near):
        bonds[int(i[n])].append((int(j[n]), tuple(shift[n].tolist())))
    return dict(bonds)


def _loops(bonds: Bonds) -> Iterator[tuple[int, Array]]:
    """Walks along bonds that come back to an atom in another cell.

    Yields an atom that stands for the piece, and the lattice vector between the two cells. Every
    bond that closes a loop over cell borders adds one; pieces are kept apart by their atoms.
    """
    cell_of: dict[int, tuple[int, ...]] = {}
    for start in bonds:
        if start in cell_of:
            continue
        cell_of[start] = (0, 0, 0)
        stack = [start]
        while stack:
            atom = stack.pop()
            for neighbour, shift in bonds[atom]:
                cell = tuple(a + b for a, b in zip(cell_of[atom], shift, strict=True))
                if neighbour not in cell_of:
                    cell_of[neighbour] = cell
                    stack.append(neighbour)
                elif cell_of[neighbour] != cell:
                    yield start, np.subtract(cell, cell_of[neighbour])


def _is_extended(bonds: Bonds) -> bool:
    """Whether a walk along bonds can reach an atom's own image in another cell."""
    return next(_loops(bonds), None) is not None


def _rank(bonds: Bonds) -> int:
    """Largest number of independent directions in which one piece repeats itself."""
    loops: dict[int, list[Array]] = defaultdict(list)
    for piece, vector in _loops(bonds):
        loops[piece].append(vector)
    return max((int(np.linalg.matrix_rank(np.array(v))) for v in loops.values()), default=0)


@functools.cache
def _radii() -> dict[str, float]:
    from pymatgen.analysis.local_env import JmolNN

    return dict(JmolNN().el_radius)


def _dimensionality(structure: Structure) -> int:
    from pymatgen.analysis.dimensionality import get_dimensionality_larsen
    from pymatgen.analysis.graphs import StructureGraph
    from pymatgen.analysis.local_env import CrystalNN

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = StructureGraph.from_local_env_strategy(structure, CrystalNN())
        except ValueError:  # no Voronoi cell: the atoms are too far apart to be bonded
            return 0
    return int(get_dimensionality_larsen(graph))
