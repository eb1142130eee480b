"""Crystals as graphs: atoms, and edges to neighbours across the borders of the cell."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from models.crystal import Crystal
from screening.symmetry import Cell

Array = NDArray[np.float64]

FIRST_CUTOFF = 6.0
"""Å within which the nearest neighbours are looked for first."""
SHELL = 0.01
"""Å: neighbours no further than this beyond the last one wanted belong to its shell."""
GROWTH = 1.4


def neighbours(cell: Cell, cutoff: float) -> tuple[NDArray[np.int64], Array]:
    """Edges (2, e), receiver first, and vectors from receiver to sender (e, 3) in Å."""
    from matscipy.neighbours import neighbour_list

    lattice, positions, _ = cell
    i, j, vectors = neighbour_list(
        "ijD", pbc=[True] * 3, cell=lattice, positions=positions @ lattice, cutoff=cutoff
    )
    return np.stack([i, j]).astype(np.int64), np.asarray(vectors, dtype=float)


def nearest(cell: Cell, count: int) -> tuple[NDArray[np.int64], Array]:
    """The same for the ``count`` nearest neighbours of each atom, the last shell whole."""
    n_atoms, cutoff = len(cell[2]), FIRST_CUTOFF
    while True:
        edges, vectors = neighbours(cell, cutoff)
        if np.bincount(edges[0], minlength=n_atoms).min() >= count:
            break
        cutoff *= GROWTH
    lengths = np.linalg.norm(vectors, axis=1)
    limit = np.array([np.sort(lengths[edges[0] == i])[count - 1] for i in range(n_atoms)])
    kept = lengths <= limit[edges[0]] + SHELL
    return edges[:, kept], vectors[kept]


def graph(
    species: NDArray[np.int64], edges: NDArray[np.int64], vectors: Array, **more: Array
) -> Data:
    """A graph; ``more`` holds properties of the crystal as a whole, each with one row.

    Attributes of the graph: ``z`` (n,), ``edge_index`` (2, e) with the receiver FIRST, ``vectors``
    (e, 3) in Å.
    """
    found = Data(
        z=torch.as_tensor(np.array(species, dtype=np.int64)),
        edge_index=torch.as_tensor(edges),
        vectors=tensor(vectors),
        **{name: tensor(value[None]) for name, value in more.items()},
    )
    found.num_nodes = len(species)
    return found


def tensor(values: Any) -> Tensor:
    """In the precision that networks are made in."""
    return torch.as_tensor(np.asarray(values), dtype=torch.get_default_dtype())


def spherical_basis() -> Tensor:
    """The matrices (5, 3, 3) of :func:`models.encoder.rank2_basis`, whose squared elements are
    sixths, to the last digit instead of in single precision."""
    from models.encoder import rank2_basis

    basis = rank2_basis()
    return tensor(torch.sign(basis) * (torch.round(6 * basis.square()) / 6).sqrt())


def projector(crystal: Crystal) -> Array:
    """Projection on the point group, (9, 9), that acts on flattened tensors."""
    r = crystal.rotations
    return np.asarray(np.einsum("gij,gkl->ikjl", r, r).reshape(9, 9) / len(r))


def apply_projector(projectors: Tensor, tensors: Tensor) -> Tensor:
    """Tensors (b, 3, 3) → what the crystals' point groups allow of them."""
    return torch.einsum("bij,bj->bi", projectors, tensors.flatten(1)).reshape(tensors.shape)


@functools.cache
def _atom_table() -> Array:
    """CGCNN's categories of the elements, (119, 93) zeros and ones."""
    from pymatgen.core import Element

    numbers = np.full((119, 5), np.nan)
    classes = np.zeros((119, 18 + 9 + 12 + 4))
    for element in Element:
        z = element.Z
        if z > 118 or element.symbol in ("D", "T"):
            continue
        numbers[z] = [
            _number(element, name)
            for name in (
                "X", "atomic_radius", "ionization_energy", "electron_affinity", "molar_volume",
            )
        ]  # fmt: skip
        valence = element.group - (10 if element.block == "p" and z > 2 else 0)
        classes[z, min(element.group, 18) - 1] = 1
        classes[z, 18 + element.row - 1] = 1
        classes[z, 27 + min(max(valence, 1), 12) - 1] = 1
        classes[z, 39 + "spdf".index(element.block)] = 1
    binned = []
    for column in numbers.T:
        known = np.isfinite(column)
        edges = np.quantile(column[known], np.linspace(0, 1, 11)[1:-1])
        rows = np.zeros((119, 10))
        rows[known, np.searchsorted(edges, column[known])] = 1
        binned.append(rows)
    return np.concatenate([classes, *binned], axis=1)


def _number(element: Any, name: str) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = getattr(element, name)
        except KeyError:  # pymatgen's table of the element lacks it
            value = None
    return float("nan") if value is None else float(value)


def atom_features() -> Tensor:
    """Categories of each element by atomic number, (119, c): group, period, valence electrons,
    block, and tenths of electronegativity, radius, ionisation energy, electron affinity and volume
    (Xie and Grossman, Phys. Rev. Lett. 120, 145301 (2018), Table I of the supplement).
    """
    return tensor(_atom_table())
