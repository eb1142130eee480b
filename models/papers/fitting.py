"""One published network from its name to its weights, the same way wherever one is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from models.papers.names import parse
from models.papers.network import PaperNetwork
from models.papers.pretraining import pretrained
from models.papers.recipes import build, recipe
from models.papers.training import Budget, train
from screening.progress import Progress

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.cache import FeatureCache

Indices = NDArray[np.int64]


def graphs_of(name: str, structures: Sequence[Structure], cache: FeatureCache) -> list[Data]:
    """What every network of a name sees of crystals."""
    with torch.random.fork_rng(devices=[]):
        network = build(name, cache.encoder.layout)
    return [network.graph(structure, cache) for structure in structures]


def fitted(
    name: str,
    cache: FeatureCache,
    graphs: Sequence[Data],
    targets: Tensor,
    training: Indices,
    validation: Indices,
    budget: Budget,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> tuple[PaperNetwork, dict[str, Any]]:
    """Build a network, pretrained if its name says so, and fit it by its recipe.

    Parameters
    ----------
    targets
        Relative permittivities of all graphs, (n, 3, 3), or their means, (n,), if only those are
        known.
    training, validation
        Rows of the graphs; without training rows the network stays as it was made.
    seed
        Fixes the initial weights, the batches and the dropout.

    Returns
    -------
    tuple
        The network, and what :func:`models.papers.training.train` and the pretraining tell.

    Raises
    ------
    UserError
        There are no pretrained weights.
    """
    choice = parse(name)
    layout = cache.encoder.layout  # loading the encoder draws random numbers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(name, layout)
    facts: dict[str, Any] = {}
    if "pretrained" in choice.options:
        facts["pretraining"] = pretrained(network, choice, cache.root)
    if len(training):
        whole = targets.dim() == 3
        tensors = targets if whole else targets[:, None, None] * torch.eye(3)
        network.prepare([graphs[i] for i in training])
        network.set_targets(tensors[training])
        facts |= train(
            network, graphs, targets, training, validation, recipe(choice), budget, seed, device,
            progress, None if whole else network.means,
        )  # fmt: skip
    return network, facts
