"""The network that gives both parts of the dielectric tensor, and what it is fitted to.

Per crystal it predicts two symmetric matrices L (see :mod:`models.targets`). Where Born charges and
force constants have given a physical estimate L_ph of the ionic part, the network predicts how far
to trust it and what to add,

    L_ionic = w·(L_ph − L_0) + Δ,        0 < w < 1,

with L_0 the mean of the training targets; where not, w is 0. So the estimate's singular growth as
a polar mode softens is kept, and its systematic errors are learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data import Batch, Inputs
from models.inputs import GAP, PHYSICS
from models.readout import Dropout, Readout

HIDDEN = 0.25
"""Share of crystals per step whose band gap, or physical estimate, is hidden in training, so that
one network answers with and without."""
LARGEST_VARIANCE = 0.5
"""Of the logarithms of eigenvalues; beyond it the second order says nothing."""


@dataclass(frozen=True)
class Labels:
    """What is known of the electronic and the ionic part of n crystals.

    Attributes
    ----------
    targets
        L, (n, 2, 3, 3).
    known
        1 where L is known, (n, 2).
    means
        Target of the mean permittivity, (n, 2).
    weak
        1 where nothing but the mean is known, (n, 2).
    """

    targets: Tensor
    known: Tensor
    means: Tensor
    weak: Tensor


class DielectricModel:
    """Network, physical estimate and how they make the targets.

    Parameters
    ----------
    estimate
        L_ph of all crystals, (m, n, 3, 3) or (1, n, 3, 3) for all members; anything where the
        context says that there is none.
    offset
        L_0, mean diagonal target of the ionic part.
    """

    def __init__(self, network: Readout, inputs: Inputs, estimate: Tensor, offset: float) -> None:
        self.network = network
        self.inputs = inputs
        self.estimate = estimate
        self.offset = offset * torch.eye(3, device=inputs.device)

    def __call__(
        self, crystals: NDArray[np.int64], dropout: Dropout, *, hide: bool = False
    ) -> Tensor:
        """L of crystals (m, b) → (m, b, 2, 3, 3), invariant under their point groups."""
        batch = self.inputs.batch(crystals)
        context = self._hidden(batch, dropout) if hide else batch.context
        tensors, scalars = self.network(*batch.with_context(context), dropout)
        mean = batch.mean_over_atoms(tensors)
        trust = torch.sigmoid(batch.mean_over_atoms(scalars)[..., 0]) * context[..., PHYSICS.start]
        chosen = torch.as_tensor(crystals, device=self.inputs.device)
        member = torch.arange(len(chosen), device=chosen.device)[:, None] % len(self.estimate)
        estimate = self.estimate[member, chosen]
        ionic = mean[:, :, 1] + trust[..., None, None] * (estimate - self.offset)
        return batch.projected(torch.stack([mean[:, :, 0], ionic], dim=2))

    @staticmethod
    def _hidden(batch: Batch, dropout: Dropout) -> Tensor:
        """Context of a batch, band gaps and estimates hidden from a part of the crystals."""
        assert dropout.generators is not None
        masks = torch.ones_like(batch.context)
        for mask, generator in zip(masks, dropout.generators, strict=True):
            for columns in (GAP, PHYSICS):
                draw = torch.rand(len(mask), 1, generator=generator, device=mask.device)
                mask[:, columns] = (draw >= HIDDEN).float()
        return batch.context * masks


class DielectricLoss:
    """Mean absolute error of the known targets, and of the mean where only that is known."""

    def __init__(self, model: DielectricModel, labels: Labels) -> None:
        self.model = model
        self.labels = labels

    def __call__(self, crystals: NDArray[np.int64], dropout: Dropout) -> Tensor:
        """Per member, (m,)."""
        found = self.model(crystals, dropout, hide=True)
        index = torch.as_tensor(crystals, device=self.model.inputs.device)
        error = (found - self.labels.targets[index]).abs().mean(dim=(-1, -2))
        known, weak = self.labels.known[index], self.labels.weak[index]
        # As an isotropic error of that size would count among the nine elements.
        scalar = (log_of_mean(found) - self.labels.means[index]).abs() / 3
        total = (error * known + scalar * weak).sum(dim=(1, 2))
        return total / (known + weak).sum(dim=(1, 2)).clamp(1.0)


def log_of_mean(targets: Tensor) -> Tensor:
    """L (..., 3, 3) → what :func:`models.targets.to_target` makes of the mean eigenvalue, (...).

    To second order in the anisotropy: the logarithm of a mean is the mean of the logarithms plus
    half their variance.
    """
    mean = targets.diagonal(dim1=-2, dim2=-1).mean(-1)
    deviatoric = targets - mean[..., None, None] * torch.eye(3, device=targets.device)
    return mean + (deviatoric.square().sum(dim=(-1, -2)) / 6).clamp(max=LARGEST_VARIANCE)
