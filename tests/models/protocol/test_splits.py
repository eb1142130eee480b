"""The published splits: no composition on two sides, alike in every crystal system."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Composition

from models.protocol.splits import N_SPLITS, published, published_split, stratified_split
from screening.errors import UserError


def test_no_composition_leaks(tensor_table: Any) -> None:
    rows = tensor_table.drop_duplicates("material_id")
    groups = np.array([Composition(f).reduced_formula for f in rows["formula"]])
    for number in range(1, N_SPLITS + 1):
        split = published_split(list(rows["material_id"]), number)
        parts = [set(groups[p]) for p in (split.train, split.validation, split.test)]
        assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
        assert sum(len(p) for p in (split.train, split.validation, split.test)) == len(rows)


def test_every_crystal_system_is_divided_alike(screen_data: Any) -> None:
    import pandas as pd

    columns = ["material_id", "crystal_system"]
    rows = pd.read_parquet(screen_data / "dielectric_tensors.parquet", columns=columns)
    systems = dict(rows.to_numpy())
    table = published()
    assert set(systems) == set(table)
    for number in range(N_SPLITS):
        total = Counter(systems.values())
        test = Counter(systems[i] for i, letters in table.items() if letters[number] == "e")
        for system, n in total.items():
            if n > 100:
                assert 0.08 < test[system] / n < 0.12, (number, system)


def test_splits_differ_and_are_reproducible() -> None:
    groups = [f"X{i // 3}" for i in range(300)]
    strata = [("cubic", "hexagonal")[i % 2] for i in range(300)]
    first = stratified_split(groups, strata, 1)
    assert first == stratified_split(groups, strata, 1)
    assert first != stratified_split(groups, strata, 2)
    assert all(len({first[3 * i + k] for k in range(3)}) == 1 for i in range(100))
    assert 24 <= first.count("e") <= 36 and 24 <= first.count("v") <= 36


def test_a_stranger_is_refused() -> None:
    with pytest.raises(UserError, match="mp-unheard-of"):
        published_split(["mp-unheard-of"], 1)
