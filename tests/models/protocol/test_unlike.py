"""What is left out as a whole is nowhere in training, and its figures are of it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.protocol.table import TensorTable
from models.protocol.unlike import ELEMENTS, N_TYPES, left_out, run_unlike, structure_type
from models.protocol.variants import Outcome, composition
from screening.builtin import builtin_table


@pytest.fixture(scope="module")
def table(screen_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TensorTable:
    """A tenth of the tensor table."""
    import pandas as pd

    frame = pd.read_parquet(screen_data / "dielectric_tensors.parquet")
    path = tmp_path_factory.mktemp("table") / "dielectric_tensors.parquet"
    frame.iloc[::10].to_parquet(path)
    return TensorTable.read(path)


def test_sets_are_whole(table: TensorTable) -> None:
    sets = left_out(table)
    assert len(sets) == len(ELEMENTS) + N_TYPES
    types = [structure_type(k) for k in table.known]
    for name, rows in sets.items():
        outside = set(range(len(table.known))) - set(rows.tolist())
        assert len(rows) >= 3 and outside
        if name in ELEMENTS:
            assert all(name in table.known[i].material.elements for i in rows)
            assert not any(name in table.known[i].material.elements for i in outside)
        else:
            assert all(types[i] == name for i in rows)
            assert not any(types[i] == name for i in outside)


def test_types_are_named_by_formula_and_group() -> None:
    named = {"NaCl": "AB-225", "CsCl": "AB-221", "SrTiO3": "ABC3-221", "Li2O": "AB2-225"}
    found = {k.material.material_id: k for k in builtin_table()}
    assert {name: structure_type(found[name]) for name in named} == named


def test_nothing_left_out_is_trained_on(table: TensorTable, tmp_path: Path) -> None:
    seen: list[tuple[set[int], set[int]]] = []

    def watched(data: TensorTable, training: Any, validation: Any, rows: Any, seed: int) -> Outcome:
        seen.append((set(training.tolist()) | set(validation.tolist()), set(rows.tolist())))
        assert not set(training.tolist()) & set(validation.tolist())
        found = composition(data, training, validation, rows, seed)
        bounds = dict.fromkeys(found.central, (0.1, 0.2, 0.3, 10.0))
        ones = dict.fromkeys(found.central, np.ones(len(rows)))
        return Outcome(
            found.central, ones, bounds, found.optimistic, np.ones(len(rows), bool), 0.0, 0.0
        )

    card = run_unlike("watched", watched, table, tmp_path, lambda _: None)
    everything = set(range(len(table.known)))
    assert len(seen) == len(card["left_out"]) == len(ELEMENTS) + N_TYPES
    for trained, predicted in seen:
        assert not trained & predicted and trained | predicted == everything
    for figures in card["left_out"].values():
        assert figures["outside_the_domain"] == 1.0
        shares = list(figures["static"]["coverage"].values())
        assert shares == sorted(shares) and shares[-1] == 1.0
    seen.clear()
    assert run_unlike("watched", watched, table, tmp_path, lambda _: None) == card
    assert not seen  # what is there is not done again
