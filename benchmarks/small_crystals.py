"""Crystals of few atoms, with frozen features of all their atoms, for trials that are quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.cache import FeatureCache
from models.data import Inputs, Rows
from models.dielectric import Labels
from models.fitting import labels_of
from models.inputs import N_CONTEXT
from models.protocol.table import TensorTable
from models.settings import FUNCTIONALS
from screening.symmetry import primitive_cell


@dataclass
class Crystals:
    """Small crystals of a part of the split, with frozen features of all their atoms."""

    cells: list[Any]
    frozen: list[torch.Tensor]
    rows: Rows
    context: torch.Tensor
    labels: Labels
    table_rows: np.ndarray

    @classmethod
    def of(cls, table: TensorTable, chosen: np.ndarray, atoms: int, cache: FeatureCache) -> Any:
        """Those of ``chosen`` that have at most so many atoms in their primitive cell."""
        cells = [primitive_cell(table.known[i].material.structure) for i in chosen]
        small = [k for k, cell in enumerate(cells) if len(cell[2]) <= atoms]
        chosen = chosen[small]
        known = [table.known[i] for i in chosen]
        reduced = cache.reduced([k.material.structure for k in known])
        features = cache.features([k.material.structure for k in known])
        context = torch.zeros(len(known), N_CONTEXT)
        context[:, 0] = torch.tensor([float(FUNCTIONALS.index(k.functional)) for k in known])
        rows = Rows.of([c for c, _ in reduced], [f for _, f in reduced], cache.encoder.layout.width)
        return cls(
            [cells[k] for k in small], [torch.from_numpy(np.array(f)).float() for f in features],
            rows, context, labels_of(known, torch.device("cpu")), chosen,
        )  # fmt: skip

    def some(self, index: np.ndarray, features: torch.Tensor, normalise: Any) -> Inputs:
        """Network inputs of some crystals, from the features of all their atoms."""
        sizes = np.array([len(self.cells[i][2]) for i in index])
        weights = np.repeat(1 / sizes, sizes).astype(np.float32)
        return Inputs(
            *normalise(features), self.context[index], sizes, np.cumsum(sizes) - sizes,
            torch.from_numpy(weights), self.rows.projectors[index],
        )  # fmt: skip

    def labels_of(self, index: np.ndarray) -> Labels:
        """Labels of some crystals."""
        own = self.labels
        return Labels(own.targets[index], own.known[index], own.means[index], own.weak[index])
