"""Crystals of different sizes as batches of padded atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.encoder import FeatureLayout

SCALAR_LIMIT = 6.0
"""Standardised scalars are clamped here: crystals far from the training set must not explode."""


class AtomRows:
    """Features of many crystals, one after the other, in half precision.

    Parameters
    ----------
    features
        One array (n_atoms, width) per crystal.
    functional
        0 for PBE, 1 for PBEsol, per crystal.
    """

    def __init__(
        self,
        features: Sequence[NDArray[np.float16]],
        functional: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        self.sizes = np.array([len(f) for f in features], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)
        self.rows = torch.from_numpy(np.concatenate(features)).to(device)
        self.functional = torch.as_tensor(functional, dtype=torch.float32, device=device)
        self.device = device

    def inputs(
        self, normalise: Normalisation, layout: FeatureLayout, crystals: slice = slice(None)
    ) -> Inputs:
        """Network inputs of consecutive crystals, all of them by default."""
        sizes = self.sizes[crystals]
        first = int(self.starts[crystals][0]) if len(sizes) else 0
        rows = self.rows[first : first + int(sizes.sum())].float()
        per_atom = torch.as_tensor(np.repeat(np.arange(len(sizes)), sizes), device=self.device)
        functional = self.functional[crystals][per_atom]
        return Inputs(*normalise(rows, functional, layout), sizes, self.starts[crystals] - first)


@dataclass(frozen=True)
class Inputs:
    """Network inputs of crystals, one after the other.

    Attributes
    ----------
    scalars, vectors, tensors
        Per atom: (a, c_s + 1), (a, 3, c_v), (a, 5, c_t); the last scalar tells PBEsol.
    sizes, starts
        Number of atoms and first atom of each crystal.
    """

    scalars: Tensor
    vectors: Tensor
    tensors: Tensor
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def device(self) -> torch.device:
        """Where the inputs lie."""
        return self.scalars.device

    def batch(self, crystals: NDArray[np.int64]) -> Batch:
        """Atoms of the given crystals, (m, b) row numbers, one line of b crystals per member."""
        members, per_member = crystals.shape
        sizes = self.sizes[crystals]
        n_atoms = int(sizes.sum(axis=1).max())
        atoms = np.zeros((members, n_atoms), dtype=np.int64)
        owner = np.zeros((members, n_atoms), dtype=np.int64)
        weight = np.zeros((members, n_atoms), dtype=np.float32)
        for m in range(members):
            total = int(sizes[m].sum())
            place = np.repeat(np.arange(per_member), sizes[m])
            first = np.cumsum(sizes[m]) - sizes[m]
            atoms[m, :total] = self.starts[crystals[m]][place] + np.arange(total) - first[place]
            owner[m, :total] = place
            weight[m, :total] = 1.0 / sizes[m][place]
        owner += per_member * np.arange(members)[:, None]
        index = torch.as_tensor(atoms, device=self.device)
        return Batch(
            features=(self.scalars[index], self.vectors[index], self.tensors[index]),
            owner=torch.as_tensor(owner.ravel(), device=self.device),
            weight=torch.as_tensor(weight, device=self.device),
            per_member=per_member,
        )


@dataclass(frozen=True)
class Batch:
    """Padded atoms of b crystals for each of m members.

    Attributes
    ----------
    features
        Network inputs (m, a, c_s + 1), (m, a, 3, c_v), (m, a, 5, c_t).
    """

    features: tuple[Tensor, Tensor, Tensor]
    owner: Tensor
    weight: Tensor
    per_member: int

    def mean_over_atoms(self, values: Tensor) -> Tensor:
        """Per-atom values (m, a, ...) → means per crystal (m, b, ...)."""
        members = values.shape[0]
        weights = self.weight.reshape(self.weight.shape + (1,) * (values.dim() - 2))
        out = values.new_zeros(members * self.per_member, *values.shape[2:])
        out = out.index_add(0, self.owner, (values * weights).flatten(0, 1))
        return out.reshape(members, self.per_member, *values.shape[2:])


@dataclass(frozen=True)
class Normalisation:
    """Scales of the features, taken from the training crystals; equivariant by construction."""

    scalar_mean: Tensor
    scalar_std: Tensor
    vector_rms: Tensor
    tensor_rms: Tensor

    @classmethod
    def of(cls, atoms: AtomRows, layout: FeatureLayout) -> Normalisation:
        """Statistics over all atoms of ``atoms``."""
        s, v, t = layout.split(atoms.rows)
        s64 = s.double()
        return cls(
            scalar_mean=s64.mean(0).float(),
            scalar_std=(s64.std(0, correction=0) + 1e-3).float(),
            vector_rms=(v.double().square().mean((0, 2)).sqrt() + 1e-3).float(),
            tensor_rms=(t.double().square().mean((0, 2)).sqrt() + 1e-3).float(),
        )

    def __call__(
        self, rows: Tensor, functional: Tensor, layout: FeatureLayout
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features (a, width) and functional (a,) of atoms → (a, c + 1), (a, 3, c), (a, 5, c)."""
        s, v, t = layout.split(rows)
        s = ((s - self.scalar_mean) / self.scalar_std).clamp(-SCALAR_LIMIT, SCALAR_LIMIT)
        v = _squash(v / self.vector_rms[:, None]).transpose(-1, -2).contiguous()
        t = _squash(t / self.tensor_rms[:, None]).transpose(-1, -2).contiguous()
        return torch.cat([s, functional[:, None]], dim=-1), v, t


def _squash(x: Tensor) -> Tensor:
    """Shorten long vectors smoothly to at most ``SCALAR_LIMIT``."""
    length = x.square().sum(dim=-1, keepdim=True).sqrt()
    return x / (1 + length / SCALAR_LIMIT)
