"""M3GNet (Chen and Ong, Nat. Comput. Sci. 2, 718 (2022)) with the tensor as a strain derivative.

Bonds see the angles to other bonds of the same atom (eqs. 2–3), then atoms and bonds are updated
(eqs. 4–6); atoms are read out by a gated network (eq. 11). What it reads out here is not an energy:
the derivative of that scalar with respect to a symmetric strain, per atom, is the tensor.

The sum over the other bonds k, of products of radial functions of r_ik and Legendre polynomials
P_l(cos θ_jik), is taken by the addition theorem: P_l is a sum over m of products of spherical
harmonics of the two directions, so that the sum over k is one per atom; the term k = j is taken
away. The radial functions are e3nn's Bessel functions, the same for every l, instead of the paper's
smooth ones; they reach the cutoff with a slope, and the tensor, a derivative, jumps there. The
three-body term has a cosine cutoff.
"""

from __future__ import annotations

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from models.papers.network import CUTOFF, LocalNetwork

WIDTH = 64
BLOCKS = 3
N_RADIAL = 3
DEGREES = (0, 1, 2)
THREE_BODY_CUTOFF = 4.0
"""Å."""


class Gated(nn.Module):
    """A perceptron times a gate: M3GNet's φ."""

    def __init__(self, c_in: int, c_out: int, *, last: bool = False) -> None:
        super().__init__()
        self.value = nn.Sequential(nn.Linear(c_in, WIDTH), nn.SiLU(), nn.Linear(WIDTH, c_out))
        self.gate = nn.Sequential(nn.Linear(c_in, WIDTH), nn.SiLU(), nn.Linear(WIDTH, c_out))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        value = self.value(x)
        gate = torch.sigmoid(self.gate(x))
        return gate * (value if self.last else nn.functional.silu(value))


class Block(nn.Module):
    """Three-body interaction, then bonds, then atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.senders = nn.Linear(WIDTH, N_RADIAL * len(DEGREES))
        self.three_body = nn.Linear(N_RADIAL * len(DEGREES), WIDTH)
        self.three_gate = nn.Linear(N_RADIAL * len(DEGREES), WIDTH)
        self.edge, self.edge_radial = Gated(3 * WIDTH, WIDTH), nn.Linear(N_RADIAL, WIDTH, False)
        self.node, self.node_radial = Gated(3 * WIDTH, WIDTH), nn.Linear(N_RADIAL, WIDTH, False)

    def forward(
        self, nodes: Tensor, edges: Tensor, edge_index: Tensor, radial: Tensor, near: Tensor,
        harmonics: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """``near`` (e, n): radial functions with the three-body cutoff; ``harmonics`` (e, 9)."""
        receiver, sender = edge_index
        weight = torch.sigmoid(self.senders(nodes))[sender].unflatten(1, (-1, N_RADIAL))
        own = near[:, None] * weight  # (e, degrees, n)
        start, parts = 0, []
        for place, degree in enumerate(DEGREES):
            y = harmonics[:, start : start + 2 * degree + 1]
            start += 2 * degree + 1
            spread = y[:, :, None] * own[:, None, place]
            total = scatter(spread, receiver, 0, len(nodes))[receiver]
            parts.append((y[:, :, None] * (total - spread)).sum(dim=1))
        angles = torch.cat(parts, dim=-1) * near.norm(dim=1, keepdim=True)
        change = torch.sigmoid(self.three_gate(angles)) * nn.functional.silu(
            self.three_body(angles)
        )
        edges = edges + change
        joined = torch.cat([nodes[receiver], nodes[sender], edges], -1)
        edges = edges + self.edge(joined) * self.edge_radial(radial)
        joined = torch.cat([nodes[receiver], nodes[sender], edges], -1)
        message = self.node(joined) * self.node_radial(radial)
        return nodes + scatter(message, receiver, 0, len(nodes)), edges


class M3GNet(LocalNetwork):
    """Three blocks of 64 features, cutoffs 5 and 4 Å: the published sizes."""

    differentiates = True

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(119, WIDTH)
        self.radial = nn.Linear(N_RADIAL, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.out = Gated(WIDTH, 1, last=True)

    def tensor(self, batch: Data) -> Tensor:
        """Derivative of the atoms' mean output with respect to strain."""
        strain = batch.vectors.new_zeros(batch.num_graphs, 3, 3).requires_grad_()
        symmetric = (strain + strain.transpose(-1, -2)) / 2
        owner = batch.batch[batch.edge_index[0]]
        vectors = batch.vectors + torch.einsum("eij,ej->ei", symmetric[owner], batch.vectors)
        nodes = self._atoms(batch, vectors)
        scalars = scatter(self.out(nodes), batch.batch, 0, batch.num_graphs, reduce="mean")
        found: Tensor = torch.autograd.grad(scalars.sum(), strain, create_graph=self.training)[0]
        return found

    def _atoms(self, batch: Data, vectors: Tensor) -> Tensor:
        length = (vectors.square().sum(dim=1) + 1e-12).sqrt()
        harmonics = o3.spherical_harmonics(
            list(DEGREES), vectors / length[:, None], normalize=False, normalization="norm"
        )
        radial = soft_one_hot_linspace(length, 0.0, CUTOFF, N_RADIAL, basis="bessel", cutoff=True)
        fade = (torch.cos(torch.pi * (length / THREE_BODY_CUTOFF).clamp(max=1)) + 1) / 2
        near = radial * fade[:, None]
        nodes: Tensor = self.embed(batch.z)
        edges = nn.functional.silu(self.radial(radial))
        for block in self.blocks:
            nodes, edges = block(nodes, edges, batch.edge_index, radial, near, harmonics)
        return nodes
