"""The refractive-index protocol: folds, fresh models, and Matbench's record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.cache import FeatureCache
from models.papers.training import Budget
from models.protocol.refractive import (
    N_FOLDS,
    IndexTable,
    matbench_record,
    run_folds,
    scores,
)
from screening.errors import UserError
from screening.material import KnownMaterial


@pytest.fixture(scope="module")
def frame(builtin: list[KnownMaterial]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "material_id": [k.material.material_id for k in builtin],
            "structure": [json.dumps(k.material.structure.as_dict()) for k in builtin],
            "mean_eps_electronic": [np.trace(k.tensors.electronic) / 3 for k in builtin],
        }
    )


def test_every_crystal_is_tested_once(frame: pd.DataFrame) -> None:
    table = IndexTable.of(frame)
    assert np.allclose(table.indices**2, frame["mean_eps_electronic"])
    twice = IndexTable.of(pd.concat([frame, frame.iloc[::-1]]))
    assert np.array_equal(twice.folds, twice.folds[::-1]), "a composition is in one fold"
    sizes = np.bincount(twice.folds)
    assert len(sizes) == N_FOLDS and np.ptp(sizes) <= 2
    with pytest.raises(UserError, match="no column 'structure'"):
        IndexTable.of(frame.drop(columns="structure"))


def test_folds_are_run_once(frame: pd.DataFrame, cache: FeatureCache, tmp_path: Path) -> None:
    table = IndexTable.of(frame)
    said: list[str] = []
    budget = Budget(epochs=2)
    first = run_folds("goectp+1-layer", table, cache, budget, tmp_path, said.append, [0])
    assert list(first["folds"]) == [0] and first["sd"] is None
    path = tmp_path / "goectp+1-layer" / "refractive-fold-0.npz"
    before = path.stat().st_mtime_ns
    both = run_folds("goectp+1-layer", table, cache, budget, tmp_path, said.append, [0, 3])
    assert list(both["folds"]) == [0, 3] and both["sd"] >= 0
    assert path.stat().st_mtime_ns == before
    with np.load(path) as data:
        assert set(data["rows"]) == set(np.flatnonzero(table.folds == 0))
        assert data["found"].min() >= 1


def test_scores_are_matbenchs() -> None:
    found = scores(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    assert found == pytest.approx({"mae": 1.5, "rmse": 2.5**0.5, "mape": 0.5, "max_error": 2.0})


def test_a_record_for_matbench(tmp_path: Path) -> None:
    true = {f"mb-dielectric-{i:04d}": 1.5 + 0.1 * i for i in range(10)}
    keys = list(true)
    folds = [{k: true[k] + 0.2 for k in keys[2 * n : 2 * n + 2]} for n in range(5)]
    matbench_record(folds, true, tmp_path / "results.json")
    record = json.loads((tmp_path / "results.json").read_text())
    assert set(record) == {
        "@module", "@class", "version", "benchmark_name", "tasks", "user_metadata", "datestamp",
        "hash",
    }  # fmt: skip
    task = record["tasks"]["matbench_dielectric"]
    assert list(task["results"]) == [f"fold_{n}" for n in range(5)]
    fold = task["results"]["fold_3"]
    assert set(fold) == {"data", "parameters", "scores"}
    assert fold["data"] == folds[3]
    assert fold["scores"]["mae"] == pytest.approx(0.2)
    # The hash is that of everything else, keys in order, as Matbench checks it.
    digest = record.pop("hash")
    assert digest == hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    for bad, words in (
        (folds[:4], "5 folds, not 4"),
        ([*folds[:4], folds[0]], "is in two folds"),
        ([*folds[:4], {keys[8]: float("nan"), keys[9]: 1.0}], "no finite number"),
        ([*folds[:4], {"mb-x": 1.0}], "no label of mb-x"),
    ):
        with pytest.raises(UserError, match=words):
            matbench_record(bad, true, tmp_path / "bad.json")
