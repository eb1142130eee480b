"""The refractive-index protocol: folds, fresh models, and their card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.cache import FeatureCache
from models.papers.training import Budget
from models.protocol.card import hardware, read_card
from models.protocol.refractive import (
    N_FOLDS,
    IndexTable,
    run_folds,
    scores,
    write_scores,
)
from screening.errors import UserError
from screening.material import KnownMaterial

NAME = "goectp+1-layer"


def quietly(_: str) -> None:
    pass


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
    first = run_folds(NAME, table, cache, budget, tmp_path, said.append, [0])
    assert list(first["folds"]) == [0] and first["sd"] is None
    path = tmp_path / NAME / "refractive-fold-0.npz"
    before = path.stat().st_mtime_ns
    both = run_folds(NAME, table, cache, budget, tmp_path, said.append, [0, 3])
    assert list(both["folds"]) == [0, 3] and both["sd"] >= 0
    assert path.stat().st_mtime_ns == before
    with np.load(path) as data:
        assert set(data["rows"]) == set(np.flatnonzero(table.folds == 0))
        assert data["found"].min() >= 1


def test_scores_are_matbenchs() -> None:
    found = scores(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    assert found == pytest.approx({"mae": 1.5, "rmse": 2.5**0.5, "mape": 0.5, "max_error": 2.0})


def test_folds_of_another_budget_or_table_are_refused(
    frame: pd.DataFrame, cache: FeatureCache, tmp_path: Path
) -> None:
    def run(budget: Budget, digest: str, fold: int) -> dict[str, Any]:
        table = IndexTable.of(frame, digest)
        return run_folds(NAME, table, cache, budget, tmp_path, quietly, [fold])

    run(Budget(epochs=1), "a", 0)
    for budget, digest, words in (
        (Budget(epochs=2), "a", "fold-0.npz differs in budget"),
        (Budget(epochs=1), "b", "fold-0.npz differs in data"),
    ):
        with pytest.raises(UserError, match=words):
            run(budget, digest, 1)
    path = tmp_path / NAME / "refractive-fold-0.npz"
    np.savez(path, rows=[0], found=[1.0])
    with pytest.raises(UserError, match="does not tell its data and budget"):
        run(Budget(epochs=1), "a", 0)


def test_a_card_keeps_the_folds_whose_predictions_are_gone(
    frame: pd.DataFrame, cache: FeatureCache, tmp_path: Path
) -> None:
    table, path = IndexTable.of(frame, "a"), tmp_path / "refractive.yaml"
    data = {"file": "mean.parquet", "rows": len(frame), "sha256": "a"}
    for fold in (3, 0):
        work = tmp_path / str(fold)
        entry = run_folds(NAME, table, cache, Budget(epochs=1), work, quietly, [fold])
        write_scores(path, NAME, entry, data)
    write_scores(path, "painn", entry, data)
    models = read_card(path)["models"]
    assert list(models["painn"]["folds"]) == [0] and list(models[NAME]["folds"]) == [0, 3]
    errors = [fold["mae"] for fold in models[NAME]["folds"].values()]
    assert models[NAME]["mae"] == pytest.approx(np.mean(errors), abs=1e-4)
    assert models[NAME]["sd"] == pytest.approx(np.std(errors, ddof=1), abs=1e-4)
    assert models[NAME]["hardware"] == hardware()
    assert all(fold["cpu_seconds"] > 0 for fold in models[NAME]["folds"].values())
    other = {**entry, "budget": {"cpu_seconds_per_network": 9.0, "epochs": None}}
    write_scores(path, NAME, other, data)
    assert list(read_card(path)["models"][NAME]["folds"]) == [0], "of another budget"
    with pytest.raises(UserError, match="is of other data; name another folder with --cards"):
        write_scores(path, NAME, entry, {**data, "sha256": "b"})
