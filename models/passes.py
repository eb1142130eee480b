"""Prediction of a pool in two passes: everything quickly, the best again with force constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.cache import FeatureCache, ForceConstantCache
from models.ensemble import Prediction
from models.predictor import Predictor
from screening.progress import NamedProgress

if TYPE_CHECKING:
    from pymatgen.core import Structure

Indices = NDArray[np.int64]


def in_two_passes(
    ensemble: Predictor,
    structures: Sequence[Structure],
    band_gaps: Sequence[float | None],
    functional: str,
    cache: FeatureCache,
    best: Callable[[Prediction], Indices],
    progress: NamedProgress | None = None,
) -> Prediction:
    """Members' tensors of all crystals.

    Parameters
    ----------
    band_gaps
        In eV (PBE); None where unknown.
    best
        Rows that the second pass is worth its seconds per crystal for, from the first pass.
    """

    def predict(rows: Indices, physics: ForceConstantCache | None) -> Prediction:
        own, gaps = [structures[i] for i in rows], [band_gaps[i] for i in rows]
        return ensemble.predict(own, functional, cache, progress, gaps, physics)

    first = predict(np.arange(len(structures)), None)
    if not ensemble.has_physics:
        return first
    rows = best(first)
    return first.replaced(rows, predict(rows, ForceConstantCache.beside(cache)))
