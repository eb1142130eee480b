"""The protocol: variants on the published splits and in the tail test, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.calibration import LEVELS, PARTS, coverage
from models.metrics import material_errors
from models.protocol.card import hardware
from models.protocol.scores import paired, scores
from models.protocol.splits import N_SPLITS, published_split
from models.protocol.table import TensorTable
from models.protocol.variants import EnsembleVariant, Outcome, Variant
from screening.errors import UserError
from screening.io import atomic_path
from screening.material import KnownMaterial
from screening.tensors import mean_permittivity

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Note = Callable[[str], None]

COMPARED = ("mae_9", "mae_9_below_100", "log_scalar", "log_anisotropy")
"""Metrics of the paired comparisons."""
BY_SYSTEM = ("mae_9", "mae_6")
"""Metrics that are kept for each split and crystal system."""
SYSTEMS = (
    "cubic", "hexagonal", "trigonal", "tetragonal", "orthorhombic", "monoclinic", "triclinic",
)  # fmt: skip
ORIGIN = {
    "sha256": "data", "means_sha256": "table of means", "settings": "settings", "budget": "budget"
}  # fmt: skip
"""What a result tells of its origin, and how that is called."""
TAIL = 98
"""Percentile above which materials are left out of training in the tail test."""
TAIL_MERITS = ("mean", "anisotropy")
TOP = (2, 5)
"""Percent of the ranking in which left-out materials are looked for."""


def save_outcome(path: Path, rows: Indices, outcome: Outcome, made: dict[str, Any]) -> None:
    """Write predictions for the given rows, and their :func:`origin`, atomically."""
    arrays: dict[str, NDArray[Any]] = {f"central_{k}": v for k, v in outcome.central.items()}
    arrays |= {f"deviation_{k}": v for k, v in outcome.deviation.items()}
    arrays |= {f"optimistic_{k}": v for k, v in outcome.optimistic.items()}
    rest = {
        "bounds": outcome.bounds, "seconds": outcome.seconds, "cpu_seconds": outcome.cpu_seconds,
        "facts": outcome.facts, "made": made,
    }  # fmt: skip
    arrays["outside"] = outcome.outside
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, rows=rows, rest=np.array(json.dumps(rest)), **arrays)  # type: ignore[arg-type]


def load_outcome(path: Path, wanted: dict[str, Any] | None = None) -> tuple[Indices, Outcome]:
    """Inverse of :func:`save_outcome`.

    Raises
    ------
    UserError
        The predictions have another origin than ``wanted``, or do not tell it.
    """
    with np.load(path) as data:
        rest = json.loads(str(data["rest"]))
        check_origin(path, rest.get("made"), wanted or {})
        groups: dict[str, dict[str, Array]] = {"central": {}, "deviation": {}, "optimistic": {}}
        for name in data.files:
            kind, _, key = name.partition("_")
            if kind in groups:
                groups[kind][key] = data[name]
        bounds = {part: tuple(q) for part, q in rest["bounds"].items()}
        return data["rows"], Outcome(
            groups["central"], groups["deviation"], bounds, groups["optimistic"],
            data["outside"], rest["seconds"], rest["cpu_seconds"], rest.get("facts", {}),
        )  # fmt: skip


def check_origin(path: Path, made: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    """Refuse a result at ``path`` that is not of the data, the budget and the settings wanted.

    Raises
    ------
    UserError
        It has another origin, or does not tell it.
    """
    other = [key for key, value in wanted.items() if made is None or made.get(key) != value]
    if other:
        names = " and ".join(ORIGIN.get(key, key) for key in other)
        what = (
            f"does not tell its {names}"
            if made is None
            else f"differs in {names} from what is asked for"
        )
        raise UserError(
            f"{path} {what}; delete it to have it made again, or name another folder with --work."
        )


def load_split(
    work: Path, name: str, number: int, wanted: dict[str, Any]
) -> tuple[Indices, Outcome] | None:
    """What is there of a split: of all parts at once, or of each by itself."""
    if (whole := work / name / f"split-{number}.npz").exists():
        return load_outcome(whole, wanted)
    paths = [work / name / f"split-{number}-{part}.npz" for part in PARTS]
    found = [load_outcome(path, wanted) for path in paths if path.exists()]
    if not found:
        return None
    outcomes = [outcome for _, outcome in found]
    merged: dict[str, dict[str, Any]] = {
        name: {k: v for o in outcomes for k, v in getattr(o, name).items()}
        for name in ("central", "deviation", "bounds", "optimistic", "facts")
    }
    return found[0][0], Outcome(
        outside=outcomes[0].outside,
        seconds=sum(o.seconds for o in outcomes),
        cpu_seconds=sum(o.cpu_seconds for o in outcomes),
        **merged,
    )


def run_splits(
    name: str, variant: Variant, table: TensorTable, numbers: Sequence[int], work: Path, note: Note
) -> None:
    """Train on every split that has no result in ``work`` yet and predict its test materials."""
    done_splits(name, variant, table, work)
    for number in numbers:
        path = work / name / f"split-{number}.npz"
        if path.exists():
            note(f"{name}, split {number}: done before")
            continue
        split = published_split(table.material_ids, number)
        outcome = variant(table, split.train, split.validation, split.test, number)
        save_outcome(path, split.test, outcome, origin(variant, table))
        note(f"{name}, split {number}: trained in {outcome.seconds:.0f} s")


def done_splits(
    name: str, variant: Variant, table: TensorTable, work: Path
) -> dict[int, tuple[Indices, Outcome]]:
    """What is in ``work``, by the number of the split.

    Raises
    ------
    UserError
        Some of it was made from other data, or with another budget or other settings.
    """
    made, numbers = origin(variant, table), range(1, N_SPLITS + 1)
    return {n: split for n in numbers if (split := load_split(work, name, n, made)) is not None}


def splits_card(
    name: str, variant: Variant, table: TensorTable, work: Path, reference: str | None
) -> dict[str, Any]:
    """Figures over all splits that are done, with a paired comparison to another variant."""
    loaded = done_splits(name, variant, table, work)
    found = list(loaded.values())
    card: dict[str, Any] = {
        **card_header(name, variant, table),
        "protocol": "test materials of the published splits",
        "n_splits": len(found),
        "training_seconds": round(float(np.mean([o.seconds for _, o in found])), 1),
        "training_cpu_seconds": round(float(np.mean([o.cpu_seconds for _, o in found])), 1),
        "figures": {},
    }
    for part in PARTS:
        done = {n: split for n, split in loaded.items() if part in split[1].central}
        if done:
            card["figures"][part] = {
                "splits": list(done), **_part_figures(list(done.values()), table, part)
            }  # fmt: skip
    if reference is not None:
        card["paired"] = {
            "minus": reference, **_paired(name, reference, table, work)
        }  # fmt: skip
    return card


def card_header(name: str, variant: Variant, table: TensorTable) -> dict[str, Any]:
    """What every card begins with."""
    settings = variant.settings.model_dump() if isinstance(variant, EnsembleVariant) else {}
    data: dict[str, Any] = {"file": "dielectric_tensors.parquet", "sha256": table.digest}
    if isinstance(variant, EnsembleVariant) and variant.with_means:
        data |= {"means": len(table.means), "means_sha256": table.means_digest}
    header = {"variant": name, "data": data, "settings": settings, "hardware": hardware()}
    budget = getattr(variant, "budget", None)
    return header if budget is None else {**header, "budget": budget.to_dict()}


def origin(variant: Variant, table: TensorTable) -> dict[str, Any]:
    """What decides a result beside the variant's name and the rows: it is kept with the result."""
    header = card_header("", variant, table)
    sums = {key: value for key, value in header["data"].items() if key in ORIGIN}
    return {**sums, **{key: header[key] for key in ORIGIN if key in header}}


def covered(table: TensorTable, rows: Indices, outcome: Outcome, part: str) -> list[float]:
    """Share of the labelled ``rows`` within the intervals of each of ``LEVELS``."""
    known = table.labelled(part)[rows]
    true, predicted = table.truth(part)[rows[known]], outcome.central[part][known]
    logs = np.log(mean_permittivity(predicted) / np.maximum(mean_permittivity(true), 1e-3))
    return coverage(logs, outcome.deviation[part][known], outcome.bounds[part])


def _part_figures(
    found: list[tuple[Indices, Outcome]], table: TensorTable, part: str
) -> dict[str, Any]:
    means: dict[str, list[float]] = {}
    by_system: dict[str, dict[str, list[float | None]]] = {}
    pooled_errors, pooled_true, systems = [], [], []
    shares, facts = [], []
    for rows, outcome in found:
        known = table.labelled(part)[rows]
        true, predicted = table.truth(part)[rows[known]], outcome.central[part][known]
        own = np.array([table.systems[i] for i in rows[known]])
        for metric, errors in material_errors(predicted, true).items():
            means.setdefault(metric, []).append(float(np.nanmean(errors)))
            for system in ["all", *SYSTEMS] if metric in BY_SYSTEM else ():
                of_system = by_system.setdefault(system, {}).setdefault(metric, [])
                of_system.append(_mean(errors if system == "all" else errors[own == system]))
        pooled_errors.append(predicted)
        pooled_true.append(true)
        systems += own.tolist()
        if outcome.bounds:
            shares.append(covered(table, rows, outcome, part))
        facts += [outcome.facts[part]] if part in outcome.facts else []
    figures: dict[str, Any] = {
        **over_splits(means),
        "systems": by_system,
        "pooled": scores(np.concatenate(pooled_errors), np.concatenate(pooled_true), systems),
    }
    if facts:
        figures["runs"] = facts
    if shares:
        mean = np.mean(shares, axis=0)
        figures["coverage"] = {
            f"{level:.0%}": round(float(c), 4) for level, c in zip(LEVELS, mean, strict=True)
        }
        figures["miscalibration_area"] = round(float(np.abs(mean - LEVELS).mean()), 4)
    return figures


def over_splits(by_split: dict[str, list[float]]) -> dict[str, Any]:
    """Each metric split by split, its mean, and its deviation where there are several."""
    several = any(len(values) > 1 for values in by_split.values())
    deviations = {k: round(float(np.std(v, ddof=1)), 4) for k, v in by_split.items() if several}
    return {
        "mean_over_splits": {k: round(float(np.mean(v)), 4) for k, v in by_split.items()},
        "sd_over_splits": deviations,
        "by_split": {k: [round(x, 4) for x in v] for k, v in by_split.items()},
    }


def _mean(errors: Array) -> float | None:
    return round(float(errors.mean()), 4) if len(errors) else None


def _paired(name: str, reference: str, table: TensorTable, work: Path) -> dict[str, Any]:
    comparison: dict[str, Any] = {"splits": {}}
    for part in PARTS:
        differences: dict[str, list[tuple[Array, Array]]] = {metric: [] for metric in COMPARED}
        for number in range(1, N_SPLITS + 1):
            same = {"sha256": table.digest}
            loaded = [load_split(work, which, number, same) for which in (name, reference)]
            both = [split for split in loaded if split is not None and part in split[1].central]
            if len(both) < 2:
                continue
            (rows, first), (_, second) = both
            comparison["splits"].setdefault(part, []).append(number)
            known = table.labelled(part)[rows]
            true = table.truth(part)[rows[known]]
            a, b = (material_errors(o.central[part][known], true) for o in (first, second))
            for metric in COMPARED:
                differences[metric].append((a[metric], b[metric]))
        comparison[part] = {}
        for metric, pairs in differences.items():
            if pairs:
                ours, theirs = (np.concatenate(side) for side in zip(*pairs, strict=True))
                comparison[part][metric] = paired(ours, theirs)
    return comparison


def tail_rows(table: TensorTable, merit: str) -> tuple[Indices, Indices, Indices]:
    """Rows of the tail test: all ranked, left out of training, and trained on.

    A composition with one material above the percentile is left out whole.
    """
    labelled = np.flatnonzero(table.labelled("static"))
    _, first = np.unique([table.material_ids[i] for i in labelled], return_index=True)
    ranked = labelled[np.sort(first)]
    values = true_merit(table, ranked, merit)
    extreme = ranked[values > np.percentile(values, TAIL)]
    groups = {table.groups[i] for i in extreme}
    kept = np.array([i for i in range(len(table.known)) if table.groups[i] not in groups])
    return ranked, extreme, kept


def sum_of_means(known: KnownMaterial) -> float:
    """ε̄ as far as the means tell."""
    return float(sum(known.extras.get(f"mean_{part}", 0.0) for part in ("electronic", "ionic")))


def true_merit(table: TensorTable, rows: Indices, merit: str) -> Array:
    """True ε̄ or anisotropy ratio."""
    static = table.truth("static")[rows]
    if merit == "mean":
        return mean_permittivity(static)
    values = np.linalg.eigvalsh(static)
    return np.asarray(values[:, 2] / values[:, 0])


def validation_of(table: TensorTable, kept: Indices) -> Indices:
    """A tenth of the compositions among the rows ``kept``."""
    groups = sorted({table.groups[i] for i in kept})
    chosen = set(np.random.default_rng(98).permutation(groups)[: len(groups) // 10].tolist())
    return np.array([i for i in kept if table.groups[i] in chosen])


def run_tail(
    name: str, variant: Variant, table: TensorTable, merit: str, work: Path, note: Note
) -> dict[str, Any]:
    """Leave out the extremes, rank everything, and see whether they come back.

    Raises
    ------
    UserError
        All crystals are alike in ``merit``.
    """
    ranked, extreme, kept = tail_rows(table, merit)
    if len(extreme) == 0:
        raise UserError(
            f"No crystal of the table stands out in '{merit}', so that none can be left out; "
            "test the tail on a table with crystals that differ."
        )
    made = origin(variant, table)
    path = work / name / f"tail-{merit}.npz"
    if not path.exists():
        validation = validation_of(table, kept)
        training = np.setdiff1d(kept, validation)
        limit = true_merit(table, extreme, merit).min()
        usable = table.means_like(lambda k: merit != "mean" or sum_of_means(k) < limit)
        outcome = variant(usable, training, validation, ranked, 98)
        save_outcome(path, ranked, outcome, made)
    _, outcome = load_outcome(path, made)
    card = {**card_header(name, variant, table), "merit": merit, "n_ranked": len(ranked)}
    card["figures"] = tail_figures(table, ranked, extreme, merit, outcome)
    note(f"{name}, tail ({merit}): {card['figures']}")
    return card


def tail_figures(
    table: TensorTable, ranked: Indices, extreme: Indices, merit: str, outcome: Outcome
) -> dict[str, Any]:
    """Recall, rank correlation and log error of the left-out extremes.

    Eigenvalues below 1, which no crystal has and a published network may give, count as 1 in the
    errors of the ratio; in the ranking a tensor that is not positive comes last.
    """
    from scipy.stats import spearmanr

    order = np.argsort(-outcome.optimistic[merit], kind="stable")
    left_out = np.isin(ranked, extreme)
    figures: dict[str, Any] = {"n_left_out": len(extreme)}
    for percent in TOP:
        top = order[: round(len(ranked) * percent / 100)]
        figures[f"recall_top_{percent}"] = round(float(left_out[top].sum() / len(extreme)), 4)
    true = true_merit(table, ranked, merit)[left_out]
    static = outcome.central["static"][left_out]
    values = np.maximum(np.linalg.eigvalsh(static), 1.0)
    central = mean_permittivity(static) if merit == "mean" else values[:, 2] / values[:, 0]
    constant = np.ptp(central) == 0
    correlation = 0.0 if constant else float(spearmanr(central, true).statistic)
    figures["rank_correlation"] = round(correlation, 4)
    figures["log_error"] = round(float(np.abs(np.log(central / true)).mean()), 4)
    return figures
