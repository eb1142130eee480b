"""Which candidates to calculate next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from screening.settings import AcquisitionSettings

Array = NDArray[np.float64]


def acquisition(merits: Array, settings: AcquisitionSettings, seed: int) -> Array:
    """Value of calculating each candidate, shape (n,).

    Parameters
    ----------
    merits
        Figure of merit from every member of the ensemble, (members, n).
    settings
        ``ucb``: upper confidence bound μ + κσ over the members (DTNet: κ = 1.5); ``greedy``: μ;
        ``random``: uniform numbers from ``seed``.
    """
    mean, spread = merits.mean(axis=0), merits.std(axis=0, ddof=1)
    match settings.kind:
        case "ucb":
            return np.asarray(mean + settings.kappa * spread)
        case "greedy":
            return np.asarray(mean)
        case "random":
            return np.asarray(np.random.default_rng(seed).random(merits.shape[1]))


def top(values: Array, n: int, seed: int) -> NDArray[np.int64]:
    """Indices of the ``n`` largest values, best first; ties are broken by ``seed``."""
    ties = np.random.default_rng(seed).permutation(len(values))
    return np.lexsort((ties, -values))[:n].astype(np.int64)
