"""Errors of predicted dielectric tensors, in the papers' measures and in ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screening.tensors import DielectricTensors, mean_permittivity

Array = NDArray[np.float64]

UPPER = np.triu_indices(3)
OFF_DIAGONAL = np.triu_indices(3, 1)
PAPERS_LIMIT = 100.0
"""The papers leave out tensors with an element beyond this."""
SMALLEST = 1e-3
"""Eigenvalues and means below this are not told apart from each other in ratios."""
PARTS = ("electronic", "ionic", "static")


def material_errors(predicted: Array, true: Array) -> dict[str, Array]:
    """Errors of every tensor of (n, 3, 3); the mean of each over materials is the metric.

    Returns
    -------
    dict
        Arrays (n,). ``mae_6``: mean absolute error over the 6 unique elements (DTNet, eq. 3);
        ``mae_9``: over all 9 (GoeCTP); ``mae_9_below_100``: the same where every element of the
        true tensor is below 100, otherwise not a number; ``diagonal``, ``off_diagonal``;
        ``scalar``: of ε̄ = trace/3, the mean of the diagonal; ``log_scalar``: of ln ε̄;
        ``eigenvalues``: mean over the three; ``log_anisotropy``: of ln(λmax/λmin); ``within_25``:
        1 where ε̄ is right within 25 %, otherwise 0.
    """
    error = np.abs(predicted - true)
    mean_p, mean_t = (np.maximum(mean_permittivity(x), SMALLEST) for x in (predicted, true))
    eigen_p, eigen_t = np.linalg.eigvalsh(predicted), np.linalg.eigvalsh(true)
    ratio_p, ratio_t = (
        e[:, 2].clip(SMALLEST) / np.maximum(e[:, 0], SMALLEST) for e in (eigen_p, eigen_t)
    )
    ordinary = (np.abs(true) < PAPERS_LIMIT).all(axis=(1, 2))
    return {
        "mae_6": error[:, UPPER[0], UPPER[1]].mean(axis=1),
        "mae_9": error.mean(axis=(1, 2)),
        "mae_9_below_100": np.where(ordinary, error.mean(axis=(1, 2)), np.nan),
        "diagonal": error[:, range(3), range(3)].mean(axis=1),
        "off_diagonal": error[:, OFF_DIAGONAL[0], OFF_DIAGONAL[1]].mean(axis=1),
        "scalar": np.abs(mean_p - mean_t),
        "log_scalar": np.abs(np.log(mean_p / mean_t)),
        "eigenvalues": np.abs(eigen_p - eigen_t).mean(axis=1),
        "log_anisotropy": np.abs(np.log(ratio_p / ratio_t)),
        "within_25": (np.abs(mean_p / mean_t - 1) <= 0.25).astype(float),
    }


def tensor_errors(predicted: Array, true: Array) -> dict[str, float]:
    """Means of :func:`material_errors`, and ``median_relative``, the median relative error of ε̄."""
    mean_p, mean_t = mean_permittivity(predicted), mean_permittivity(true)
    errors = material_errors(predicted, true)
    found = {name: float(np.nanmean(e)) for name, e in errors.items() if np.isfinite(e).any()}
    return {**found, "median_relative": float(np.median(np.abs(mean_p / mean_t - 1)))}


def held_out_metrics(
    electronic: Array,
    ionic: Array,
    true: Sequence[DielectricTensors],
    held_out: Sequence[NDArray[np.int64]],
) -> dict[str, Any]:
    """Mean over members of the errors on crystals that the member has not seen.

    Parameters
    ----------
    electronic, ionic
        Predictions of every member for every crystal, (members, n, 3, 3).
    true
        Known tensors of the n crystals.
    held_out
        Row numbers of the crystals that each member has not been trained on.
    """
    static = electronic + ionic
    report: dict[str, Any] = {}
    for part, predicted in (("electronic", electronic), ("static", static)):
        per_member = []
        for member, rows in enumerate(held_out):
            known = [int(i) for i in rows if getattr(true[int(i)], part) is not None]
            if known:
                labels = np.stack([getattr(true[i], part) for i in known])
                per_member.append(tensor_errors(predicted[member, known], labels))
        if per_member:
            report[part] = {
                key: round(float(np.mean([errors[key] for errors in per_member])), 4)
                for key in set.intersection(*(set(errors) for errors in per_member))
            }
    return report
