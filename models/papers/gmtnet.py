"""GMTNet (Yan et al., ICML 2024): crystal-level equivariant features, and symmetry enforced.

Node-wise transformers on invariant features; then messages that carry the spherical harmonics of
the bonds, degrees 0 and 2, weighed by the features of both atoms and the bond. Their mean over a
crystal is mixed at the level of the crystal, where the tensor is read off, and projected on the
point group, as the paper's symmetry enforcement does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from models.crystal import Crystal
from models.papers.goectp import COULOMB, NEIGHBOURS, WIDTH, NodeTransformer, RadialBasis
from models.papers.graphs import (
    apply_projector,
    atom_features,
    graph,
    nearest,
    projector,
    spherical_basis,
)
from models.papers.network import PaperNetwork

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.cache import FeatureCache

LAYERS = 2
CHANNELS = 32


class GMTNet(PaperNetwork):
    """Two node-wise transformers of 128 features, 16 nearest neighbours."""

    table: Tensor
    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", atom_features(), persistent=False)
        self.register_buffer("basis", spherical_basis(), persistent=False)
        self.embed = nn.Linear(self.table.shape[1], WIDTH)
        self.radial = RadialBasis(-4.0, 0.0, WIDTH)
        self.layers = nn.ModuleList(NodeTransformer(WIDTH) for _ in range(LAYERS))
        self.receiver, self.sender = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.edge, self.weights = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * CHANNELS)
        self.mix = nn.Sequential(
            nn.Linear(WIDTH + 2 * CHANNELS, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1 + CHANNELS)
        )
        self.combine = nn.Linear(CHANNELS, CHANNELS, bias=False)

    def graph(self, structure: Structure, cache: FeatureCache) -> Data:
        """16 nearest neighbours in the primitive cell, and the point group."""
        del cache
        crystal = Crystal.of(structure)
        edges, vectors = nearest(crystal.cell, NEIGHBOURS)
        return graph(crystal.cell[2], edges, vectors, projector=projector(crystal))

    def tensor(self, batch: Data) -> Tensor:
        """From the crystals' features of degrees 0 and 2."""
        receiver, sender = batch.edge_index
        length = batch.vectors.norm(dim=1)
        unit = batch.vectors / length[:, None]
        nodes, edges = self.embed(self.table[batch.z]), self.radial(-COULOMB / length)
        for layer in self.layers:
            nodes = layer(nodes, batch.edge_index, edges)
        mixed = self.receiver(nodes)[receiver] + self.sender(nodes)[sender] + self.edge(edges)
        even, second = self.weights(nn.functional.silu(mixed)).chunk(2, dim=-1)
        harmonics = torch.einsum("ei,ej,kij->ek", unit, unit, self.basis)
        rank2 = (harmonics[:, :, None] * second[:, None]).flatten(1)
        size = batch.num_graphs
        atoms = torch.cat(
            [nodes, scatter(torch.cat([even, rank2], -1), receiver, 0, len(nodes))], 1
        )
        crystal = scatter(atoms, batch.batch, 0, size, reduce="mean")
        scalars, rank2 = crystal[:, : WIDTH + CHANNELS], crystal[:, WIDTH + CHANNELS :]
        rank2 = self.combine(rank2.unflatten(1, (5, CHANNELS)))
        norms = (rank2.square().sum(dim=1) + 1e-8).sqrt()
        trace, gates = self.mix(torch.cat([scalars, norms], -1)).tensor_split([1], dim=-1)
        deviatoric = torch.einsum("bkc,bc,kij->bij", rank2, gates, self.basis)
        eye = torch.eye(3, dtype=trace.dtype, device=trace.device)
        return apply_projector(batch.projector, trace[:, :, None] * eye + deviatoric)
