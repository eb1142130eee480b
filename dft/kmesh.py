"""Meshes of k-points that the point group of a crystal maps on themselves.

A mesh that contains Γ puts weight where direct gaps are smallest, and overestimates the response
until it is dense; one that is shifted off the symmetry axes needs a fraction of the points
(H. J. Monkhorst and J. D. Pack, Phys. Rev. B 13, 5188 (1976)). Which shifts a lattice allows is
simplest in its conventional cell, so that is where meshes are laid, whatever cell is given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

SHIFTS = (
    (0.5, 0.5, 0.5), (0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5),
    (0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.5), (0.0, 0.0, 0.0),
)  # fmt: skip
"""Half a step along all three, two, one or none of the axes."""
FIRST_TRIGONAL, LAST_HEXAGONAL = 143, 194
"""Space groups whose conventional cell has a threefold or sixfold axis along c."""
SAME = 1e-6
"""Rounding of fractions."""
SYMPREC = 0.01
"""Distance in Å within which atoms are equivalent."""


@dataclass(frozen=True)
class Mesh:
    """The points k for which k·R is a whole number of turns, plus the shift, for every R.

    Attributes
    ----------
    superlattice
        (3, 3): its rows are the vectors R, in lattice vectors of the crystal.
    shift
        In steps of the mesh.
    divisions
        Steps along each axis of the conventional cell.
    """

    superlattice: Integers
    shift: tuple[float, float, float]
    divisions: tuple[int, int, int]

    @classmethod
    def around_gamma(cls, divisions: Sequence[int]) -> Mesh:
        """A mesh along the vectors of the lattice given, with Γ as one of its points."""
        a, b, c = divisions
        return cls(np.diag([a, b, c]), (0.0, 0.0, 0.0), (a, b, c))

    def __str__(self) -> str:
        return "×".join(map(str, self.divisions)) + (" shifted" if any(self.shift) else "")

    def __len__(self) -> int:
        return abs(round(float(np.linalg.det(self.superlattice))))

    def keeps(self, rotations: Integers) -> bool:
        """Whether the operations, on fractions of the crystal's lattice, map it on itself."""
        steps = self.superlattice.T
        turned = np.linalg.inv(steps) @ rotations @ steps
        moved = self.shift @ turned - self.shift
        return bool(_whole(turned) and _whole(moved))

    def points(self) -> Integers:
        """All points, (n, 3), in units of 1/(2n) of the reciprocal vectors, from 0 to 2n − 1."""
        n = len(self)
        # The conventional cell holds so many primitive ones; its mesh repeats as often.
        repeats = n // math.prod(self.divisions)
        steps = [*itertools.product(*(range(repeats * d) for d in self.divisions))]
        fractions = (np.array(steps) + self.shift) @ np.linalg.inv(self.superlattice).T
        return np.unique(np.rint(fractions * 2 * n).astype(np.int64) % (2 * n), axis=0)

    def irreducible(self, rotations: Integers) -> int:
        """Points that neither an operation nor time reversal connects."""
        if not self.keeps(rotations):
            return math.ceil(len(self) / 2)
        points, period = self.points(), 2 * len(self)
        place = np.array([period**2, period, 1])
        least = points @ place
        # k is a row vector: k·r. In a group, the least of all images is that of a whole orbit.
        for matrix in (*rotations, *(-rotations)):
            least = np.minimum(least, points @ matrix % period @ place)
        return len(np.unique(least))


def mesh_of(structure: Structure, spacing: float, *, shifted: bool = True) -> Mesh:
    """Mesh whose points are at most ``spacing`` (1/Å, 2π included) apart along each axis.

    Parameters
    ----------
    shifted
        Shifted along as many axes as the point group allows. Otherwise Γ is one of the points, and
        so are the special points on the surface of the zone, where band edges lie: divisions are
        even, and multiples of six across the axis of a hexagonal lattice.
    """
    found = _symmetry(structure)
    cell = _conventional(found)
    lattice = cell @ structure.lattice.matrix
    lengths = np.linalg.norm(2 * np.pi * np.linalg.inv(lattice).T, axis=1)
    # Rounding noise must not give equal axes different divisions.
    least = [max(1, math.ceil(round(length / spacing, 6))) for length in lengths]
    steps = (1, 1, 1) if shifted else _steps_to_the_surface(found)
    a, b, c = (step * math.ceil(n / step) for n, step in zip(least, steps, strict=True))
    superlattice = np.diag([a, b, c]) @ cell
    meshes = [
        Mesh(superlattice, shift, (a, b, c)) for shift in (SHIFTS if shifted else SHIFTS[-1:])
    ]
    rotations = _rotations(found)
    # A supercell that is longer along one of its equivalent axes than along another has none.
    return next((mesh for mesh in meshes if mesh.keeps(rotations)), meshes[-1])


def rotations_of(structure: Structure) -> Integers:
    """The point group as matrices on fractional coordinates, (m, 3, 3)."""
    return _rotations(_symmetry(structure))


def conventional(structure: Structure) -> Integers:
    """The vectors of the conventional cell as rows, in lattice vectors of the crystal, (3, 3).

    The identity where the lattice given does not have them (a supercell).
    """
    return _conventional(_symmetry(structure))


def _rotations(found: Any) -> Integers:
    rotations = np.eye(3)[None] if found is None else found.rotations
    return np.unique(np.asarray(rotations, dtype=np.int64), axis=0)


def _conventional(found: Any) -> Integers:
    cell = np.eye(3) if found is None else np.linalg.inv(found.transformation_matrix).T
    return np.rint(cell if _whole(cell, 1e-3) else np.eye(3)).astype(np.int64)


def _steps_to_the_surface(found: Any) -> tuple[int, int, int]:
    """What divisions must be multiples of for L, X, M, R, A (halves) and K, H (thirds)."""
    hexagonal = (
        found is not None
        and FIRST_TRIGONAL <= found.number <= LAST_HEXAGONAL
        and found.international.startswith("P")
    )
    return (6, 6, 2) if hexagonal else (2, 2, 2)


def _symmetry(structure: Structure) -> Any:
    import spglib

    from screening.symmetry import cell_of

    cell: Any = cell_of(structure)
    return spglib.get_symmetry_dataset(cell, symprec=SYMPREC)


def _whole(numbers: Array, tolerance: float = SAME) -> bool:
    return bool(np.abs(numbers - np.rint(numbers)).max() < tolerance)
