"""A small trained ensemble, ensembles of random networks, and features that are computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.cache import FeatureCache
from models.calibration import Calibration
from models.data import Normalisation
from models.domain import Domain
from models.encoder import rank2_basis
from models.ensemble import LATENT, Ensemble
from models.fitting import fit
from models.inputs import N_CONTEXT, Examples
from models.readout import Readout, Width
from models.settings import ModelSettings
from screening.builtin import builtin_table
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


CUBIC = """
MgO SrS KF SrSe Li2Te CaO BP AlP Be2C SrCl2 BaS LiCl K2S KH KBr GaN NaF NaBr Li2O RbI BeS CsI Li2Se
NaI Na2S GaAs AgCl CsBr RbCl BeSe CaS LiBr RbBr NaH CsCl HfO2 TlCl CsH Li2S
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Features of the smaller encoder, kept for the session and away from the user's own."""
    return FeatureCache("7net-0", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def named() -> Callable[[str], list[KnownMaterial]]:
    """``named("LiF MgO")``: crystals of the built-in table."""
    known = {k.material.material_id: k for k in builtin_table()}
    return lambda names: [known[name] for name in names.split()]


@pytest.fixture(scope="session")
def builtin(named: Callable[[str], list[KnownMaterial]]) -> list[KnownMaterial]:
    """Cubic polar crystals that come with the software; the same ones however their table grows."""
    return named(CUBIC)


@pytest.fixture(scope="session")
def quick() -> ModelSettings:
    """Settings of a training that takes seconds."""
    return ModelSettings(
        encoder="7net-0", members=2, min_steps=60, max_steps=60, batch_size=8, device="cpu"
    )


@pytest.fixture(scope="session")
def trained(builtin: list[KnownMaterial], quick: ModelSettings, cache: FeatureCache) -> Ensemble:
    """Trained on the built-in crystals."""
    return fit(builtin, quick, 0, cache)


@pytest.fixture(scope="session")
def wild(cache: FeatureCache, prototypes: dict[str, Any]) -> Callable[..., Ensemble]:
    """``wild(isotropic, anisotropic)``: random networks with their output weights multiplied.

    What the last layers of a fresh network put out is small; multiplied, it makes predictions
    that differ from crystal to crystal and are far from isotropic.
    """
    layout = cache.encoder.layout
    crystals = list(prototypes.values())
    none = [None] * len(crystals)
    examples = Examples.of(crystals, np.zeros(len(crystals), np.int64), none, cache, layout)
    normalise = Normalisation.of(examples.rows, layout)
    numbers = {int(n) for crystal in examples.crystals for n in crystal.cell[2]}
    domain = Domain.of(examples.inputs(normalise, layout, torch.device("cpu")), numbers)
    settings = ModelSettings(encoder="7net-0", members=3, device="cpu")

    def make(isotropic: float, anisotropic: float) -> Ensemble:
        inputs = Width(layout.scalars + N_CONTEXT, layout.vectors, layout.tensors)
        readout = Readout(settings.members, inputs, LATENT, rank2_basis(), n_tensors=2, n_scalars=1)
        readout.reset([1, 2, 3], torch.tensor([[*MEAN_TARGETS, 0.0]] * settings.members))
        with torch.no_grad():
            readout.scalar_out.weight *= isotropic
            readout.vector_out.weight *= anisotropic**0.5  # enters squared
            readout.tensor_out.weight *= anisotropic
        return Ensemble(
            settings, layout, readout, None, normalise, domain, MEAN_TARGETS[1],
            Calibration.none(), {}, "untrained",
        )  # fmt: skip

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
