"""Born effective charges from the encoder's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.crystal import Crystal
from models.data import Inputs, Normalisation
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


@torch.no_grad()
def born_charges(network: Readout, inputs: Inputs, crystals: Sequence[Crystal]) -> list[Array]:
    """Every member's Born charges of all atoms, one array (m, n, 3, 3) per crystal.

    They have the symmetry of the crystal and add up to zero.
    """
    members = network.scalar_in.weight.shape[0]
    rows = np.tile(np.arange(len(inputs.sizes)), (members, 1))
    batch = inputs.batch(rows)
    found = network(*batch.with_context(), Dropout(0.0))[0][:, :, 0].cpu().numpy().astype(float)
    parts = np.split(found, np.cumsum(inputs.sizes)[:-1], axis=1)
    charges = []
    for crystal, part in zip(crystals, parts, strict=True):
        allowed = np.stack([crystal.site_symmetric(p) for p in part])
        charges.append(neutral(crystal.expanded_tensors(allowed)))
    return charges


@dataclass(frozen=True)
class BornNetwork:
    """A trained network, whoever trained it, with the scales of what it was trained on."""

    readout: Readout
    normalise: Normalisation

    def charges(
        self, examples: Examples, layout: FeatureLayout, device: torch.device
    ) -> list[Array]:
        """Every member's Born charges of all atoms, as :func:`born_charges` gives them."""
        inputs = examples.inputs(self.normalise, layout, device)
        return born_charges(self.readout.to(device), inputs, examples.crystals)
