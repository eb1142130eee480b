"""What crystals that were not trained on teach about the error bars of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.calibration import ENOUGH, LEAST, PARTS, Calibration, Scale, quantiles, spread_of
from models.ensemble import SMALLEST_MEAN, Prediction, log_errors
from models.targets import targets_of
from screening.material import KnownMaterial
from screening.tensors import mean_permittivity

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


def calibrated(
    targets: Array,
    known: Sequence[KnownMaterial],
    unseen: Flags,
    physics: Array,
    finished: Callable[[Calibration], Prediction],
) -> Calibration:
    """Scales and quantiles from crystals that no member was trained on.

    Where these are few, crystals that some member was not trained on join them, each with the
    errors of those members alone, which are a little larger than the ensemble's. A part that next
    to none have keeps what is assumed of it.

    Parameters
    ----------
    targets
        Members' L of all ``known``, (members, n, 2, 3, 3).
    unseen
        Which member was not trained on which crystal, (members, n).
    physics
        1 where there is a physical estimate, (n,).
    finished
        Predictions of all ``known`` with a calibration.
    """
    labels, mask = targets_of([k.tensors for k in known])
    held_out = unseen.all(axis=0)
    taught = [part for part in range(2) if (mask[unseen.any(axis=0), part] > 0).sum() >= LEAST]
    if not taught:
        return Calibration.assumed()
    enough = all((mask[held_out, part] > 0).sum() >= ENOUGH for part in taught)
    used = np.flatnonzero((held_out if enough else unseen.any(axis=0)) & mask.any(axis=1))
    weights = unseen / np.maximum(1, unseen.sum(axis=0))
    assumed = Calibration.assumed()
    scales = [assumed.electronic, assumed.ionic]
    for part in taught:
        rows = used[mask[used, part] > 0]
        predicted = np.einsum("mn,mnij->nij", weights[:, rows], targets[:, rows, part])
        errors = np.trace(predicted - labels[rows, part], axis1=-2, axis2=-1) / 3
        spread = spread_of(targets[:, rows, part])
        if len(rows) < ENOUGH:
            scales[part] = Scale.of_few(errors, spread)
            continue
        # What an estimate is worth shows only where some crystals have none.
        own = physics[rows] * part
        both = LEAST <= own.sum() <= len(rows) - LEAST
        scales[part] = Scale.fitted(errors, spread, own if both else np.zeros(len(rows)))
    electronic, ionic = scales
    unscaled = None if enough else finished(Calibration.none())
    normal = assumed.quantiles
    prediction = finished(Calibration(electronic, ionic, normal, len(used)))
    bounds = {}
    for name in PARTS:
        rows = np.array([i for i in used.tolist() if getattr(known[i].tensors, name) is not None])
        if len(rows) < LEAST:
            bounds[name] = normal[name]
            continue
        true = np.stack([getattr(known[i].tensors, name) for i in rows])
        errors, deviations = log_errors(prediction, name, true, rows)
        if unscaled is not None:
            own = _log_mean(unscaled.part(name)[:, rows])
            errors = (weights[:, rows] * own).sum(axis=0) - _log_mean(true)
        bounds[name] = quantiles(errors, deviations)
    return Calibration(electronic, ionic, bounds, len(used))


def _log_mean(tensors: Array) -> Array:
    return np.asarray(np.log(np.maximum(mean_permittivity(tensors), SMALLEST_MEAN)))


def unseen_by(folds: Indices, held_out: Indices, members: int, n_folds: int) -> Flags:
    """Which member is not trained on which crystal, (members, n).

    Parameters
    ----------
    folds
        Part of each crystal, from 0; member m leaves out part m modulo ``n_folds``.
    held_out
        Rows that nobody is trained on.
    """
    unseen = folds == np.arange(members)[:, None] % n_folds
    unseen[:, held_out] = True
    return np.asarray(unseen)
