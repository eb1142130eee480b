"""MatTen (Wen et al., Digital Discovery 3, 869 (2024)): tensor-product convolutions made with e3nn.

Atoms have features of degrees 0, 1 and 2. A layer is a linear map, a tensor product with the
spherical harmonics of the bonds whose weights come from their lengths, a sum over neighbours, a
linear map beside a self-connection, and a gate. The mean over atoms, in 0e + 2e, is the tensor's
spherical form.
"""

from __future__ import annotations

from typing import Any

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from models.papers.graphs import spherical_basis
from models.papers.network import CUTOFF, LocalNetwork

LAYERS = 3
N_RADIAL = 8
HIDDEN = "32x0e + 16x1o + 16x2e"
HARMONICS = "0e + 1o + 2e"


class Convolution(nn.Module):
    """One layer."""

    def __init__(self, irreps_in: o3.Irreps, hidden: o3.Irreps) -> None:
        super().__init__()
        scalars = o3.Irreps([(mul, ir) for mul, ir in hidden if ir.l == 0])
        others = o3.Irreps([(mul, ir) for mul, ir in hidden if ir.l > 0])
        gates = o3.Irreps([(others.num_irreps, "0e")])
        self.gate = e3nn_nn.Gate(scalars, [nn.functional.silu], gates, [torch.sigmoid], others)
        out = self.gate.irreps_in
        harmonics = o3.Irreps(HARMONICS)
        paths: list[Any] = []
        instructions: list[Any] = []
        for i, (mul, ir) in enumerate(irreps_in):
            for j, (_, harmonic) in enumerate(harmonics):
                for product in ir * harmonic:
                    if product in out:
                        instructions.append((i, j, len(paths), "uvu", True))
                        paths.append((mul, product))
        middle, permutation, _ = o3.Irreps(paths).sort()
        instructions = [(i, j, permutation[k], m, t) for i, j, k, m, t in instructions]
        self.first = o3.Linear(irreps_in, irreps_in)
        self.product = o3.TensorProduct(
            irreps_in, harmonics, middle, instructions, shared_weights=False, internal_weights=False
        )
        self.weights = e3nn_nn.FullyConnectedNet(
            [N_RADIAL, 32, self.product.weight_numel], nn.functional.silu
        )
        self.second = o3.Linear(middle.simplify(), out)
        self.own = o3.Linear(irreps_in, out)
        self.irreps_out = self.gate.irreps_out

    def forward(
        self, nodes: Tensor, edge_index: Tensor, harmonics: Tensor, radial: Tensor
    ) -> Tensor:
        receiver, sender = edge_index
        message = self.product(self.first(nodes)[sender], harmonics, self.weights(radial))
        total = scatter(message, receiver, 0, len(nodes)) / NEIGHBOURS**0.5
        found: Tensor = self.gate(self.second(total) + self.own(nodes))
        return found


NEIGHBOURS = 30.0
"""About so many within the cutoff; scales the sums."""


class MatTen(LocalNetwork):
    """Three layers up to degree 2, cutoff 5 Å."""

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", spherical_basis(), persistent=False)
        hidden = o3.Irreps(HIDDEN)
        self.embed = nn.Embedding(119, hidden[0].mul)
        irreps = o3.Irreps([(hidden[0].mul, "0e")])
        self.layers = nn.ModuleList()
        for _ in range(LAYERS):
            layer = Convolution(irreps, hidden)
            self.layers.append(layer)
            irreps = layer.irreps_out
        self.out = o3.Linear(irreps, "1x0e + 1x2e")

    def tensor(self, batch: Data) -> Tensor:
        """Mean of the atoms' spherical tensors, as matrices."""
        length = batch.vectors.norm(dim=1)
        radial = soft_one_hot_linspace(length, 0.0, CUTOFF, N_RADIAL, basis="bessel", cutoff=True)
        harmonics = o3.spherical_harmonics(
            o3.Irreps(HARMONICS), batch.vectors, normalize=True, normalization="component"
        )
        nodes: Tensor = self.embed(batch.z)
        for layer in self.layers:
            nodes = layer(nodes, batch.edge_index, harmonics, radial)
        atoms = self.out(nodes)
        mean = scatter(atoms, batch.batch, 0, batch.num_graphs, reduce="mean")
        eye = torch.eye(3, dtype=mean.dtype, device=mean.device)
        found: Tensor = mean[:, :1, None] * eye + torch.einsum(
            "bk,kij->bij", mean[:, 1:], self.basis
        )
        return found
