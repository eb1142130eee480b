"""Seeded splits by composition."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from models.splits import Split, split_by_group

seeds = st.integers(0, 2**31 - 1)
groups = st.lists(st.sampled_from("ABCDEFGHIJKLMNOPQRST"), min_size=1, max_size=80)


def parts(split: Split) -> list[np.ndarray]:
    return [split.train, split.validation, split.test]


def named(split: Split, names: list[str]) -> list[list[str]]:
    return [[names[i] for i in part] for part in parts(split)]


@given(groups, seeds)
def test_every_row_is_in_one_part(names: list[str], seed: int) -> None:
    rows = np.concatenate(parts(split_by_group(names, seed)))
    assert sorted(rows.tolist()) == list(range(len(names)))


@given(groups, seeds)
def test_no_composition_is_in_two_parts(names: list[str], seed: int) -> None:
    found = named(split_by_group(names, seed), names)
    for first, second in itertools.combinations(found, 2):
        assert not set(first) & set(second)


@given(groups, seeds)
@example(["A"] * 28 + ["B", "C"], 0)
@example(["A"] * 28 + ["B", "C"], 1)
@example(["A"] * 28 + ["B", "C"], 2)
def test_three_compositions_are_enough_for_three_parts(names: list[str], seed: int) -> None:
    sizes = [len(part) for part in parts(split_by_group(names, seed))]
    assert sizes[0] > 0
    if len(set(names)) >= 3:
        assert min(sizes) > 0


@given(groups, seeds, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(names: list[str], seed: int, random: object) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)
    first = named(split_by_group(names, seed), names)
    second = named(split_by_group(shuffled, seed), shuffled)
    assert [sorted(part) for part in first] == [sorted(part) for part in second]


def test_seeds_draw_different_splits_and_the_same_seed_the_same() -> None:
    names = [f"group {n}" for n in range(100)]
    tests = [tuple(split_by_group(names, seed).test.tolist()) for seed in range(20)]
    assert len(set(tests)) == 20
    assert tests[3] == tuple(split_by_group(names, 3).test.tolist())


def test_shares_are_those_asked_for() -> None:
    names = [f"group {n // 2}" for n in range(1000)]
    split = split_by_group(names, 0)
    assert [len(part) for part in parts(split)] == [800, 100, 100]
    split = split_by_group(names, 0, validation=0.05, test=0.3)
    assert [len(part) for part in parts(split)] == [650, 50, 300]


def test_every_composition_is_tested_sooner_or_later() -> None:
    names = [f"group {n}" for n in range(30)]
    tested = {i for seed in range(100) for i in split_by_group(names, seed).test.tolist()}
    assert tested == set(range(30))


def test_tiny_sets_keep_something_to_train_on() -> None:
    assert split_by_group(["A"], 0).train.tolist() == [0]
    assert split_by_group(["A", "A"], 0).train.tolist() == [0, 1]
    assert len(split_by_group(["A", "B"], 0).train) == 1
    assert [len(p) for p in parts(split_by_group(["A", "B", "C"], 0))] == [1, 1, 1]
