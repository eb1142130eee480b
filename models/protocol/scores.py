"""Metrics with bootstrap intervals, overall and per crystal system, and paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metrics import material_errors

Array = NDArray[np.float64]

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
"""Percentiles of the resampled means."""
SMALLEST_GROUP = 5
"""Crystal systems with fewer test materials are not reported by themselves."""


def resampled_means(errors: Array, seed: int) -> Array:
    """Means over materials of bootstrap resamples, (resamples,); NaN entries do not count."""
    values = errors[np.isfinite(errors)]
    if len(values) == 0:
        return np.full(RESAMPLES, np.nan)
    counts = np.random.default_rng(seed).multinomial(
        len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES
    )
    return np.asarray(counts @ values / len(values))


def scores(predicted: Array, true: Array, systems: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Every metric of :func:`models.metrics.material_errors` as [mean, low, high].

    Returns
    -------
    dict
        ``all`` and each crystal system → ``n`` and the metrics, with 95 % bootstrap intervals.
    """
    errors = material_errors(predicted, true)
    labels = np.array(systems)
    found = {}
    for name in ["all", *sorted(set(systems))]:
        rows = np.ones(len(labels), bool) if name == "all" else labels == name
        if rows.sum() >= SMALLEST_GROUP or name == "all":
            found[name] = {"n": int(rows.sum())} | {
                metric: _with_interval(e[rows], seed) for metric, e in errors.items()
            }
    return found


def _with_interval(errors: Array, seed: int) -> list[float] | None:
    if not np.isfinite(errors).any():
        return None
    low, high = np.percentile(resampled_means(errors, seed), INTERVAL)
    return [round(float(x), 4) for x in (np.nanmean(errors), low, high)]


def paired(first: Array, second: Array, seed: int = 0) -> dict[str, float]:
    """Mean difference ``first − second`` of errors (n,) on the same materials, with its interval.

    The interval says whether one model is better on these materials, which two separate intervals,
    wide with the spread of the materials, do not.
    """
    difference = first - second
    low, high = np.percentile(resampled_means(difference, seed), INTERVAL)
    return {
        "difference": round(float(np.nanmean(difference)), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }
