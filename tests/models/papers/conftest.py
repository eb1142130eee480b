"""Published networks in double precision, where their symmetries hold to the last digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from models.cache import FeatureCache
from models.papers.network import PaperNetwork
from models.papers.recipes import build

OUTPUTS = ("out", "scalar_out", "vector_out", "tensor_out")


@pytest.fixture
def double(cache: FeatureCache, prototypes: dict[str, Any]) -> Iterator[None]:
    """Networks and graphs are made in double precision; the encoder is not."""
    for own in (cache, cache.untrained):
        own.reduced(list(prototypes.values()))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def made(cache: FeatureCache) -> Callable[[str], PaperNetwork]:
    """``made(name)``: a random network, ready to be evaluated."""

    def make(name: str) -> PaperNetwork:
        torch.manual_seed(7)
        network = build(name, cache.encoder.layout)
        # Fresh output layers are nearly isotropic; what is tested shall not be.
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if key.startswith(OUTPUTS) and parameter.dim() > 1:
                    parameter *= 3
        return network.eval()

    return make
