"""Matbench's dielectric task on its own data (Dunn et al., npj Comput. Mater. 6, 138 (2020)).

The file is the one that Matbench distributes, ``matbench_dielectric.json.gz``: a table of
structures and refractive indices, whose order its folds belong to. :func:`write_record` writes
predictions of the five folds as Matbench reads them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.protocol.refractive import N_FOLDS, SEED, IndexTable, load_fold, scores, stand_ins
from models.protocol.table import digest_of
from screening.errors import UserError
from screening.io import atomic_write

Indices = NDArray[np.int64]

VERSION = "0.6"
"""Of the package whose record format this is."""
GZIP = b"\x1f\x8b"


def read_matbench(path: Path) -> IndexTable:
    """Read Matbench's table, gzipped or not, with its indices and its folds.

    Raises
    ------
    UserError
        There is no such file, or it has not the columns ``structure`` and ``n``.
    """
    from pymatgen.core import Structure

    try:
        raw = path.read_bytes()
        content = json.loads(gzip.decompress(raw) if raw.startswith(GZIP) else raw)
        places = [content["columns"].index(column) for column in ("structure", "n")]
        pairs = [(Structure.from_dict(row[places[0]]), row[places[1]]) for row in content["data"]]
        indices = np.array([n for _, n in pairs], dtype=float)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "it has no columns structure and n"
        raise UserError(
            f"{path} is not Matbench's dielectric table ({reason}); give its file "
            "matbench_dielectric.json.gz."
        ) from None
    known = stand_ins(names_of(len(pairs)), [structure for structure, _ in pairs], indices**2)
    return IndexTable(known, indices, folds_like_matbench(len(pairs)), digest_of(path))


def names_of(n: int) -> list[str]:
    """Matbench's names of the rows of a table of n: ``mb-dielectric-0001``, …"""
    return [f"mb-dielectric-{i + 1:0{len(str(n))}d}" for i in range(n)]


def folds_like_matbench(n: int) -> Indices:
    """Number of the fold in which each of n rows is tested: scikit-learn's shuffled ``KFold``."""
    order = np.arange(n)
    np.random.RandomState(SEED).shuffle(order)  # the generator that Matbench used
    folds = np.empty(n, dtype=np.int64)
    for number, rows in enumerate(np.array_split(order, N_FOLDS)):
        folds[rows] = number
    return folds


def write_record(name: str, table: IndexTable, work: Path) -> Path:
    """Write the record of a model whose five folds lie in ``work``; returns the file.

    Raises
    ------
    UserError
        A fold is missing, or is of other data.
    """
    names = [k.material.material_id for k in table.known]
    predictions = []
    for fold in range(N_FOLDS):
        loaded = load_fold(name, work, fold, {"sha256": table.digest})
        pairs = zip(loaded[0], loaded[1], strict=True) if loaded is not None else ()
        predictions.append({names[i]: float(n) for i, n in pairs})
    path = work / name / "matbench.json"
    matbench_record(predictions, table, path)
    return path


def matbench_record(
    predictions: Sequence[dict[str, float]],
    table: IndexTable,
    path: Path,
    parameters: dict[str, Any] | None = None,
) -> None:
    """Write the record of Matbench's task ``matbench_dielectric``.

    Parameters
    ----------
    predictions
        One mapping per fold, in Matbench's order: name (``mb-dielectric-0001``) → predicted n.
    path
        A ``.json`` file.

    Raises
    ------
    UserError
        Not five folds, a crystal that is missing in its fold or does not belong there, or a
        prediction that is no finite number.
    """
    if len(predictions) != N_FOLDS:
        raise UserError(f"Matbench has {N_FOLDS} folds, not {len(predictions)}; predict them all.")
    names = [k.material.material_id for k in table.known]
    true = dict(zip(names, table.indices, strict=True))
    results = {}
    for number, fold in enumerate(predictions):
        tested = {names[i] for i in np.flatnonzero(table.folds == number)}
        if missing := tested - fold.keys():
            raise UserError(f"Fold {number} has no prediction for {min(missing)}; predict it too.")
        if strangers := fold.keys() - tested:
            raise UserError(f"{min(strangers)} is not tested in fold {number}; leave it out.")
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
        "version": VERSION,
        "benchmark_name": "matbench_v0.1",
        "tasks": {"matbench_dielectric": task},
        "user_metadata": {},
        "datestamp": datetime.now(UTC).strftime("%Y.%m.%d %H:%M.%S"),
    }
    content = json.dumps(record, sort_keys=True)
    record["hash"] = hashlib.sha256(content.encode()).hexdigest()
    atomic_write(path, json.dumps(record))
