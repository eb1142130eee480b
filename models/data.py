"""Crystals of different sizes as padded batches of their representative atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.crystal import Crystal
from models.encoder import FeatureLayout

SCALAR_LIMIT = 6.0
"""Standardised scalars are clamped here: crystals far from the training set must not explode."""

CRYSTALS_PER_CHUNK = 256
"""Crystals that networks are evaluated on at once."""

PADDING = 64
"""Batches are filled up to multiples of this: matrix products of few shapes are prepared once."""


@dataclass(frozen=True)
class Rows:
    """Reduced features of many crystals, one after the other, in half precision.

    Attributes
    ----------
    features
        (rows, width), one row per representative atom.
    sizes, starts
        Number of representatives and first row of each crystal.
    weights
        Share of each representative in its crystal's atoms, (rows,).
    projectors
        Projection on the point group, as (n, 9, 9) matrices that act on flattened tensors.
    """

    features: Tensor
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    weights: Tensor
    projectors: Tensor

    @classmethod
    def of(
        cls, crystals: Sequence[Crystal], features: Sequence[NDArray[np.float16]], width: int
    ) -> Rows:
        """Put crystals and their reduced features (r, width) together."""
        sizes = np.array([len(f) for f in features], dtype=np.int64)
        empty = np.zeros((0, width), dtype=np.float16)
        weights = np.concatenate([np.zeros(0), *(c.weights for c in crystals)])
        projectors = [_projector(c.rotations) for c in crystals]
        return cls(
            torch.from_numpy(np.concatenate([empty, *features])),
            sizes,
            (np.cumsum(sizes) - sizes).astype(np.int64),
            torch.from_numpy(weights.astype(np.float32)),
            torch.from_numpy(np.array(projectors, dtype=np.float32).reshape(-1, 9, 9)),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def inputs(
        self,
        normalise: Normalisation,
        layout: FeatureLayout,
        context: Tensor,
        device: torch.device,
        crystals: slice = slice(None),
    ) -> Inputs:
        """Network inputs of consecutive crystals, all of them by default."""
        sizes, starts = self.sizes[crystals], self.starts[crystals]
        rows = slice(int(starts[0]), int(starts[-1] + sizes[-1])) if len(sizes) else slice(0, 0)
        features = normalise(self.features[rows].to(device).float(), layout)
        return Inputs(
            *features,
            context[crystals].to(device),
            sizes,
            starts - rows.start,
            self.weights[rows].to(device),
            self.projectors[crystals].to(device),
        )


def _projector(rotations: NDArray[np.float64]) -> NDArray[np.float32]:
    mean = np.einsum("gij,gkl->ikjl", rotations, rotations).reshape(9, 9) / len(rotations)
    return np.asarray(mean, dtype=np.float32)


@dataclass(frozen=True)
class Inputs:
    """Network inputs of crystals, one after the other.

    Attributes
    ----------
    scalars, vectors, tensors
        Per representative: (a, c_s), (a, 3, c_v), (a, 5, c_t).
    context
        What is known of each crystal as a whole, (n, c).
    """

    scalars: Tensor
    vectors: Tensor
    tensors: Tensor
    context: Tensor
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    weights: Tensor
    projectors: Tensor

    @property
    def device(self) -> torch.device:
        """Where the inputs lie."""
        return self.scalars.device

    def batch(self, crystals: NDArray[np.int64]) -> Batch:
        """Atoms of the given crystals, (m, b) row numbers, one line of b crystals per member."""
        members, per_member = crystals.shape
        sizes = self.sizes[crystals]
        n_atoms = -(-int(sizes.sum(axis=1).max()) // PADDING) * PADDING
        atoms = np.zeros((members, n_atoms), dtype=np.int64)
        owner = np.zeros((members, n_atoms), dtype=np.int64)
        real = np.zeros((members, n_atoms), dtype=np.float32)
        for m in range(members):
            total = int(sizes[m].sum())
            place = np.repeat(np.arange(per_member), sizes[m])
            first = np.cumsum(sizes[m]) - sizes[m]
            atoms[m, :total] = self.starts[crystals[m]][place] + np.arange(total) - first[place]
            owner[m, :total] = place
            real[m, :total] = 1.0
        owner += per_member * np.arange(members)[:, None]
        index = torch.as_tensor(atoms, device=self.device)
        chosen = torch.as_tensor(crystals, device=self.device)
        return Batch(
            features=(self.scalars[index], self.vectors[index], self.tensors[index]),
            context=self.context[chosen],
            owner=torch.as_tensor(owner.ravel(), device=self.device),
            atoms=index,
            weight=self.weights[index] * torch.as_tensor(real, device=self.device),
            projectors=self.projectors[chosen],
            per_member=per_member,
        )


@dataclass(frozen=True)
class Batch:
    """Padded representatives of b crystals for each of m members.

    Attributes
    ----------
    features
        Network inputs (m, a, c_s), (m, a, 3, c_v), (m, a, 5, c_t).
    context
        (m, b, c).
    atoms
        Row numbers, (m, a).
    weight
        Share of the atoms of the crystal, 0 for padding, (m, a).
    """

    features: tuple[Tensor, Tensor, Tensor]
    context: Tensor
    owner: Tensor
    atoms: Tensor
    weight: Tensor
    projectors: Tensor
    per_member: int

    def with_context(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The features, each atom's scalars followed by the context of its crystal."""
        s, v, t = self.features
        own = self.of_crystal(self.context if context is None else context)
        return torch.cat([s, own], dim=-1), v, t

    def of_crystal(self, values: Tensor) -> Tensor:
        """Values of crystals (m, b, ...) → of their atoms (m, a, ...)."""
        members = values.shape[0]
        return values.flatten(0, 1)[self.owner].reshape(members, -1, *values.shape[2:])

    def mean_over_atoms(self, values: Tensor) -> Tensor:
        """Values of atoms (m, a, ...) → means per crystal (m, b, ...)."""
        members = values.shape[0]
        weights = self.weight.reshape(self.weight.shape + (1,) * (values.dim() - 2))
        out = values.new_zeros(members * self.per_member, *values.shape[2:])
        out = out.index_add(0, self.owner, (values * weights).flatten(0, 1))
        return out.reshape(members, self.per_member, *values.shape[2:])

    def projected(self, tensors: Tensor) -> Tensor:
        """Projection of tensors (m, b, p, 3, 3) on the point groups of their crystals."""
        # Sums of products: matrix products may run in lower precision.
        terms = self.projectors[:, :, None] * tensors.flatten(-2)[..., None, :]
        return terms.sum(-1).reshape(tensors.shape)


@dataclass(frozen=True)
class Normalisation:
    """Scales of the features, taken from the training crystals; equivariant by construction."""

    scalar_mean: Tensor
    scalar_std: Tensor
    vector_rms: Tensor
    tensor_rms: Tensor

    @classmethod
    def of(cls, rows: Rows, layout: FeatureLayout) -> Normalisation:
        """Statistics over all representatives of ``rows``."""
        s, v, t = layout.split(rows.features)
        s64 = s.double()
        return cls(
            scalar_mean=s64.mean(0).float(),
            scalar_std=(s64.std(0, correction=0) + 1e-3).float(),
            vector_rms=(v.double().square().mean((0, 2)).sqrt() + 1e-3).float(),
            tensor_rms=(t.double().square().mean((0, 2)).sqrt() + 1e-3).float(),
        )

    def __call__(self, rows: Tensor, layout: FeatureLayout) -> tuple[Tensor, Tensor, Tensor]:
        """Features (a, width) → (a, c), (a, 3, c), (a, 5, c)."""
        device = rows.device
        s, v, t = layout.split(rows)
        s = (s - self.scalar_mean.to(device)) / self.scalar_std.to(device)
        v = _squash(v / self.vector_rms.to(device)[:, None]).transpose(-1, -2).contiguous()
        t = _squash(t / self.tensor_rms.to(device)[:, None]).transpose(-1, -2).contiguous()
        return s.clamp(-SCALAR_LIMIT, SCALAR_LIMIT), v, t


def _squash(x: Tensor) -> Tensor:
    """Shorten long vectors smoothly to at most ``SCALAR_LIMIT``."""
    length = x.square().sum(dim=-1, keepdim=True).sqrt()
    return x / (1 + length / SCALAR_LIMIT)
