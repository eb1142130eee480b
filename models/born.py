"""Born effective charges from the encoder's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data import CRYSTALS_PER_CHUNK, Inputs, Normalisation
from models.physics import neutral
from models.readout import Dropout, Readout

if TYPE_CHECKING:
    from models.encoder import FeatureLayout
    from models.inputs import Examples

Array = NDArray[np.float64]


class BornLoss:
    """Mean absolute error of the Born charges of the representatives.

    Parameters
    ----------
    charges
        Labels of the representatives of all crystals, (rows, 3, 3); not a number where unknown.
    """

    def __init__(self, network: Readout, inputs: Inputs, charges: Tensor) -> None:
        self.network = network
        self.inputs = inputs
        self.charges = charges

    def __call__(self, crystals: NDArray[np.int64], dropout: Dropout) -> Tensor:
        """Per member, (m,)."""
        batch = self.inputs.batch(crystals)
        found, _ = self.network(*batch.with_context(), dropout)
        error = (found[:, :, 0] - self.charges[batch.atoms]).abs().mean(dim=(-1, -2))
        loss: Tensor = (error * batch.weight).sum(dim=1) / batch.per_member
        return loss


@dataclass(frozen=True)
class BornNetwork:
    """A trained network, whoever trained it, with the scales of what it was trained on."""

    readout: Readout
    normalise: Normalisation

    @torch.no_grad()
    def charges(
        self, examples: Examples, layout: FeatureLayout, device: torch.device
    ) -> list[Array]:
        """Every member's Born charges of all atoms, one array (m, n, 3, 3) per crystal.

        They have the symmetry of the crystal and add up to zero.
        """
        members = self.readout.scalar_in.weight.shape[0]
        readout = self.readout.to(device)
        charges = []
        for start in range(0, len(examples.rows), CRYSTALS_PER_CHUNK):
            chunk = slice(start, start + CRYSTALS_PER_CHUNK)
            inputs = examples.inputs(self.normalise, layout, device, chunk)
            batch = inputs.batch(np.tile(np.arange(len(inputs.sizes)), (members, 1)))
            tensors, _ = readout(*batch.with_context(), Dropout(0.0))
            found = tensors[:, :, 0].cpu().numpy().astype(float)
            parts = np.split(found, np.cumsum(inputs.sizes)[:-1], axis=1)
            for crystal, part in zip(examples.crystals[chunk], parts, strict=True):
                allowed = np.stack([crystal.site_symmetric(p) for p in part])
                charges.append(neutral(crystal.expanded_tensors(allowed)))
        return charges
