"""Refractive indices in the manner of Matbench's dielectric task: 5 folds, a fresh model for each.

The labels are n = √(mean eigenvalue of ε∞). Matbench's own table is not here; on a table of mean
permittivities the same procedure gives figures that can be compared among models, not with its
leaderboard. Who has the original goes on with :mod:`models.protocol.matbench`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from models.papers.pretraining import require_pretrained
from models.papers.training import Budget, evaluate
from models.protocol.benchmark import check_origin
from models.protocol.card import hardware, read_card, write_card
from models.settings import ModelSettings
from screening.errors import UserError
from screening.io import atomic_path
from screening.material import KnownMaterial, Material
from screening.tensors import DielectricTensors, mean_permittivity

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

N_FOLDS = 5
SEED = 18012019
"""Matbench's, for the shuffling of its folds."""
VALIDATION = 0.1
"""Share of a fold's training crystals that early stopping looks at."""


@dataclass(frozen=True)
class IndexTable:
    """Crystals with known mean ε∞.

    Attributes
    ----------
    known
        Their tensors are isotropic stand-ins of the mean.
    indices
        n = √mean, (n,).
    folds
        Number of the fold of each crystal, 0 to 4, (n,).
    digest
        Of the file, as :func:`models.protocol.table.digest_of` gives it.
    """

    known: list[KnownMaterial]
    indices: Array
    folds: Indices
    digest: str

    @classmethod
    def of(cls, frame: pd.DataFrame, digest: str = "") -> IndexTable:
        """From columns ``material_id``, ``structure`` and ``mean_eps_electronic``; the folds are
        of whole compositions.

        Raises
        ------
        UserError
            A column is missing.
        """
        from pymatgen.core import Structure

        for column in ("material_id", "structure", "mean_eps_electronic"):
            if column not in frame:
                raise UserError(f"The table of mean permittivities has no column '{column}'.")
        structures = [Structure.from_dict(json.loads(text)) for text in frame["structure"]]
        means = frame["mean_eps_electronic"].to_numpy(dtype=float)
        known = stand_ins([str(name) for name in frame["material_id"]], structures, means)
        folds = folds_of([composition_of(k) for k in known], N_FOLDS, SEED)
        return cls(known, np.sqrt(means), folds, digest)


def stand_ins(
    names: Sequence[str], structures: Sequence[Structure], means: Array
) -> list[KnownMaterial]:
    """Crystals whose electronic tensors are isotropic, of the given means."""
    return [
        KnownMaterial(
            Material(name, structure),
            DielectricTensors(electronic=mean * np.eye(3), ionic=None),
            "PBE",
        )
        for name, structure, mean in zip(names, structures, means.tolist(), strict=True)
    ]


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


def _settings(cache: FeatureCache) -> ModelSettings:
    return ModelSettings(encoder=cache.encoder_name, physics_effort=0)


def _ours(table: IndexTable, rest: Indices, test: Indices, fold: int, cache: FeatureCache) -> Array:
    ensemble = fit([table.known[i] for i in rest], _settings(cache), fold, cache)
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
    """Run the folds that have no result in ``work`` yet; scores of all that are there.

    Each fold tells what it took, in wall and CPU seconds, from the table to the predictions. Ours
    has no budget.

    Raises
    ------
    UserError
        Results in ``work`` are of other data or another budget, or pretrained weights are missing;
        before anything is trained.
    """
    budget = Budget() if name == OURS else budget
    made: dict[str, Any] = {"sha256": table.digest, "budget": budget.to_dict()}
    if name == OURS:
        made["settings"] = _settings(cache).model_dump()
    else:
        require_pretrained(name, cache.root)
    done = {fold for fold in range(N_FOLDS) if load_fold(name, work, fold, made) is not None}
    scored: dict[int, dict[str, float]] = {}
    machines: list[str] = []
    for fold in sorted(done | set(folds)):
        if fold not in done:
            wall, cpu = time.perf_counter(), time.process_time()
            rows, found = run_fold(name, table, fold, cache, budget)
            facts: dict[str, Any] = {
                "made": made, "hardware": hardware(),
                "seconds": round(time.perf_counter() - wall, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
            }  # fmt: skip
            with atomic_path(_path(name, work, fold)) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, rows=rows, found=found, rest=np.array(json.dumps(facts)))
        loaded = load_fold(name, work, fold, made)
        assert loaded is not None
        rows, found, facts = loaded
        took = {key: facts[key] for key in ("seconds", "cpu_seconds")}
        scored[fold] = {**scores(found, table.indices[rows]), **took}
        machines.append(facts["hardware"])
        note(f"{name}, refractive index, fold {fold}: {scored[fold]}")
    return _entry(budget.to_dict(), machines, scored)


def _path(name: str, work: Path, fold: int) -> Path:
    return work / name / f"refractive-fold-{fold}.npz"


def load_fold(
    name: str, work: Path, fold: int, wanted: dict[str, Any]
) -> tuple[Indices, Array, dict[str, Any]] | None:
    """Rows of a fold, their predicted n and what else is told of it; None where it is not done.

    Raises
    ------
    UserError
        It was made from other data, or with another budget or other settings, than ``wanted``.
    """
    path = _path(name, work, fold)
    if not path.exists():
        return None
    with np.load(path) as data:
        rest = json.loads(str(data["rest"])) if "rest" in data.files else {}
        check_origin(path, rest.get("made"), wanted)
        return data["rows"], data["found"], rest


def _entry(
    budget: dict[str, Any], machines: Sequence[str], folds: dict[int, dict[str, float]]
) -> dict[str, Any]:
    errors = [folds[fold]["mae"] for fold in sorted(folds)]
    return {
        "budget": budget,
        "hardware": "; ".join(dict.fromkeys(machines)),
        "folds": {fold: folds[fold] for fold in sorted(folds)},
        "mae": round(float(np.mean(errors)), 4),
        "sd": round(float(np.std(errors, ddof=1)), 4) if len(errors) > 1 else None,
    }


def write_scores(path: Path, name: str, entry: dict[str, Any], data: dict[str, Any]) -> None:
    """Put what :func:`run_folds` gives into the card at ``path``.

    The card's folds whose predictions are gone stay, if they had the same budget.

    Parameters
    ----------
    data
        ``file``, ``rows`` and ``sha256`` of the table.

    Raises
    ------
    UserError
        The card there is of other data.
    """
    card = read_card(path) if path.exists() else {"data": data, "models": {}}
    # An older card has no digest, and none is made up for it.
    if any(data[key] != value for key, value in card["data"].items()):
        raise UserError(f"{path} is of other data; name another folder with --cards.")
    earlier = card["models"].get(name)
    if earlier is not None and earlier["budget"] == entry["budget"]:
        machines = [*earlier["hardware"].split("; "), *entry["hardware"].split("; ")]
        entry = _entry(entry["budget"], machines, {**earlier["folds"], **entry["folds"]})
    write_card(
        path,
        {
            "protocol": "refractive index, 5 folds by composition, fresh model per fold",
            "data": card["data"],
            "models": {**card["models"], name: entry},
        },
    )


def scores(found: Array, true: Array) -> dict[str, float]:
    """Matbench's measures of a regression: mae, rmse, mape, max_error."""
    error = np.abs(found - true)
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "mape": float((error / np.abs(true)).mean()),
        "max_error": float(error.max()),
    }
