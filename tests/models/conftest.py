"""A small trained ensemble, ensembles of random networks, and features that are computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.cache import FeatureCache
from models.data import AtomRows, Normalisation
from models.encoder import rank2_basis
from models.ensemble import LATENT, Ensemble
from models.readout import Readout, Width
from models.settings import ModelSettings
from screening.builtin import builtin_hidden, builtin_known
from screening.material import KnownMaterial

MEAN_TARGETS = (1.2, 1.0)
"""Typical diagonal targets: ε∞ around 4 and an ionic part around 2."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on these small matrices cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Features of the smaller encoder, kept for the session and away from the user's own."""
    return FeatureCache("7net-0", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def builtin() -> list[KnownMaterial]:
    """The 39 cubic crystals that come with the software."""
    return builtin_known() + builtin_hidden()


@pytest.fixture(scope="session")
def quick() -> ModelSettings:
    """Settings of a training that takes seconds."""
    return ModelSettings(
        encoder="7net-0", members=2, min_steps=60, max_steps=60, batch_size=8, device="cpu"
    )


@pytest.fixture(scope="session")
def trained(builtin: list[KnownMaterial], quick: ModelSettings, cache: FeatureCache) -> Ensemble:
    """Trained on the built-in crystals."""
    return Ensemble.fit(builtin, quick, 0, cache)


@pytest.fixture(scope="session")
def wild(cache: FeatureCache, prototypes: dict[str, Any]) -> Callable[..., Ensemble]:
    """``wild(isotropic, anisotropic)``: random networks with their output weights multiplied.

    What the last layers of a fresh network put out is small; multiplied, it makes predictions
    that differ from crystal to crystal and are far from isotropic.
    """
    features = cache.features(list(prototypes.values()))
    layout = cache.encoder.layout
    atoms = AtomRows(features, np.zeros(len(features), dtype=np.int64), torch.device("cpu"))
    normalise = Normalisation.of(atoms, layout)
    settings = ModelSettings(encoder="7net-0", members=3, device="cpu")

    def make(isotropic: float, anisotropic: float) -> Ensemble:
        inputs = Width(layout.scalars + 1, layout.vectors, layout.tensors)
        readout = Readout(settings.members, inputs, LATENT, rank2_basis())
        readout.reset([1, 2, 3], torch.tensor([MEAN_TARGETS] * settings.members))
        with torch.no_grad():
            readout.scalar_out.weight *= isotropic
            readout.vector_out.weight *= anisotropic**0.5  # enters squared
            readout.tensor_out.weight *= anisotropic
        return Ensemble(settings, layout, readout, normalise, {}, "untrained")

    return make


@pytest.fixture
def fresh_cache(tmp_path: Path, cache: FeatureCache) -> FeatureCache:
    """An empty cache of its own that shares the loaded encoder."""
    fresh = FeatureCache("7net-0", tmp_path / "cache")
    fresh._encoder = cache.encoder
    return fresh


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch, cache: FeatureCache) -> list[int]:
    """Numbers of atoms of every crystal that the encoder is given, in order."""
    sizes: list[int] = []
    original = cache.encoder.encode

    def counted(cells: Sequence[Any]) -> Any:
        sizes.extend(len(cell[2]) for cell in cells)
        return original(cells)

    monkeypatch.setattr(cache.encoder, "encode", counted)
    return sizes
