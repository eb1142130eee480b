"""Dielectric tensors and the one gate through which they enter from outside.

A tensor means nothing without the Cartesian frame it is written in, so every function here takes
the structure that defines the frame together with the tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from screening.errors import UserError
from screening.symmetry import asymmetry, point_group_rotations, project

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]

SYMMETRY_TOLERANCE = 0.05
"""Largest deviation from the point group that counts as numerical noise, relative to the largest
element (or to 1, the permittivity of vacuum, where all elements are smaller). DFPT on finite meshes
breaks symmetry by 1e-4 to 1e-2; a tensor in a wrong frame is off by 0.1 to 1."""

ROUNDING = 1e-12
"""What arithmetic leaves of a difference, relative to the largest element (or to 1)."""


@dataclass(frozen=True)
class DielectricTensors:
    """Relative permittivity of one crystal, in the Cartesian frame of its structure.

    Attributes
    ----------
    electronic
        High-frequency tensor ε∞, shape (3, 3), or None where unknown.
    ionic
        Lattice contribution, shape (3, 3), or None where unknown.
    """

    electronic: Array | None
    ionic: Array | None

    @property
    def static(self) -> Array | None:
        """Static permittivity, electronic + ionic (the papers' "total"), shape (3, 3)."""
        if self.electronic is None or self.ionic is None:
            return None
        return self.electronic + self.ionic

    def rotated(self, rotation: Array) -> DielectricTensors:
        """The same tensors in a frame turned by the orthogonal matrix ``rotation`` (3, 3)."""
        electronic, ionic = (
            None if t is None else rotation @ t @ rotation.T for t in (self.electronic, self.ionic)
        )
        return DielectricTensors(electronic, ionic)

    def to_dict(self) -> dict[str, Any]:
        """Nested lists, ready for JSON."""
        return {
            "electronic": None if self.electronic is None else self.electronic.tolist(),
            "ionic": None if self.ionic is None else self.ionic.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DielectricTensors:
        """Inverse of :meth:`to_dict`."""
        parts = (data.get(name) for name in ("electronic", "ionic"))
        electronic, ionic = (None if p is None else np.asarray(p, dtype=float) for p in parts)
        return cls(electronic, ionic)


def mean_permittivity(tensor: Array) -> Array:
    """Orientational mean ε̄ = trace/3 of tensors of shape (..., 3, 3)."""
    return np.asarray(np.trace(tensor, axis1=-2, axis2=-1) / 3.0)


def read_tensor(value: Any, structure: Structure, what: str) -> Array:
    """Take in a tensor from outside, written in the frame of ``structure``.

    Parameters
    ----------
    value
        Anything that should be a real symmetric 3×3 matrix.
    structure
        The crystal whose Cartesian frame the tensor is written in.
    what
        What is being read and where, for the message: ``"eps_electronic of mp-149"``.

    Returns
    -------
    Array
        The tensor, shape (3, 3), with numerical noise removed: symmetric, and exactly invariant
        under the point group of the crystal.

    Raises
    ------
    UserError
        Not 3×3, not finite, not symmetric, or not invariant under the crystal's point group.
    """
    tensor = as_matrix(value, what)
    scale = max(float(np.abs(tensor).max()), 1.0)
    skew = float(np.abs(tensor - tensor.T).max())
    if skew > SYMMETRY_TOLERANCE * scale:
        raise UserError(
            f"{what} is not symmetric (ε_ij and ε_ji differ by up to {skew:.3g}); "
            "a dielectric tensor is symmetric: check the order of its elements."
        )
    tensor = (tensor + tensor.T) / 2
    isotropic = np.diag(np.full(3, np.trace(tensor) / 3))
    if np.abs(tensor - isotropic).max() <= ROUNDING * scale:
        return isotropic  # invariant under every point group, which need not be looked for
    rotations = point_group_rotations(structure)
    deviation = asymmetry(tensor, rotations) * float(np.abs(tensor).max()) / scale
    if deviation > SYMMETRY_TOLERANCE:
        raise UserError(
            f"{what} is not invariant under the point group of its structure (off by "
            f"{deviation:.0%}); it is probably written in another Cartesian "
            "frame: give it in the frame of the structure in the same record."
        )
    return project(tensor, rotations)


def as_matrix(value: Any, what: str) -> Array:
    """``value`` as a finite 3×3 float matrix; nested sequences of any kind are understood.

    Raises
    ------
    UserError
        Not 3×3 or not finite.
    """
    try:
        rows = [[float(element) for element in row] for row in value]
        tensor = np.array(rows, dtype=float)
    except (TypeError, ValueError):
        raise UserError(
            f"{what} is not a 3×3 tensor of numbers; give three rows of three."
        ) from None
    if tensor.shape != (3, 3):
        raise UserError(
            f"{what} is not a 3×3 tensor (its shape is {tensor.shape}); give three rows of three."
        )
    if not np.isfinite(tensor).all():
        raise UserError(
            f"{what} contains NaN or infinity; leave the cell empty where a tensor is not known."
        )
    return tensor
