"""Point-group symmetry of crystals and of tensors, exact to machine precision.

Space-group operations found by spglib hold only within a tolerance. Rotations made from them are
therefore exactly orthogonal and form a group only after the metric of the lattice has been averaged
over the group; this module does so, and all projections rest on it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]

SYMPREC = 0.01
"""Distance tolerance in Å of the symmetry search, the Materials Project's value."""

Cell = tuple[Array, Array, NDArray[np.int64]]
"""Lattice vectors as rows (3, 3) in Å, fractional positions (n, 3), species numbers (n,)."""


def cell_of(structure: Structure) -> Cell:
    """Lattice, positions and species of an ordered structure, as spglib wants them."""
    species = np.array([site.specie.Z for site in structure], dtype=np.int64)
    return np.array(structure.lattice.matrix), np.array(structure.frac_coords), species


def primitive_cell(structure: Structure) -> Cell:
    """A primitive cell of the crystal in the SAME Cartesian orientation as ``structure``.

    A supercell, a conventional cell and a primitive cell of one crystal all lead to cells with the
    same atoms; where no smaller cell is found, the cell is returned as it is.
    """
    return _primitive(*_to_bytes(cell_of(structure)))


@functools.lru_cache(maxsize=50_000)
def _primitive(lattice: bytes, positions: bytes, species: bytes) -> Cell:
    import spglib

    cell = _from_bytes(lattice, positions, species)
    operations = _operations(lattice, positions, species)
    if operations is None or operations.is_primitive:
        return cell
    given: Any = cell
    found = spglib.standardize_cell(given, to_primitive=True, no_idealize=True, symprec=SYMPREC)
    if found is None or len(found[2]) >= len(cell[2]):
        return cell
    return np.array(found[0]), np.array(found[1]), np.array(found[2], dtype=np.int64)


@dataclass(frozen=True)
class _Operations:
    """What spglib finds: fractional rotations (n, 3, 3) and translations (n, 3), and whether no
    smaller cell will do."""

    rotations: NDArray[np.int32]
    translations: Array
    is_primitive: bool


@functools.lru_cache(maxsize=50_000)
def _operations(lattice: bytes, positions: bytes, species: bytes) -> _Operations | None:
    import spglib

    given: Any = _from_bytes(lattice, positions, species)  # arrays, whatever annotations say
    found = spglib.get_symmetry_dataset(given, symprec=SYMPREC)
    if found is None:
        return None
    alone = len(np.unique(found.mapping_to_primitive)) == len(given[2])
    return _Operations(found.rotations, found.translations, alone)


def _to_bytes(cell: Cell) -> tuple[bytes, bytes, bytes]:
    lattice, positions, species = cell
    return (
        np.asarray(lattice, dtype=float).tobytes(),
        np.asarray(positions, dtype=float).tobytes(),
        np.asarray(species, dtype=np.int64).tobytes(),
    )


def _from_bytes(lattice: bytes, positions: bytes, species: bytes) -> Cell:
    return (
        np.frombuffer(lattice, dtype=float).reshape(3, 3),
        np.frombuffer(positions, dtype=float).reshape(-1, 3),
        np.frombuffer(species, dtype=np.int64),
    )


def point_group_rotations(structure: Structure) -> Array:
    """Cartesian rotations (proper and improper) of the crystal's point group.

    Returns
    -------
    Array
        Shape (n, 3, 3), orthogonal to machine precision and closed under multiplication, in the
        Cartesian frame of ``structure``; independent of which cell describes the crystal.
    """
    return _rotations(*_to_bytes(primitive_cell(structure)))


@functools.lru_cache(maxsize=50_000)
def _rotations(lattice_bytes: bytes, position_bytes: bytes, species_bytes: bytes) -> Array:
    operations = _operations(lattice_bytes, position_bytes, species_bytes)
    if operations is None:
        return np.eye(3)[None]
    lattice = _from_bytes(lattice_bytes, position_bytes, species_bytes)[0]
    rotations = _exact(np.unique(operations.rotations, axis=0).astype(float), lattice.T)
    rotations.flags.writeable = False
    return rotations


def crystal_operations(cell: Cell) -> tuple[Array, NDArray[np.int64]]:
    """Space-group operations of a primitive cell, modulo lattice translations.

    Returns
    -------
    rotations
        Cartesian, (n, 3, 3), orthogonal to machine precision.
    permutations
        (n, atoms): operation k takes atom i to the place of atom ``permutations[k, i]``.
    """
    lattice, positions, _ = cell
    found = _operations(*_to_bytes(cell))
    if found is None:
        return np.eye(3)[None], np.arange(len(positions))[None]
    fractional = found.rotations.astype(float)
    moved = np.einsum("nij,aj->nai", fractional, positions) + found.translations[:, None]
    difference = moved[:, :, None] - positions
    difference -= np.round(difference)
    distance = np.linalg.norm(difference @ lattice, axis=-1)
    permutations = distance.argmin(axis=-1)
    one_to_one = (np.sort(permutations, axis=-1) == np.arange(len(positions))).all(axis=-1)
    return _exact(fractional[one_to_one], cell[0].T), permutations[one_to_one]


def _exact(fractional: Array, columns: Array) -> Array:
    """Cartesian rotations of a group of fractional ones, orthogonal to machine precision.

    Columns of the lattice transform as a' = a W, so a rotation in the Cartesian frame is a W a^-1.
    It is orthogonal if W keeps the metric G = a^T a; the mean over the group does.
    """
    metric = columns.T @ columns
    metric = np.mean([w.T @ metric @ w for w in fractional], axis=0)
    ideal = _columns_with_metric(columns, metric)
    return np.asarray(ideal @ fractional @ np.linalg.inv(ideal))


def _columns_with_metric(columns: Array, metric: Array) -> Array:
    """Lattice columns with the given metric in the orientation nearest to ``columns``."""
    upper = np.linalg.cholesky(metric).T
    u, _, vt = np.linalg.svd(columns @ np.linalg.inv(upper))
    return np.asarray(u @ vt @ upper)


def project(tensor: Array, rotations: Array) -> Array:
    """Mean of R T Rᵀ over the group: the part of ``tensor`` (..., 3, 3) that the crystal allows."""
    mean = np.einsum("nij,...jk,nlk->...il", rotations, tensor, rotations) / len(rotations)
    return np.asarray((mean + np.swapaxes(mean, -1, -2)) / 2)


def asymmetry(tensor: Array, rotations: Array) -> float:
    """Largest |T − project(T)| relative to the largest |T|, for one tensor (3, 3)."""
    scale = float(np.abs(tensor).max())
    if scale == 0.0:
        return 0.0
    return float(np.abs(tensor - project(tensor, rotations)).max()) / scale
