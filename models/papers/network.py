"""What all published models have in common: crystal → graph → 3×3 tensor.

Shapes: a batch (torch_geometric's) of b crystals with n atoms and e edges in all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from models.papers.graphs import graph, neighbours
from screening.symmetry import primitive_cell

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.cache import FeatureCache

CUTOFF = 5.0
"""Å, of the networks that see all neighbours within one."""


class PaperNetwork(nn.Module, ABC):
    """Base of the published models.

    The permittivity is mean·I + scale·``tensor(batch)``, with mean and scale of the training
    labels, so that every model begins at the mean and works with numbers of order one.
    """

    mean: Tensor
    scale: Tensor
    differentiates = False
    """Whether ``tensor`` takes derivatives by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    @abstractmethod
    def graph(self, structure: Structure, cache: FeatureCache) -> Data:
        """What the model sees of a crystal."""

    @abstractmethod
    def tensor(self, batch: Data) -> Tensor:
        """The network's own output, symmetric (b, 3, 3), in the frame of each structure."""

    def prepare(self, graphs: Sequence[Data]) -> None:
        """Take from the training crystals what the network needs of them; by default nothing."""

    def set_targets(self, targets: Tensor) -> None:
        """Take mean and scale from the labels (n, 3, 3) that it will be trained on."""
        means = targets.diagonal(dim1=-2, dim2=-1).mean(-1)
        self.mean.copy_(means.mean())
        self.scale.copy_((means - means.mean()).abs().mean() + 0.1)

    def forward(self, batch: Data) -> Tensor:
        """Relative permittivities, (b, 3, 3)."""
        found = self.tensor(batch)
        symmetric = (found + found.transpose(-1, -2)) / 2
        return self.mean * torch.eye(3, dtype=found.dtype, device=found.device) + (
            self.scale * symmetric
        )

    def means(self, batch: Data) -> Tensor:
        """Thirds of their traces, (b,)."""
        found: Tensor = self(batch).diagonal(dim1=-2, dim2=-1).mean(-1)
        return found

    @property
    def n_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class LocalNetwork(PaperNetwork):
    """A network that sees nothing but the neighbours within ``CUTOFF``."""

    def graph(self, structure: Structure, cache: FeatureCache) -> Data:
        """Neighbours within 5 Å in the primitive cell."""
        del cache
        cell = primitive_cell(structure)
        return graph(cell[2], *neighbours(cell, CUTOFF))
