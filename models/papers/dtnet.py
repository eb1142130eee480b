"""DTNet (Mao, Li and Tan, npj Comput. Mater. 10, 265 (2024)) on an open potential's features.

Two gated equivariant blocks on the atoms' scalars, vectors and rank-2 tensors; every atom then
gives a_s·I + a_v⊗a_v + a_t, and the crystal's tensor is the mean over its atoms. The paper takes
the features of atoms and of bonds from a proprietary potential (PFP). Here the atoms' features are
SevenNet's; a bond's scalars and vectors are what SevenNet has of a bond, its radial basis and
direction, times a projection of the scalars of the atom at its far end; bonds are summed at each
atom and stand beside its own features. ``dtnet-simple`` has no bonds.

Equivalent atoms are represented by one of them (:mod:`models.crystal`): the mean over a crystal's
atoms equals the projected mean over representatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from e3nn.math import soft_one_hot_linspace
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from models.data import Normalisation, Rows
from models.encoder import FeatureLayout
from models.papers.graphs import (
    apply_projector,
    graph,
    neighbours,
    projector,
    spherical_basis,
    tensor,
)
from models.papers.network import PaperNetwork

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.cache import FeatureCache

LATENT = 128
DROPOUT = 0.2
CUTOFF = 5.0
"""Å; SevenNet's own."""
N_RADIAL = 8
"""Of SevenNet's Bessel functions."""


class GatedBlock(nn.Module):
    """PaiNN's gated equivariant block (Schütt et al., ICML 2021, fig. 3), for rank 2 as well."""

    def __init__(self, c_in: tuple[int, int, int], c_out: int, dropout: float) -> None:
        super().__init__()
        s, v, t = c_in
        self.vector_norm = nn.Linear(v, c_out, bias=False)
        self.vector_out = nn.Linear(v, c_out, bias=False)
        self.tensor_norm = nn.Linear(t, c_out, bias=False)
        self.tensor_out = nn.Linear(t, c_out, bias=False)
        self.mix = nn.Sequential(
            nn.Linear(s + 2 * c_out, c_out),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(c_out, 3 * c_out),
        )

    def forward(self, s: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scalars (a, c), vectors (a, 3, c) and tensors (a, 5, c) of atoms."""
        norms = [_norm(self.vector_norm(v)), _norm(self.tensor_norm(t))]
        s, gate_v, gate_t = self.mix(torch.cat([s, *norms], dim=-1)).chunk(3, dim=-1)
        return (
            nn.functional.silu(s),
            gate_v[:, None] * self.vector_out(v),
            gate_t[:, None] * self.tensor_out(t),
        )


class DTNet(PaperNetwork):
    """Readout of frozen features.

    Parameters
    ----------
    layout
        Features per atom.
    bonds
        With bond features (``dtnet``) or without (``dtnet-simple``).
    layer
        The only layer of the encoder whose features are used, 0 to 3; None: all.
    n_layers
        Layers of the encoder, of which the last has scalars only.
    trained
        False: features of the encoder with random weights.
    """

    basis: Tensor
    scalar_mean: Tensor
    scalar_std: Tensor
    vector_rms: Tensor
    tensor_rms: Tensor

    def __init__(
        self,
        layout: FeatureLayout,
        *,
        bonds: bool,
        layer: int | None = None,
        n_layers: int = 5,
        trained: bool = True,
    ) -> None:
        super().__init__()
        self.layout, self.layer, self.n_layers, self.trained = layout, layer, n_layers, trained
        self.register_buffer("basis", spherical_basis(), persistent=False)
        c = [layout.scalars, layout.vectors, layout.tensors]
        self.register_buffer("scalar_mean", torch.zeros(c[0]))
        self.register_buffer("scalar_std", torch.ones(c[0]))
        self.register_buffer("vector_rms", torch.ones(c[1]))
        self.register_buffer("tensor_rms", torch.ones(c[2]))
        if layer is not None:
            c = [c[0] // n_layers, c[1] // (n_layers - 1), c[2] // (n_layers - 1)]
        self.bonds = nn.ModuleDict() if bonds else None
        extra = LATENT if bonds else 0
        if self.bonds is not None:
            self.bonds["senders"] = nn.Linear(c[0], 2 * LATENT)
            self.bonds["radial"] = nn.Linear(N_RADIAL, 2 * LATENT, bias=False)
        self.first = GatedBlock((c[0] + extra, c[1] + extra, c[2]), LATENT, DROPOUT)
        self.second = GatedBlock((LATENT,) * 3, LATENT, DROPOUT)
        self.scalar_out = nn.Linear(LATENT, 1)
        self.vector_out = nn.Linear(LATENT, 1, bias=False)
        self.tensor_out = nn.Linear(LATENT, 1, bias=False)

    def graph(self, structure: Structure, cache: FeatureCache) -> Data:
        """Representatives with their features, and edges from each to its neighbours' orbits."""
        own = cache if self.trained else cache.untrained
        ((crystal, features),) = own.reduced([structure])
        edges, vectors = neighbours(crystal.cell, CUTOFF)
        place = {int(atom): row for row, atom in enumerate(crystal.representatives)}
        kept = [e for e, atom in enumerate(edges[0]) if int(atom) in place]
        edges, vectors = edges[:, kept].copy(), vectors[kept]
        edges[0] = [place[int(atom)] for atom in edges[0]]
        edges[1] = crystal.owner[edges[1]]
        species = crystal.cell[2][crystal.representatives]
        found = graph(species, edges, vectors, projector=projector(crystal))
        found.features = torch.from_numpy(features)
        found.weight = tensor(crystal.weights)
        return found

    def prepare(self, graphs: Sequence[Data]) -> None:
        """Scales of the features."""
        features = torch.cat([g.features for g in graphs])
        none = Rows(features, *(torch.zeros(0).numpy(),) * 2, torch.zeros(0), torch.zeros(0))
        scales = Normalisation.of(none, self.layout)
        for name, value in vars(scales).items():
            getattr(self, name).copy_(value)

    def tensor(self, batch: Data) -> Tensor:
        """Mean of the atoms' tensors."""
        s, v, t = self._features(batch)
        if self.bonds is not None:
            s, v = self._with_bonds(batch, self.bonds, s, v)
        s, v, t = self.second(*self.first(s, v, t))
        eye = torch.eye(3, dtype=s.dtype, device=s.device)
        vector = self.vector_out(v)[..., 0]
        atoms = (
            self.scalar_out(s)[..., None] * eye
            + vector[:, :, None] * vector[:, None, :]
            + torch.einsum("ak,kij->aij", self.tensor_out(t)[..., 0], self.basis)
        )
        mean = scatter(atoms * batch.weight[:, None, None], batch.batch, 0, batch.num_graphs)
        return apply_projector(batch.projector, mean)

    def _features(self, batch: Data) -> tuple[Tensor, Tensor, Tensor]:
        normalise = Normalisation(
            self.scalar_mean, self.scalar_std, self.vector_rms, self.tensor_rms
        )
        s, v, t = normalise(batch.features.to(self.mean.dtype), self.layout)
        if self.layer is None:
            return s, v, t
        width = s.shape[-1] // self.n_layers
        return (
            s[..., self.layer * width : (self.layer + 1) * width],
            v.chunk(self.n_layers - 1, -1)[self.layer],
            t.chunk(self.n_layers - 1, -1)[self.layer],
        )

    def _with_bonds(
        self, batch: Data, bonds: nn.ModuleDict, s: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        receiver, sender = batch.edge_index
        length = batch.vectors.norm(dim=1)
        radial = soft_one_hot_linspace(length, 0.0, CUTOFF, N_RADIAL, basis="bessel", cutoff=True)
        features = bonds["senders"](s)[sender] * bonds["radial"](radial)
        bond_s, bond_v = features.chunk(2, dim=-1)
        unit = batch.vectors / length[:, None]
        own_s = scatter(bond_s, receiver, 0, len(s))
        own_v = torch.stack(
            [scatter(unit[:, x, None] * bond_v, receiver, 0, len(s)) for x in range(3)], dim=1
        )
        return torch.cat([s, own_s], -1), torch.cat([v, own_v], -1)


def _norm(x: Tensor) -> Tensor:
    """Norm over components (a, d, c) → (a, c), differentiable at 0."""
    return (x.square().sum(dim=1) + 1e-8).sqrt()
