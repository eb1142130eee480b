"""GoeCTP (Hua et al., arXiv 2410.02372 and 2601.04755): an invariant network in a frame of its own.

The lattice vectors, as columns of L, have a polar decomposition L = Q·H with Q orthogonal and H
symmetric positive definite. Turned by Qᵀ, every description of a turned crystal becomes the same;
any network may predict a tensor ε' there, and ε = Q·ε'·Qᵀ turns with the crystal.

Three networks: ``goectp``, CGCNN's gated convolution (Xie and Grossman, Phys. Rev. Lett. 120,
145301) with bond directions in the frame beside their lengths; ``goectp-mat``, Matformer's (Yan et
al., NeurIPS 2022) without its self-connecting edges of the lattice vectors; ``goectp-icom``,
iComFormer's (Yan et al., ICLR 2024), whose bonds look at the three shortest lattice vectors by an
edge-wise transformer before atoms look at bonds (there after the first time). The latter two see
lengths and angles alone: of the frame they know nothing.

The frame depends on which lattice vectors describe the crystal. As published they are those given;
``standard`` takes those of the standardised primitive cell instead.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import CGConv, global_mean_pool
from torch_geometric.utils import scatter

from models.papers.graphs import SHELL, atom_features, graph, nearest
from models.papers.network import PaperNetwork
from screening.symmetry import SYMPREC, Cell, cell_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.cache import FeatureCache

Array = NDArray[np.float64]

WIDTH = 128
NEIGHBOURS = 16
N_RADIAL = 128
LAYERS = 4
DECIMALS = 6
"""Of lattice vectors (Å) before they are standardised."""
COULOMB = 0.75
"""Å: lengths d enter as −0.75/d, between −4 and 0."""


def polar_frame(lattice: Array) -> Array:
    """Q of the polar decomposition of lattice vectors (3, 3), given as rows."""
    u, _, vt = np.linalg.svd(lattice.T)
    return np.asarray(u @ vt)


def standard_cell(cell: Cell) -> Cell:
    """The standardised primitive cell, in the orientation of the crystal."""
    import spglib

    given: tuple[Array, Array, NDArray[np.int64]] = cell
    found = spglib.standardize_cell(given, to_primitive=True, no_idealize=True, symprec=SYMPREC)  # type: ignore[arg-type]
    if found is None:
        return cell
    return np.array(found[0]), np.array(found[1]), np.array(found[2], dtype=np.int64)


def shortest_vectors(lattice: Array) -> Array:
    """The three shortest lattice vectors that span space, each at an acute angle to the first."""
    steps = np.array(list(itertools.product((-2, -1, 0, 1, 2), repeat=3)))
    steps = steps[np.abs(steps).sum(axis=1) > 0]
    vectors = steps @ lattice
    order = np.lexsort((*steps.T, np.round(np.linalg.norm(vectors, axis=1), 4)))
    chosen: list[Array] = []
    for vector in vectors[order]:
        span = np.array([*chosen, vector])
        lengths = np.linalg.norm(span, axis=1)
        if np.linalg.matrix_rank(span / lengths[:, None], tol=1e-3) == len(span):
            # At right angles rounding must not choose the sign.
            acute = not chosen or vector @ chosen[0] > -SHELL
            chosen.append(vector if acute else -vector)
        if len(chosen) == 3:
            break
    return np.array(chosen)


class RadialBasis(nn.Module):
    """Gaussians of a number between two bounds, then a linear map and softplus."""

    centres: Tensor

    def __init__(self, low: float, high: float, width: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(low, high, N_RADIAL), persistent=False)
        self.spacing = (high - low) / (N_RADIAL - 1)
        self.linear = nn.Linear(N_RADIAL, width)

    def forward(self, x: Tensor) -> Tensor:
        gaussians = torch.exp(-((x[:, None] - self.centres) / self.spacing).square())
        return nn.functional.softplus(self.linear(gaussians))


class NodeTransformer(nn.Module):
    """iComFormer's node-wise transformer: gates made of query and key weigh the messages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        # A linear map of concatenated features is the sum of linear maps of each.
        self.key_receiver, self.key_sender = nn.Linear(width, width), nn.Linear(width, width)
        self.key_edge, self.key_out = nn.Linear(width, width), nn.Linear(width, width)
        self.value_receiver, self.value_sender = nn.Linear(width, width), nn.Linear(width, width)
        self.value_edge, self.value_out = nn.Linear(width, width), nn.Linear(width, width)
        self.gate_norm, self.norm = nn.BatchNorm1d(width), nn.BatchNorm1d(width)

    def forward(self, nodes: Tensor, edge_index: Tensor, edges: Tensor) -> Tensor:
        receiver, sender = edge_index
        silu = nn.functional.silu
        key = self.key_receiver(nodes)[receiver] + self.key_sender(nodes)[sender]
        key = self.key_out(silu(key + self.key_edge(edges)))
        value = self.value_receiver(nodes)[receiver] + self.value_sender(nodes)[sender]
        value = self.value_out(silu(value + self.value_edge(edges)))
        gate = self.query(nodes)[receiver] * key / key.shape[-1] ** 0.5
        message = torch.sigmoid(self.gate_norm(gate)) * value
        total = scatter(message, receiver, 0, len(nodes))
        return nn.functional.softplus(nodes + self.norm(total))


class EdgeTransformer(nn.Module):
    """iComFormer's edge-wise transformer: a bond looks at the three lattice vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key_edge, self.key_lattice = nn.Linear(width, width), nn.Linear(width, width)
        self.key_angle, self.key_out = nn.Linear(width, width), nn.Linear(width, width)
        self.value_edge, self.value_lattice = nn.Linear(width, width), nn.Linear(width, width)
        self.value_angle, self.value_out = nn.Linear(width, width), nn.Linear(width, width)
        self.gate_norm, self.norm = nn.BatchNorm1d(width), nn.BatchNorm1d(width)

    def forward(self, edges: Tensor, lattice: Tensor, angles: Tensor, owner: Tensor) -> Tensor:
        """Bonds (e, c), lattice vectors (b, 3, c), angles (e, 3, c), crystal of each bond (e,)."""
        silu = nn.functional.silu
        key = self.key_edge(edges)[:, None] + self.key_lattice(lattice)[owner]
        key = self.key_out(silu(key + self.key_angle(angles)))
        value = self.value_edge(edges)[:, None] + self.value_lattice(lattice)[owner]
        value = self.value_out(silu(value + self.value_angle(angles)))
        gate = self.query(edges)[:, None] * key / key.shape[-1] ** 0.5
        gate = self.gate_norm(gate.flatten(0, 1)).reshape(gate.shape)
        message = (torch.sigmoid(gate) * value).sum(dim=1)
        return nn.functional.softplus(edges + self.norm(message))


class MatformerLayer(nn.Module):
    """Matformer's message passing: attention by components, with a layer norm and a gate.

    Its self-connecting edges are a matter of the graph, which has none here.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.edge = nn.Linear(width, width)
        self.message = nn.Sequential(
            nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.gate_norm, self.norm = nn.LayerNorm(3 * width), nn.BatchNorm1d(width)
        self.gate_out = nn.Linear(3 * width, width)
        self.skip = nn.Linear(width, width)

    def forward(self, nodes: Tensor, edge_index: Tensor, edges: Tensor) -> Tensor:
        receiver, sender = edge_index
        edge = self.edge(edges)
        keys, values = self.key(nodes), self.value(nodes)
        query = self.query(nodes)[receiver]
        key = torch.cat([query * keys[receiver], query * keys[sender], query * edge], -1)
        value = torch.cat([values[receiver], values[sender], edge], -1)
        gate = torch.sigmoid(self.gate_out(self.gate_norm(key / nodes.shape[-1] ** 0.5)))
        total = scatter(gate * self.message(value), receiver, 0, len(nodes))
        found: Tensor = self.skip(nodes) + nn.functional.silu(self.norm(total))
        return found


class GoeCTP(PaperNetwork):
    """Invariant message passing, a mean over atoms, nine numbers, and the turn back.

    Parameters
    ----------
    kind
        ``goectp``, ``goectp-mat`` or ``goectp-icom``.
    layers
        Message passing layers.
    standard
        Take the frame from the standardised cell instead of the one given.
    """

    table: Tensor

    def __init__(self, kind: str, *, layers: int = LAYERS, standard: bool = False) -> None:
        super().__init__()
        self.kind, self.standard = kind, standard
        self.register_buffer("table", atom_features(), persistent=False)
        self.embed = nn.Linear(self.table.shape[1], WIDTH)
        self.radial = RadialBasis(-4.0, 0.0, WIDTH)
        self.layers = nn.ModuleList()
        for _ in range(layers):
            if kind == "goectp":
                self.layers.append(CGConv(WIDTH, dim=WIDTH + 3, aggr="mean", batch_norm=True))
            else:
                self.layers.append(
                    MatformerLayer(WIDTH) if kind == "goectp-mat" else NodeTransformer(WIDTH)
                )
        if kind == "goectp-icom":
            self.angular = RadialBasis(-1.0, 1.0, WIDTH)
            self.edge_layer = EdgeTransformer(WIDTH)
        self.readout = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.out = nn.Linear(WIDTH, 9)
        self.energy = nn.Linear(WIDTH, 1)

    def graph(self, structure: Structure, cache: FeatureCache) -> Data:
        """16 nearest neighbours, the frame, and the shortest lattice vectors."""
        del cache
        return self.graph_of(cell_of(structure))

    def graph_of(self, cell: Cell) -> Data:
        """The same for a cell, whose lattice vectors give the frame."""
        frame = np.eye(3)
        if self.standard:
            # Standardised in the frame of the cell given, and rounded there: the choice between
            # equivalent cells must not depend on how the crystal is turned.
            lattice, positions, species = cell
            frame = polar_frame(lattice)
            cell = standard_cell((np.round(lattice @ frame, DECIMALS), positions, species))
        return self._in_frame(cell, frame)

    def _in_frame(self, cell: Cell, turn: Array) -> Data:
        frame = polar_frame(cell[0])
        edges, vectors = nearest(cell, NEIGHBOURS)
        lattice = shortest_vectors(cell[0])
        return graph(cell[2], edges, vectors @ frame, frame=turn @ frame, lattice=lattice @ frame)

    def pooled(self, batch: Data) -> Tensor:
        """Features of each crystal, (b, c): invariant under rotation and inversion."""
        length = batch.vectors.norm(dim=1)
        nodes = self.embed(self.table[batch.z])
        edges = self.radial(-COULOMB / length)
        index = batch.edge_index
        if self.kind == "goectp":
            edges = torch.cat([edges, batch.vectors / length[:, None]], -1)
            index = index.flip(0)  # torch_geometric's convolutions take the sender first
        if self.kind == "goectp-icom":
            edges = self._with_lattice(batch, edges, length)
        for layer in self.layers:
            nodes = layer(nodes, index, edges)
        found: Tensor = self.readout(global_mean_pool(nodes, batch.batch, batch.num_graphs))
        return found

    def _with_lattice(self, batch: Data, edges: Tensor, length: Tensor) -> Tensor:
        sizes = batch.lattice.norm(dim=-1)
        owner = batch.batch[batch.edge_index[0]]
        projected = torch.einsum("emx,ex->em", batch.lattice[owner], batch.vectors)
        cosine = projected / (length[:, None] * sizes[owner])
        angles = self.angular(cosine.flatten()).reshape(*cosine.shape, -1)
        lattice = self.radial(-COULOMB / sizes.flatten()).reshape(*sizes.shape, -1)
        found: Tensor = self.edge_layer(edges, lattice, angles, owner)
        return found

    def tensor(self, batch: Data) -> Tensor:
        """The tensor in the frame, turned back."""
        own = self.out(self.pooled(batch)).reshape(-1, 3, 3)
        found: Tensor = batch.frame @ own @ batch.frame.transpose(-1, -2)
        return found

    def energies(self, batch: Data) -> Tensor:
        """What pretraining fits: an energy per atom, (b,)."""
        found: Tensor = self.energy(self.pooled(batch))[:, 0]
        return found
