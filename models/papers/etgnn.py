"""ETGNN (Zhong et al., J. Phys. Chem. Lett. 14, 6339 (2023)): tensors spanned by bond directions.

Invariant message passing gives bonds and atoms features; the tensor of an atom is (eq. 2 of the
paper, second order) Σ_j t_j·ê_j⊗ê_j over its bonds plus Σ_jk t_jk·ê_j⊗ê_k over pairs of them, and
the crystal's is the mean over atoms. The coefficients of the pairs are sums of products of what the
two bonds have by themselves, so that pairs need not be written out.
"""

from __future__ import annotations

import torch
from e3nn.math import soft_one_hot_linspace
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from models.papers.network import CUTOFF, LocalNetwork

WIDTH = 128
LAYERS = 3
N_RADIAL = 32
PAIRS = 8


class Mixed(nn.Module):
    """A bond and its two atoms, through a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.receiver, self.sender = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.own, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, nodes: Tensor, edges: Tensor, edge_index: Tensor) -> Tensor:
        receiver, sender = edge_index
        mixed = self.receiver(nodes)[receiver] + self.sender(nodes)[sender] + self.own(edges)
        found: Tensor = self.out(nn.functional.silu(mixed))
        return found


class Layer(nn.Module):
    """Atoms look at their bonds, then bonds at their two atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.bond, self.message = Mixed(), Mixed()
        self.update = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))

    def forward(
        self, nodes: Tensor, edges: Tensor, edge_index: Tensor, fade: Tensor
    ) -> tuple[Tensor, Tensor]:
        message = fade[:, None] * self.message(nodes, edges, edge_index)
        nodes = nodes + self.update(scatter(message, edge_index[0], 0, len(nodes)))
        return nodes, edges + self.bond(nodes, edges, edge_index)


class ETGNN(LocalNetwork):
    """Three layers of 128 features, cutoff 5 Å."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(119, WIDTH)
        self.radial = nn.Linear(N_RADIAL, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.coefficients = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1 + 2 * PAIRS)
        )

    def tensor(self, batch: Data) -> Tensor:
        """Mean of the atoms' tensors."""
        receiver = batch.edge_index[0]
        length = batch.vectors.norm(dim=1)
        unit = batch.vectors / length[:, None]
        radial = soft_one_hot_linspace(
            length, 0.0, CUTOFF, N_RADIAL, basis="gaussian", cutoff=False
        )
        fade = (torch.cos(torch.pi * length / CUTOFF) + 1) / 2
        nodes, edges = self.embed(batch.z), self.radial(radial)
        for layer in self.layers:
            nodes, edges = layer(nodes, edges, batch.edge_index, fade)
        t = self.coefficients(edges) * fade[:, None]
        single, first, second = t.split([1, PAIRS, PAIRS], dim=-1)
        n = len(nodes)
        bonds = scatter(single[:, :, None] * unit[:, :, None] * unit[:, None], receiver, 0, n)
        left = scatter(first[:, :, None] * unit[:, None], receiver, 0, n)
        right = scatter(second[:, :, None] * unit[:, None], receiver, 0, n)
        atoms = bonds + torch.einsum("npi,npj->nij", left, right)
        found: Tensor = scatter(atoms, batch.batch, 0, batch.num_graphs, reduce="mean")
        return found
