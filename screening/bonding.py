"""Dimensionality of the bonding network."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Structure


def is_molecular(structure: Structure) -> bool:
    """Whether the crystal consists of molecules: bonding of dimensionality 0 (Larsen et al. 2019).

    Bonds are first taken from covalent radii, which is quick but misses ionic bonds; a crystal that
    falls apart so is looked at again with Voronoi-based neighbours (CrystalNN).
    """
    from pymatgen.analysis.local_env import CrystalNN, JmolNN

    return _dimensionality(structure, JmolNN()) == 0 and _dimensionality(structure, CrystalNN()) == 0


def _dimensionality(structure: Structure, neighbours: object) -> int:
    from pymatgen.analysis.dimensionality import get_dimensionality_larsen
    from pymatgen.analysis.graphs import StructureGraph

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = StructureGraph.from_local_env_strategy(structure, neighbours)
        except ValueError:  # no Voronoi cell: the atoms are too far apart to be bonded
            return 0
    return int(get_dimensionality_larsen(graph))
