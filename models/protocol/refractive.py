"""Refractive indices in the manner of Matbench's dielectric task: 5 folds, a fresh model for each.

The labels are n = √(mean eigenvalue of ε∞). Matbench's own table is not here; on a table of mean
permittivities the same procedure gives figures that can be compared among models, not with its
leaderboard. :func:`matbench_record` writes predictions for the original folds as Matbench reads
them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.cache import FeatureCache
from models.ensemble import resolve_device
from models.fitting import composition_of, fit, folds_of
from models.papers.fitting import fitted, graphs_of
from models.papers.names import OURS
from models.papers.training import Budget, evaluate
from models.settings import ModelSettings
from screening.errors import UserError
from screening.io import atomic_path, atomic_write
from screening.material import KnownMaterial, Material
from screening.tensors import DielectricTensors, mean_permittivity

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

N_FOLDS = 5
MATBENCH_VERSION = "0.6"
"""Of the package whose record format this is."""
SEED = 18012019
"""Matbench's, for the shuffling of its folds."""
VALIDATION = 0.1
"""Share of a fold's training crystals that early stopping looks at."""


@dataclass(frozen=True)
class IndexTable:
    """Crystals with known mean ε∞; tensors of ``known`` are isotropic stand-ins of that mean."""

    known: list[KnownMaterial]
    indices: Array

    @classmethod
    def of(cls, frame: pd.DataFrame) -> IndexTable:
        """From columns ``material_id``, ``structure`` and ``mean_eps_electronic``.

        Raises
        ------
        UserError
            A column is missing.
        """
        from pymatgen.core import Structure

        for column in ("material_id", "structure", "mean_eps_electronic"):
            if column not in frame:
                raise UserError(f"The table of mean permittivities has no column '{column}'.")
        known, indices = [], []
        for row in frame.to_dict("records"):
            mean = float(row["mean_eps_electronic"])
            structure = Structure.from_dict(json.loads(row["structure"]))
            material = Material(str(row["material_id"]), structure)
            tensors = DielectricTensors(electronic=mean * np.eye(3), ionic=None)
            known.append(KnownMaterial(material, tensors, "PBE"))
            indices.append(np.sqrt(mean))
        return cls(known, np.array(indices))

    @property
    def folds(self) -> Indices:
        """Number of the fold of each crystal, whole compositions at a time."""
        return folds_of([composition_of(k) for k in self.known], N_FOLDS, SEED)


def run_fold(
    name: str, table: IndexTable, fold: int, cache: FeatureCache, budget: Budget
) -> tuple[Indices, Array]:
    """Train a fresh model on the other folds; rows of this one and their predicted n."""
    folds = table.folds
    test, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
    if name == OURS:
        return test, _ours(table, rest, test, fold, cache)
    parts = folds_of([composition_of(table.known[i]) for i in rest], round(1 / VALIDATION), fold)
    graphs = graphs_of(name, [k.material.structure for k in table.known], cache)
    means = torch.as_tensor(table.indices**2, dtype=torch.get_default_dtype())
    device = resolve_device("auto")
    network, _ = fitted(
        name, cache, graphs, means, rest[parts != 0], rest[parts == 0], budget, fold, device
    )
    found = evaluate(network, [graphs[i] for i in test], device, network.means).double().numpy()
    return test, np.asarray(np.sqrt(np.maximum(found, 1.0)))


def _ours(table: IndexTable, rest: Indices, test: Indices, fold: int, cache: FeatureCache) -> Array:
    settings = ModelSettings(encoder=cache.encoder_name, physics_effort=0)
    ensemble = fit([table.known[i] for i in rest], settings, fold, cache)
    crystals = [table.known[i].material.structure for i in test]
    gaps = [table.known[i].material.band_gap for i in test]
    prediction = ensemble.predict(crystals, "PBE", cache, None, gaps)
    return np.asarray(np.sqrt(mean_permittivity(prediction.central("electronic"))))


def run_folds(
    name: str,
    table: IndexTable,
    cache: FeatureCache,
    budget: Budget,
    work: Path,
    note: Callable[[str], None],
    folds: Sequence[int] = range(N_FOLDS),
) -> dict[str, Any]:
    """Run the folds that have no result in ``work`` yet; scores of all that are there."""
    scored: dict[int, dict[str, float]] = {}
    for fold in range(N_FOLDS):
        path = work / name / f"refractive-fold-{fold}.npz"
        if not path.exists():
            if fold not in folds:
                continue
            rows, found = run_fold(name, table, fold, cache, budget)
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, rows=rows, found=found)
        with np.load(path) as data:
            scored[fold] = scores(data["found"], table.indices[data["rows"]])
        note(f"{name}, refractive index, fold {fold}: {scored[fold]}")
    errors = [s["mae"] for s in scored.values()]
    return {
        "folds": scored,
        "mae": round(float(np.mean(errors)), 4),
        "sd": round(float(np.std(errors, ddof=1)), 4) if len(errors) > 1 else None,
    }


def scores(found: Array, true: Array) -> dict[str, float]:
    """Matbench's measures of a regression: mae, rmse, mape, max_error."""
    error = np.abs(found - true)
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "mape": float((error / np.abs(true)).mean()),
        "max_error": float(error.max()),
    }


def matbench_record(
    predictions: Sequence[dict[str, float]],
    true: dict[str, float],
    path: Path,
    parameters: dict[str, Any] | None = None,
) -> None:
    """Write the record of Matbench's task ``matbench_dielectric``.

    Parameters
    ----------
    predictions
        One mapping per fold of the original data, in its order: its index (``mb-dielectric-0001``)
        → predicted n.
    true
        Index → n.
    path
        A ``.json`` file.

    Raises
    ------
    UserError
        Not five folds, a crystal in two of them or without a label, or a prediction that is no
        finite number.
    """
    if len(predictions) != N_FOLDS:
        raise UserError(f"Matbench has {N_FOLDS} folds, not {len(predictions)}; predict them all.")
    seen: set[str] = set()
    results = {}
    for number, fold in enumerate(predictions):
        if twice := seen & fold.keys():
            raise UserError(f"{min(twice)} is in two folds; each crystal is tested once.")
        seen |= fold.keys()
        if strangers := fold.keys() - true.keys():
            raise UserError(f"There is no label of {min(strangers)} in fold {number}.")
        bad = [index for index, value in fold.items() if not np.isfinite(value)]
        if bad:
            raise UserError(f"The prediction for {bad[0]} in fold {number} is no finite number.")
        keys = list(fold)
        values = [np.array([source[k] for k in keys]) for source in (fold, true)]
        results[f"fold_{number}"] = {
            "data": {k: float(fold[k]) for k in keys},
            "parameters": parameters or {},
            "scores": scores(values[0], values[1]),
        }
    task = {
        "@module": "matbench.task",
        "@class": "MatbenchTask",
        "benchmark_name": "matbench_v0.1",
        "dataset_name": "matbench_dielectric",
        "results": results,
    }
    record = {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": MATBENCH_VERSION,
        "benchmark_name": "matbench_v0.1",
        "tasks": {"matbench_dielectric": task},
        "user_metadata": {},
        "datestamp": datetime.now(UTC).strftime("%Y.%m.%d %H:%M.%S"),
    }
    content = json.dumps(record, sort_keys=True)
    record["hash"] = hashlib.sha256(content.encode()).hexdigest()
    atomic_write(path, json.dumps(record))
