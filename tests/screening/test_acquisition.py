"""Which candidates are calculated next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from screening.acquisition import acquisition, top
from screening.settings import AcquisitionSettings

MERITS = np.array([[10.0, 20.0, 9.0], [12.0, 20.0, 15.0], [14.0, 20.0, 21.0]])
"""Three members, three candidates: means 12, 20, 15; standard deviations 2, 0, 6."""
seeds = st.integers(0, 2**31 - 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (AcquisitionSettings(), [15.0, 20.0, 24.0]),
        (AcquisitionSettings(kind="ucb", kappa=0.5), [13.0, 20.0, 18.0]),
        (AcquisitionSettings(kind="ucb", kappa=0.0), [12.0, 20.0, 15.0]),
        (AcquisitionSettings(kind="greedy"), [12.0, 20.0, 15.0]),
    ],
)
def test_values_by_hand(settings: AcquisitionSettings, expected: list[float]) -> None:
    assert np.allclose(acquisition(MERITS, settings, 0), expected)
    assert np.array_equal(acquisition(MERITS, settings, 0), acquisition(MERITS, settings, 1))


def test_chance_comes_from_the_seed_alone() -> None:
    settings = AcquisitionSettings(kind="random")
    many = np.zeros((5, 1000))
    first = acquisition(many, settings, 3)
    assert np.array_equal(first, acquisition(many + 7, settings, 3))
    assert not np.array_equal(first, acquisition(many, settings, 4))
    assert first.shape == (1000,)
    assert np.unique(first).size == 1000
    assert abs(first.mean() - 0.5) < 0.05


@given(
    values=arrays(float, st.integers(0, 60), elements=st.integers(-5, 5).map(float)),
    n=st.integers(0, 70),
    seed=seeds,
)
def test_top_are_the_largest_best_first(values: np.ndarray, n: int, seed: int) -> None:
    found = top(values, n, seed)
    assert len(found) == len(set(found.tolist())) == min(n, len(values))
    assert np.array_equal(values[found], np.sort(values)[::-1][: len(found)])
    assert np.array_equal(found, top(values, n, seed))


def test_ties_are_broken_by_the_seed() -> None:
    values = np.repeat([3.0, 5.0, 4.0], 10)
    orders = [tuple(top(values, 30, seed)) for seed in range(20)]
    assert len(set(orders)) == 20
    for order in orders:
        assert set(order[:10]) == set(range(10, 20))
        assert set(order[10:20]) == set(range(20, 30))
    firsts = [top(np.ones(4), 1, seed)[0] for seed in range(200)]
    assert set(firsts) == {0, 1, 2, 3}
