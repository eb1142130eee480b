"""Is a crystal like those that the ensemble was trained on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

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
    axes
        (scalars, components), scaled so that the training crystals have unit variance.
    """

    mean: torch.Tensor
    axes: torch.Tensor
    limit: torch.Tensor

    @classmethod
    def of(cls, inputs: Inputs) -> Domain:
        """From the training crystals."""
        points = _mean_scalars(inputs)
        mean = points.mean(0)
        centred = points - mean
        _, values, axes = torch.linalg.svd(centred, full_matrices=False)
        n = min(COMPONENTS, max(1, len(points) // 10))
        scaled = axes[:n].T / (values[:n] / len(points) ** 0.5 + 1e-3)
        distances = (centred @ scaled).norm(dim=1)
        return cls(mean, scaled, distances.quantile(QUANTILE).reshape(1))

    def distances(self, inputs: Inputs) -> Array:
        """Distance in units of the limit, (n,): above 1 a crystal is outside."""
        centred = _mean_scalars(inputs) - self.mean
        return np.asarray(((centred @ self.axes).norm(dim=1) / self.limit).numpy())


def _mean_scalars(inputs: Inputs) -> torch.Tensor:
    owner = torch.as_tensor(np.repeat(np.arange(len(inputs.sizes)), inputs.sizes))
    weighted = inputs.scalars.cpu() * inputs.weights.cpu()[:, None]
    return torch.zeros(len(inputs.sizes), weighted.shape[1]).index_add(0, owner, weighted)
