"""From the IEEE frame, in which the Materials Project stores tensors, to the structure's own.

The frame follows from the structure alone (IEEE 176-1987; de Jong et al., Sci. Data 2, 150053
(2015)), so it can be found again and undone: ε = R⁻¹ ε_IEEE R⁻ᵀ. That fails where axes are told
apart by their lengths and these nearly tie: the structure that a tensor was calculated on may order
them differently from the structure at hand. Every order that a slight difference could have
produced is tried, and a tensor that depends on the order is refused.

What cannot be undone is the average over the point group that the project takes before: its
operations are found with a tolerance of 0.1 Å, and are rotations only as nearly as the lattice has
the symmetry. A calculated tensor that breaks the symmetry by a fraction a, averaged with operations
that are off by δ, comes back with an error of the order of a·δ: see docs/sources.md for how much.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from screening.symmetry import SYMPREC, cell_of, point_group_rotations

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]

SAME_VOLUME = 1e-5
"""Relative difference in volume below which two structures are taken to be the same one."""
TIE = 1e-5
"""Relative difference of lengths that tie even if the structure is the same one."""
TIE_OTHER = 0.01
"""The same for another relaxation of the structure: lattice constants move by up to 1 %."""
RIGHT_ANGLE = 0.005
RIGHT_ANGLE_OTHER = 1.0
"""Degrees from 90 within which an angle may as well be on the other side."""
HARMLESS = 0.01
"""Largest relative change of a tensor by another order of axes that is still let through."""
ANGLE_TOLERANCE = 5.0
"""Degrees, pymatgen's value, which the frames rest on."""
MP_SYMPREC = 0.1
"""Å; tensors are symmetrised by the Materials Project with this tolerance."""

SYSTEMS = ((2, "triclinic"), (15, "monoclinic"), (74, "orthorhombic"), (142, "tetragonal"),
           (167, "trigonal"), (194, "hexagonal"), (230, "cubic"))  # fmt: skip
ELEMENTS = {"triclinic": 6, "monoclinic": 4, "orthorhombic": 3, "tetragonal": 2, "trigonal": 2,
            "hexagonal": 2, "cubic": 1}  # fmt: skip


class UnplaceableError(Exception):
    """Why a tensor cannot be written in the structure's frame; one of a fixed list of reasons."""


def place(tensors: Array, structure: Structure, same_structure: bool) -> Array:
    """Tensors in the structure's frame.

    Parameters
    ----------
    tensors
        Symmetric tensors in the IEEE frame, shape (n, 3, 3).
    structure
        The crystal; its Cartesian frame is the one wanted.
    same_structure
        Whether the tensors were calculated on exactly this structure, as far as is known.

    Returns
    -------
    Array
        Shape (n, 3, 3).

    Raises
    ------
    UnplaceableError
        The frame does not follow from the structure, or not reliably.
    """
    from pymatgen.core.tensors import Tensor

    axes = _conventional(structure)
    try:
        # pymatgen's annotation wants no more than an array in the end.
        rotation = np.asarray(Tensor.get_ieee_rotation(structure), dtype=float)
    except ValueError:
        raise UnplaceableError("IEEE frame undefined: axes of equal length") from None
    placed = rotate_back(tensors, rotation)
    scale = np.abs(placed).max(axis=(1, 2), initial=1.0)
    for other in _other_orders(axes, same_structure):
        change = np.abs(rotate_back(tensors, other) - placed).max(axis=(1, 2))
        if (change > HARMLESS * scale).any():
            raise UnplaceableError("IEEE frame ambiguous: axes or angles nearly tie")
    return placed


def rotate_back(tensors: Array, rotation: Array) -> Array:
    """R⁻¹ T R⁻ᵀ for tensors (n, 3, 3), ``rotation`` having the new axes as rows.

    The inverse and not the transpose: pymatgen's rotations are orthogonal to 1e-6 only.
    """
    inverse = np.linalg.inv(rotation)
    return np.asarray(np.einsum("ij,njk,lk->nil", inverse, tensors, inverse))


def averaged_group(structure: Structure) -> int:
    """Number of the space group that the Materials Project averages over; 1 if none is found."""
    dataset = _dataset(structure, MP_SYMPREC)
    return int(dataset.number) if dataset is not None else 1


def _dataset(structure: Structure, symprec: float) -> Any:
    lattice, positions, species = cell_of(structure)
    return _dataset_of(lattice.tobytes(), positions.tobytes(), species.tobytes(), symprec)


@functools.lru_cache(maxsize=8)
def _dataset_of(lattice: bytes, positions: bytes, species: bytes, symprec: float) -> Any:
    import spglib

    cell: Any = (
        np.frombuffer(lattice, dtype=float).reshape(3, 3),
        np.frombuffer(positions, dtype=float).reshape(-1, 3),
        np.frombuffer(species, dtype=np.int64),
    )
    return spglib.get_symmetry_dataset(cell, symprec=symprec, angle_tolerance=ANGLE_TOLERANCE)


def crystal_system(number: int) -> str:
    """Crystal system of a space group."""
    return next(name for last, name in SYSTEMS if number <= last)


def independent_elements(number: int) -> int:
    """Independent elements of a symmetric tensor under a space group.

    Within the uniaxial systems a higher group takes nothing more away.
    """
    return ELEMENTS[crystal_system(number)]


def elements_left(structure: Structure) -> int:
    """The same under the point group that all tensors of ``structure`` are projected on.

    The mean over the group of the character of the symmetric square, ((tr R)² + tr R²)/2.
    """
    rotations = point_group_rotations(structure)
    traces = np.trace(rotations, axis1=1, axis2=2)
    squares = np.trace(rotations @ rotations, axis1=1, axis2=2)
    return round(float(np.mean(traces**2 + squares) / 2))


class _Axes:
    """Conventional axes as rows, in Å, in the structure's frame."""

    def __init__(self, vectors: Array, system: str) -> None:
        self.vectors = vectors
        self.system = system
        self.lengths = np.linalg.norm(vectors, axis=1)
        self.units = vectors / self.lengths[:, None]
        cosines = [self.units[j] @ self.units[k] for j, k in ((1, 2), (0, 2), (0, 1))]
        self.angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def _conventional(structure: Structure) -> _Axes:
    """The axes that the IEEE rules speak of, exactly as pymatgen takes them."""
    dataset = _dataset(structure, SYMPREC)
    if dataset is None:
        raise UnplaceableError("no symmetry found")
    columns = structure.lattice.matrix.T @ np.linalg.inv(dataset.transformation_matrix)
    return _Axes(np.asarray(columns.T), crystal_system(int(dataset.number)))


def _other_orders(axes: _Axes, same_structure: bool) -> Iterator[Array]:
    """Rotations that the rules give for structures differing slightly from this one."""
    tie = TIE if same_structure else TIE_OTHER
    slack = RIGHT_ANGLE if same_structure else RIGHT_ANGLE_OTHER
    units = axes.units

    def orders(indices: list[int]) -> Iterator[tuple[int, ...]]:
        """Orders by ascending length, where near ties may go either way."""
        for order in itertools.permutations(indices):
            lengths = axes.lengths[list(order)]
            if all(b > a * (1 - tie) for a, b in itertools.pairwise(lengths)):
                yield order

    match axes.system:
        case "orthorhombic":
            for c, a, b in orders([0, 1, 2]):
                yield units[[a, b, c]]
        case "tetragonal":
            # The unique axis is the one whose length differs; it cannot be told when all tie.
            if np.ptp(axes.lengths) < tie * axes.lengths.max():
                for c in range(3):
                    a = (c + 1) % 3
                    yield np.array([units[a], np.cross(units[c], units[a]), units[c]])
        case "monoclinic":
            deviation = np.abs(axes.angles - 90)
            unique = [int(np.argmax(deviation))]
            if deviation.max() < slack:
                unique = [0, 1, 2]
            for b in unique:
                rest = [i for i in range(3) if i != b]
                for c, _ in orders(rest):
                    x2, x3 = units[b], units[c]
                    for sign in (1, -1) if abs(axes.angles[b] - 90) < slack else (1,):
                        yield np.array([np.cross(x2, x3), x2, sign * x3])
        case "triclinic":
            for order in orders([0, 1, 2]):
                first, third = units[order[0]], units[order[2]]
                signs = (1, -1) if np.abs(axes.angles - 90).min() < slack else (1,)
                for sign in signs:
                    x2 = np.cross(third, sign * first)
                    x2 /= np.linalg.norm(x2)
                    yield np.array([np.cross(x2, third), x2, third])
