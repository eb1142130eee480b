"""What symmetry saves of the response to electric fields, and how it gives it back.

ABINIT calculates the response to fields along as few directions as symmetry allows, but asks for
the derivatives of the orbitals in k along all three, at all k-points: a third of the time that a
small cubic crystal takes. Only those along the field are needed for that field's own derivatives of
the energy. What ABINIT then writes for the other directions is wrong (it takes what is missing for
zero), and is replaced here by what the operations of the space group make of the right ones.

Everything is in reduced coordinates, as ABINIT's database is: displacements u in lattice vectors,
fields f in reciprocal ones. An operation takes u to S u and f to S⁻ᵀ f, and leaves the energy as it
is (X. Gonze and C. Lee, Phys. Rev. B 55, 10355 (1997), section VI).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

DIRECTIONS = (0, 1, 2)
RANK = 1e-6
"""Singular values of a projector below this are rounding."""
_BLOCK, _COUNT = " 2nd derivatives", "# elements :"


@dataclass(frozen=True)
class Operations:
    """The space group of a cell, as ABINIT found it.

    Attributes
    ----------
    matrices
        S, (operations, 3, 3): reduced positions x go to S x and a translation.
    sources
        (operations, atoms): the atom that is taken to the place of this one.
    """

    matrices: Array
    sources: Integers

    @classmethod
    def read(cls, path: Path) -> Operations:
        """From a ``_GSR.nc`` file, where Fortran's order of indices is reversed."""
        import h5py

        with h5py.File(path, "r") as file:
            matrices = np.array(file["reduced_symmetry_matrices"][()], dtype=float)
            images = np.array(file["indsym"][()], dtype=np.int64)
        return cls(matrices.transpose(0, 2, 1), images[:, :, 3].T - 1)

    @property
    def n_atoms(self) -> int:
        """Atoms in the cell."""
        return len(self.sources[0])

    def directions(self) -> tuple[int, ...]:
        """Reduced directions of the fields that are enough, counted from 0.

        Those that ABINIT calculates: the ones that no operation makes of earlier ones; and more,
        where their derivatives do not determine all others.
        """
        earlier = [
            any(not np.any(S[j, j:]) for S in np.rint(self.matrices))  # row j of S without j, j+1 …
            for j in DIRECTIONS
        ]
        chosen = [j for j in DIRECTIONS if not earlier[j]]
        invariants = self._invariants
        for j in DIRECTIONS:
            rows = invariants[self._known(chosen)]
            if np.linalg.matrix_rank(rows, tol=RANK) == invariants.shape[1]:
                break
            chosen = sorted({*chosen, j})
        return tuple(chosen)

    def complete(self, charges: Array, susceptibility: Array, along: tuple[int, ...]) -> None:
        """Fill in, in place, what belongs to fields along other directions than ``along``.

        Parameters
        ----------
        charges
            (atoms, 3, 3): derivative by displacement (first index) and field (second).
        susceptibility
            (3, 3): derivative by two fields.
        along
            What :meth:`directions` returns.
        """
        invariants = self._invariants
        known = self._known(along)
        both = np.concatenate([charges, susceptibility[None]])
        weights = np.linalg.lstsq(invariants[known], both.ravel()[known], rcond=None)[0]
        both = (invariants @ weights).reshape(both.shape)
        charges[...], susceptibility[...] = both[:-1], both[-1]

    def _known(self, along: tuple[int, ...] | list[int]) -> NDArray[np.bool_]:
        known = np.zeros((self.n_atoms + 1, 3, 3), dtype=bool)
        known[:-1, :, along] = True
        known[-1][np.ix_(along, along)] = True
        return known.ravel()

    @functools.cached_property
    def _invariants(self) -> Array:
        """Orthonormal columns: all charges and susceptibilities that the group leaves alone."""
        size = 9 * (self.n_atoms + 1)
        given = np.eye(size).reshape(size, self.n_atoms + 1, 3, 3)
        mean = np.zeros_like(given)
        for S, sources in zip(self.matrices, self.sources, strict=True):
            inverse = np.linalg.inv(S)
            mean[:, :-1] += inverse.T @ given[:, sources] @ S.T
            mean[:, -1] += S @ (given[:, -1] + given[:, -1].transpose(0, 2, 1)) @ S.T / 2
        projector = mean.reshape(size, size).T / len(self.matrices)
        left, values, _ = np.linalg.svd(projector)
        columns: Array = left[:, values > RANK]
        return columns


def completed(database: str, operations: Operations, along: tuple[int, ...]) -> str:
    """The derivative database with right entries for fields along every direction.

    Parameters
    ----------
    database
        Text of ABINIT's ``_DDB`` file of a response at Γ.
    operations
        Of the cell.
    along
        Directions whose derivatives in k were calculated.
    """
    if len(along) == len(DIRECTIONS):
        return database
    head, start, block = database.rpartition(_BLOCK)
    title, point, *rows = block.splitlines()
    values = {tuple(map(int, row[:16].split())): row[16:] for row in rows if row.strip()}
    field = operations.n_atoms + 2
    atoms = range(1, operations.n_atoms + 1)

    def value(*entry: int) -> float:
        return float(values[entry].split()[0].replace("D", "E")) if entry in values else 0.0

    axes = (1, 2, 3)
    charges = np.array([[[value(a, atom, d, field) for d in axes] for a in axes] for atom in atoms])
    susceptibility = np.array([[value(c, field, d, field) for d in axes] for c in axes])
    operations.complete(charges, susceptibility, along)
    for d in axes:
        for a in axes:
            for atom in atoms:
                text = _number(charges[atom - 1, a - 1, d - 1])
                values[a, atom, d, field] = values[d, field, a, atom] = text
            values[a, field, d, field] = _number(susceptibility[a - 1, d - 1])
    name = title.partition(_COUNT)[0]
    lines = ["".join(f"{i:4d}" for i in entry) + text for entry, text in values.items()]
    return "\n".join([f"{head}{start}{name}{_COUNT}{len(values):8d}", point, *lines]) + "\n"


def _number(value: float) -> str:
    """A complex number without imaginary part, as Fortran writes it."""
    return "".join(f"{x:22.14E}".replace("E", "D") for x in (value, 0.0))
