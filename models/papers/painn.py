"""PaiNN (Schütt, Unke and Gastegger, ICML 2021): scalars and vectors of atoms, updated in turn.

Three interactions of a message (eqs. 7 and 8) and an update (eqs. 9 and 10). Molecules have a
centre to take their polarisability's vectors from (eq. 13); a crystal has none, so that its tensor
is the mean over atoms of a_s·I and of dyads of vectors, made symmetric. Filters have no cosine
cutoff: the Bessel functions are 0 at the cutoff.
"""

from __future__ import annotations

import torch
from e3nn.math import soft_one_hot_linspace
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from models.papers.network import CUTOFF, LocalNetwork

WIDTH = 128
INTERACTIONS = 3
N_RADIAL = 20
DYADS = 16


class Interaction(nn.Module):
    """Message from the neighbours, then update of each atom by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.context = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 3 * WIDTH)
        )
        self.filter = nn.Linear(N_RADIAL, 3 * WIDTH, bias=False)
        self.u, self.v = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.update = nn.Sequential(
            nn.Linear(2 * WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 3 * WIDTH)
        )

    def forward(
        self, s: Tensor, v: Tensor, edge_index: Tensor, unit: Tensor, radial: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scalars (n, c) and vectors (n, 3, c)."""
        receiver, sender = edge_index
        parts = (self.context(s)[sender] * self.filter(radial)).chunk(3, dim=-1)
        s = s + scatter(parts[0], receiver, 0, len(s))
        along = unit[:, :, None] * parts[1][:, None] + v[sender] * parts[2][:, None]
        v = v + scatter(along, receiver, 0, len(s))
        u_v, v_v = self.u(v), self.v(v)
        norm = (v_v.square().sum(dim=1) + 1e-8).sqrt()
        a_vv, a_sv, a_ss = self.update(torch.cat([s, norm], -1)).chunk(3, dim=-1)
        return s + a_ss + a_sv * (u_v * v_v).sum(dim=1), v + a_vv[:, None] * u_v


class PaiNN(LocalNetwork):
    """128 features, cutoff 5 Å, 20 radial functions: the published sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(119, WIDTH)
        self.interactions = nn.ModuleList(Interaction() for _ in range(INTERACTIONS))
        self.scalar_out = nn.Sequential(
            nn.Linear(WIDTH, WIDTH // 2), nn.SiLU(), nn.Linear(WIDTH // 2, 1 + DYADS)
        )
        self.left = nn.Linear(WIDTH, DYADS, bias=False)
        self.right = nn.Linear(WIDTH, DYADS, bias=False)

    def tensor(self, batch: Data) -> Tensor:
        """Mean of the atoms' tensors."""
        length = batch.vectors.norm(dim=1)
        unit = batch.vectors / length[:, None]
        radial = soft_one_hot_linspace(length, 0.0, CUTOFF, N_RADIAL, basis="bessel", cutoff=True)
        s = self.embed(batch.z)
        v = s.new_zeros(len(s), 3, WIDTH)
        for interaction in self.interactions:
            s, v = interaction(s, v, batch.edge_index, unit, radial)
        trace, gates = self.scalar_out(s).tensor_split([1], dim=-1)
        atoms = trace[:, :, None] * torch.eye(3, dtype=s.dtype, device=s.device)
        atoms = atoms + torch.einsum("nic,nc,njc->nij", self.left(v), gates, self.right(v))
        found: Tensor = scatter(atoms, batch.batch, 0, batch.num_graphs, reduce="mean")
        return found
