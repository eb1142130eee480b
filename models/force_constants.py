"""Γ-point force constants of a crystal from the open potential's forces.

Φ[iα, jβ] is the second derivative of the energy per cell with respect to the displacements of atoms
i and j, each with all its periodic images. Only symmetry-inequivalent displacements are evaluated;
the rest follows from the space group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from screening.symmetry import Cell, crystal_operations

if TYPE_CHECKING:
    from models.crystal import Crystal
    from models.potential import Potential

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

STEP = 0.015
"""Displacement in Å; central differences."""
TRIALS = np.array([[0.61, 0.37, 0.70], [-0.52, 0.78, 0.35], [0.66, -0.44, 0.61]])
"""Directions tried in turn, along no axis of anything."""
INDEPENDENT = 0.1
"""Smallest singular value of a set of unit vectors that is taken to span the space."""


def force_constants(cell: Cell, potential: Potential) -> Array:
    """Force constants of a primitive cell of n atoms.

    The potential is invariant under rotations but not exactly under inversion. Displacements are
    therefore reduced by the proper operations only, and the result is averaged over the whole
    space group, or over both hands of a crystal that has only proper operations; so it is exactly
    what an O(3)-invariant potential (the mean of the two hands) would give.

    Returns
    -------
    Array
        Symmetric (3n, 3n) in eV/Å², Cartesian, atom by atom; rigid translations cost nothing.
    """
    rotations, permutations = crystal_operations(cell)
    proper = np.linalg.det(rotations) > 0
    hands = (1, -1) if proper.all() else (1,)
    plan = _Plan(rotations[proper], permutations[proper])
    one_sided = STEP * plan.displacements()
    displacements = np.concatenate([one_sided, -one_sided])
    blocks = np.zeros((plan.n_atoms, plan.n_atoms, 3, 3))
    for hand in hands:
        plus, minus = np.split(potential.forces(cell, displacements, hand), 2)
        blocks += plan.blocks((minus - plus) / (2 * STEP)) / len(hands)
    blocks = _average(blocks, rotations, permutations)
    return without_translations(_matrix(blocks))


def effort(crystal: Crystal) -> int:
    """Cost of a crystal's force constants: its atoms times the force evaluations needed.

    A hundred take a processor core about a second.
    """
    proper = np.linalg.det(crystal.rotations) > 0
    plan = _Plan(crystal.rotations[proper], crystal.permutations[proper])
    return int(2 * plan.n_atoms * len(plan.moves) * (2 if proper.all() else 1))


class _Plan:
    """Which atoms to displace in which directions, and how to put the answers together."""

    def __init__(self, rotations: Array, permutations: Indices) -> None:
        self.rotations = rotations
        self.permutations = permutations
        self.n_atoms = permutations.shape[1]
        self.moves: list[tuple[int, Array]] = []
        for atom in np.unique(permutations.min(axis=0)):
            stabiliser = rotations[permutations[:, atom] == atom]
            directions: list[Array] = []
            for trial in TRIALS / np.linalg.norm(TRIALS, axis=1, keepdims=True):
                directions.append(trial)
                images = np.concatenate([stabiliser @ d for d in directions])
                if len(images) >= 3 and np.linalg.svd(images)[1][2] > INDEPENDENT:
                    break
            self.moves += [(int(atom), direction) for direction in directions]

    def displacements(self) -> Array:
        """(k, n, 3), of unit length."""
        found = np.zeros((len(self.moves), self.n_atoms, 3))
        for row, (atom, direction) in zip(found, self.moves, strict=True):
            row[atom] = direction
        return found

    def blocks(self, answers: Array) -> Array:
        """Φ as (n, n, 3, 3) from Φ·displacement of every move, (k, n, 3)."""
        found = np.zeros((self.n_atoms, self.n_atoms, 3, 3))
        count = np.zeros(self.n_atoms)
        for atom in sorted({atom for atom, _ in self.moves}):
            rows = self._rows(atom, answers)
            for rotation, permutation in zip(self.rotations, self.permutations, strict=True):
                turned = rotation @ rows @ rotation.T
                found[permutation[atom], permutation] += turned
                count[permutation[atom]] += 1
        return np.asarray(found / count[:, None, None, None])

    def _rows(self, atom: int, answers: Array) -> Array:
        """Φ[atom, j] as (n, 3, 3): least squares over the images of the atom's moves."""
        own = self.permutations[:, atom] == atom
        directions, images = [], []
        for (moved, direction), answer in zip(self.moves, answers, strict=True):
            if moved != atom:
                continue
            for rotation, permutation in zip(
                self.rotations[own], self.permutations[own], strict=True
            ):
                turned = np.empty_like(answer)
                turned[permutation] = answer @ rotation.T
                directions.append(rotation @ direction)
                images.append(turned.ravel())
        solution = np.linalg.lstsq(np.array(directions), np.array(images), rcond=None)[0]
        return np.asarray(solution.reshape(3, self.n_atoms, 3).transpose(1, 0, 2))


def _average(blocks: Array, rotations: Array, permutations: Indices) -> Array:
    """Mean of Φ over the space group."""
    total = np.zeros_like(blocks)
    for rotation, permutation in zip(rotations, permutations, strict=True):
        total[np.ix_(permutation, permutation)] += rotation @ blocks @ rotation.T
    return total / len(rotations)


def _matrix(blocks: Array) -> Array:
    """(n, n, 3, 3) → symmetric (3n, 3n)."""
    n = len(blocks)
    matrix = blocks.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
    return (matrix + matrix.T) / 2


def without_translations(matrix: Array) -> Array:
    """Project rigid translations out of both sides of a (3n, 3n) matrix."""
    n = len(matrix) // 3
    rigid = np.tile(np.eye(3), (n, 1)) / np.sqrt(n)
    left = matrix - rigid @ (rigid.T @ matrix)
    return np.asarray(left - (left @ rigid) @ rigid.T)
