"""What held-out crystals teach about the error bars of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.calibration import ENOUGH, PARTS, Calibration, Scale, quantiles, spread_of
from models.ensemble import Prediction, log_errors
from models.targets import targets_of
from screening.material import KnownMaterial

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def calibrated(
    targets: Array,
    known: Sequence[KnownMaterial],
    held_out: Indices,
    physics: Array,
    finished: Callable[[Calibration], Prediction],
) -> Calibration:
    """Scales and quantiles from crystals that no member was trained on.

    Parameters
    ----------
    targets
        Members' L of all ``known``, (members, n, 2, 3, 3).
    held_out
        Rows of the crystals that nobody was trained on.
    physics
        1 where there is a physical estimate, (n,).
    finished
        Predictions of all ``known`` with a calibration.
    """
    labels, mask = targets_of([k.tensors for k in known])
    scales = []
    for part in range(2):
        rows = held_out[mask[held_out, part] > 0]
        if len(rows) < ENOUGH:
            return Calibration.assumed()
        predicted = targets[:, rows, part]
        errors = np.trace(predicted.mean(axis=0) - labels[rows, part], axis1=-2, axis2=-1) / 3
        own = physics[rows] if part else np.zeros(len(rows))
        scales.append(Scale.fitted(errors, spread_of(predicted), own))
    electronic, ionic = scales
    normal = Calibration.none().quantiles
    prediction = finished(Calibration(electronic, ionic, normal, len(held_out)))
    bounds = {}
    for name in PARTS:
        rows = np.array([i for i in held_out if getattr(known[i].tensors, name) is not None])
        true = np.stack([getattr(known[i].tensors, name) for i in rows])
        bounds[name] = quantiles(*log_errors(prediction, name, true, rows))
    return Calibration(electronic, ionic, bounds, len(held_out))
