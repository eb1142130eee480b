"""Errors of predicted dielectric tensors, in the papers' measures and in ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screening.tensors import DielectricTensors, mean_permittivity

Array = NDArray[np.float64]

UPPER = np.triu_indices(3)


def tensor_errors(predicted: Array, true: Array) -> dict[str, float]:
    """Errors of tensors (n, 3, 3).

    Returns
    -------
    dict
        ``mae_6``: mean absolute error over the 6 unique elements (DTNet, eq. 3); ``mae_9``: over
        all 9 (GoeCTP); ``scalar``: of ε̄; ``log_scalar``: of ln ε̄; ``log_anisotropy``: of
        ln(λmax/λmin); ``median_relative``: median relative error of ε̄.
    """
    error = np.abs(predicted - true)
    mean_p, mean_t = mean_permittivity(predicted), mean_permittivity(true)
    eigen_p, eigen_t = np.linalg.eigvalsh(predicted), np.linalg.eigvalsh(true)
    ratio_p, ratio_t = (e[:, 2] / np.maximum(e[:, 0], 1e-3) for e in (eigen_p, eigen_t))
    return {
        "mae_6": float(error[:, UPPER[0], UPPER[1]].mean()),
        "mae_9": float(error.mean()),
        "scalar": float(np.abs(mean_p - mean_t).mean()),
        "log_scalar": float(np.abs(np.log(mean_p / mean_t)).mean()),
        "log_anisotropy": float(np.abs(np.log(ratio_p / ratio_t)).mean()),
        "median_relative": float(np.median(np.abs(mean_p / mean_t - 1))),
    }


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
        Row numbers of each member's test crystals.
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
                for key in per_member[0]
            }
    return report
