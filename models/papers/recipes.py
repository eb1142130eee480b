"""The published models by name: how to build them, and how they are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.papers.names import Choice, parse

if TYPE_CHECKING:
    from models.encoder import FeatureLayout
    from models.papers.network import PaperNetwork


@dataclass(frozen=True)
class Recipe:
    """Training of one network: AdamW, batches of 64, Huber loss.

    Attributes
    ----------
    epochs
        Passes over the training set.
    schedule
        Share of the training that is over → factor of the learning rate.
    clip
        Largest norm of the gradient.
    patience
        Passes without a better validation error after which training ends.
    """

    learning_rate: float
    weight_decay: float
    epochs: int
    schedule: Callable[[float], float]
    clip: float = math.inf
    patience: int = 200
    batch_size: int = 64


def cosine(share: float) -> float:
    """Half a cosine, from 1 to 0."""
    return (1 + math.cos(math.pi * share)) / 2


def polynomial(share: float) -> float:
    """From 1 to 0.01."""
    return max(1 - share, 0.01)


DTNET = Recipe(1e-4, 1e-2, 1000, cosine, clip=2.0)
GOECTP = Recipe(1e-3, 1e-5, 200, polynomial)
GOECTP_TUNED = Recipe(1e-3, 1e-5, 40, polynomial)
PRETRAINING = Recipe(1e-3, 1e-5, 500, polynomial)
BASELINE = Recipe(1e-3, 1e-5, 200, cosine, clip=2.0)
"""For the models the two papers compare with: neither says how it trained them."""


def recipe(choice: Choice) -> Recipe:
    """How a model is trained."""
    if choice.base.startswith("dtnet"):
        return DTNET
    if choice.base.startswith("goectp"):
        return GOECTP_TUNED if "pretrained" in choice.options else GOECTP
    return BASELINE


def build(name: str, layout: FeatureLayout) -> PaperNetwork:
    """A fresh network, initialised from torch's random state.

    Raises
    ------
    UserError
        There is no model of that name.
    """
    choice = parse(name)
    if choice.base.startswith("dtnet"):
        from models.papers.dtnet import DTNet

        bonds, trained = choice.base == "dtnet", "random" not in choice.options
        return DTNet(layout, bonds=bonds, layer=choice.layer, trained=trained)
    if choice.base.startswith("goectp"):
        from models.papers.goectp import LAYERS, GoeCTP

        layers = 1 if "1-layer" in choice.options else LAYERS
        return GoeCTP(choice.base, layers=layers, standard="standard" in choice.options)
    from models.papers import etgnn, gmtnet, m3gnet, matten, painn

    baselines: dict[str, Callable[[], PaperNetwork]] = {
        "painn": painn.PaiNN,
        "m3gnet": m3gnet.M3GNet,
        "matten": matten.MatTen,
        "etgnn": etgnn.ETGNN,
        "gmtnet": gmtnet.GMTNet,
    }
    return baselines[choice.base]()
