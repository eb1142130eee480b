"""Trained ensembles on disk: the same training set, settings and seed are never trained twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.cache import FeatureCache
from models.fitting import training_hash, usable
from models.predictor import Predictor, fit, load, save
from models.settings import ModelSettings
from screening.errors import UserError
from screening.material import KnownMaterial
from screening.progress import NamedProgress


def fit_or_reuse(
    known: Sequence[KnownMaterial],
    settings: ModelSettings,
    seed: int,
    cache: FeatureCache,
    directory: Path,
    progress: NamedProgress | None = None,
) -> Predictor:
    """An ensemble trained on ``known``, saved in ``directory``.

    One that lies there already, or in the store of the feature cache, is taken if its training hash
    is the right one; a damaged one is replaced.
    """
    wanted = training_hash(usable(known), settings, seed)
    store = cache.root / "models" / wanted
    for place in (directory, store):
        try:
            ensemble = load(place)
        except UserError:
            continue
        if ensemble.training_hash == wanted:
            if place is store:
                save(ensemble, directory)
            return ensemble
    ensemble = fit(known, settings, seed, cache, progress)
    save(ensemble, store)  # first: what took hours must not be lost with a directory that is full
    save(ensemble, directory)
    return ensemble
