"""A crystal reduced by its symmetry: what the networks have to look at, and no more.

Atoms that the space group makes equivalent have the same features up to a rotation, so one of them
speaks for all: a mean over atoms followed by the projection on the point group equals the mean over
representatives, weighted by their multiplicity, followed by the same projection.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from screening.symmetry import Cell, crystal_operations, primitive_cell

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.encoder import FeatureLayout

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Crystal:
    """A primitive cell and its symmetry-inequivalent atoms.

    Attributes
    ----------
    cell
        Primitive cell in the Cartesian frame of the structure it came from.
    rotations, permutations
        Space group, (g, 3, 3) and (g, n), see :func:`screening.symmetry.crystal_operations`.
    representatives
        One atom of each orbit, (r,).
    owner, turns
        For each atom its orbit, (n,), and a rotation that takes a tensor of the representative to
        this atom, (n, 3, 3).
    """

    cell: Cell
    rotations: Array
    permutations: Indices
    representatives: Indices
    owner: Indices
    turns: Array

    @classmethod
    def of(cls, structure: Structure) -> Crystal:
        """Reduce a structure."""
        cell = primitive_cell(structure)
        rotations, permutations = crystal_operations(cell)
        owner = np.full(len(cell[2]), -1)
        turns = np.zeros((len(cell[2]), 3, 3))
        representatives: list[int] = []
        for atom in range(len(owner)):
            if owner[atom] >= 0:
                continue
            places, first = np.unique(permutations[:, atom], return_index=True)
            new = owner[places] < 0
            owner[places[new]] = len(representatives)
            turns[places[new]] = rotations[first[new]]
            representatives.append(atom)
        return cls(cell, rotations, permutations, np.array(representatives), owner, turns)

    @property
    def volume(self) -> float:
        """Of the primitive cell, in Å³."""
        return float(abs(np.linalg.det(self.cell[0])))

    @property
    def weights(self) -> Array:
        """Share of the atoms in each orbit, (r,)."""
        return np.bincount(self.owner, minlength=len(self.representatives)) / len(self.owner)

    def reduced(self, rows: NDArray[Any], layout: FeatureLayout) -> NDArray[np.float32]:
        """Features of all atoms (n, width) → of the representatives (r, width).

        The mean over all operations, each turned back: it does not depend on which atom of an orbit
        stands for it, even where the crystal is symmetric only within the tolerance.
        """
        scalars, vectors, tensors = _split(rows.astype(np.float32), layout)
        turned_back = np.swapaxes(self.rotations, 1, 2)
        rank2 = _rank2_rotations(turned_back).astype(np.float32)
        turned_back = turned_back.astype(np.float32)
        found = np.empty((len(self.representatives), rows.shape[1]), dtype=np.float32)
        n = len(self.rotations)
        for k, atom in enumerate(self.representatives):
            images = self.permutations[:, atom]
            v = np.tensordot(vectors[images], turned_back, axes=([0, 2], [0, 2])) / n
            t = np.tensordot(tensors[images], rank2, axes=([0, 2], [0, 2])) / n
            found[k] = np.concatenate([scalars[images].mean(axis=0), v.ravel(), t.ravel()])
        return found

    def reduced_tensors(self, tensors: Array) -> Array:
        """The same for one 3×3 tensor per atom: (n, 3, 3) → (r, 3, 3)."""
        back = np.swapaxes(self.rotations, 1, 2)
        images = self.permutations[:, self.representatives]
        turned = np.einsum("gij,grjk,gkl->ril", back, tensors[images], self.rotations)
        return np.asarray(turned / len(self.rotations))

    def site_symmetric(self, tensors: Array) -> Array:
        """The part of the representatives' tensors (r, 3, 3) that their sites allow."""
        return self.reduced_tensors(self.expanded_tensors(tensors))

    def expanded_tensors(self, tensors: Array) -> Array:
        """Tensors of the representatives (..., r, 3, 3) → of all atoms (..., n, 3, 3)."""
        return np.asarray(
            self.turns @ tensors[..., self.owner, :, :] @ np.swapaxes(self.turns, 1, 2)
        )


def _split(
    rows: NDArray[np.float32], layout: FeatureLayout
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    s, v = layout.scalars, layout.scalars + 3 * layout.vectors
    return (
        rows[:, :s],
        rows[:, s:v].reshape(len(rows), layout.vectors, 3),
        rows[:, v:].reshape(len(rows), layout.tensors, 5),
    )


def _rank2_rotations(rotations: Array) -> Array:
    """Matrices (g, 5, 5) that turn the components of a traceless symmetric tensor."""
    basis = _basis()
    turned = np.einsum("aij,gik,gjl,bkl->gab", basis, rotations, rotations, basis, optimize=True)
    return np.asarray(turned)


@functools.cache
def _basis() -> Array:
    from models.encoder import rank2_basis

    return np.asarray(rank2_basis().numpy())
