"""Is a crystal like those that the ensemble was trained on?

It is not if its features are far from theirs, nor if it contains an element that none of them does:
the potential knows that element, the readout has never seen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.crystal import Crystal
from models.data import Inputs

Array = NDArray[np.float32]

COMPONENTS = 24
"""Principal components of the crystals' mean scalars that the distance is measured in."""
QUANTILE = 0.99
"""Share of the training crystals that count as inside."""


@dataclass(frozen=True)
class Domain:
    """Mahalanobis distance of a crystal's mean features from those of the training crystals.

    Attributes
    ----------
    numbers
        Atomic numbers of the elements in the training crystals, rising.
    axes
        (scalars, components), scaled so that the training crystals have unit variance.
    """

    numbers: torch.Tensor
    mean: torch.Tensor
    axes: torch.Tensor
    limit: torch.Tensor

    @classmethod
    def of(cls, inputs: Inputs, numbers: set[int]) -> Domain:
        """From crystals, and the elements of those among them that were trained on."""
        points = _mean_scalars(inputs)
        mean = points.mean(0)
        centred = points - mean
        _, values, axes = torch.linalg.svd(centred, full_matrices=False)
        n = min(COMPONENTS, max(1, len(points) // 10))
        scaled = axes[:n].T / (values[:n] / len(points) ** 0.5 + 1e-3)
        distances = (centred @ scaled).norm(dim=1)
        known = torch.tensor(sorted(numbers), dtype=torch.int64)
        return cls(known, mean, scaled, distances.quantile(QUANTILE).reshape(1))

    def distances(self, inputs: Inputs, crystals: Sequence[Crystal]) -> Array:
        """Distance in units of the limit, (n,): above 1 a crystal is outside.

        Every element that no training crystal contains adds 1.
        """
        known = set(self.numbers.tolist())
        strangers = [len(set(c.cell[2].tolist()) - known) for c in crystals]
        centred = _mean_scalars(inputs) - self.mean
        far = np.asarray(((centred @ self.axes).norm(dim=1) / self.limit).numpy())
        return np.asarray(far + np.array(strangers), dtype=np.float32)


def _mean_scalars(inputs: Inputs) -> torch.Tensor:
    owner = torch.as_tensor(np.repeat(np.arange(len(inputs.sizes)), inputs.sizes))
    weighted = inputs.scalars.cpu() * inputs.weights.cpu()[:, None]
    return torch.zeros(len(inputs.sizes), weighted.shape[1]).index_add(0, owner, weighted)
