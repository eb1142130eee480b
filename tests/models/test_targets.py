"""The map between permittivities and what the networks are trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.targets import (
    FLOOR,
    LARGEST_LOG,
    electronic_from_target,
    electronic_target,
    from_target,
    to_target,
)

seeds = st.integers(0, 2**31 - 1)
LARGEST = 1900.0
"""Just below what predictions are capped at."""


def symmetric(eigenvalues: np.ndarray, seed: int) -> np.ndarray:
    """A matrix with the given eigenvalues in a random orientation."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.asarray((q * eigenvalues) @ q.T)


def positive(least: float, largest: float) -> st.SearchStrategy[np.ndarray]:
    logs = arrays(float, 3, elements=st.floats(np.log(least), np.log(largest)))
    return st.builds(lambda x, seed: symmetric(np.exp(x), seed), logs, seeds)


@given(positive(FLOOR, LARGEST))
def test_there_and_back(y: np.ndarray) -> None:
    assert np.allclose(from_target(to_target(y)), y, rtol=1e-9, atol=1e-9 * np.abs(y).max())
    epsilon = y + np.eye(3)
    back = electronic_from_target(electronic_target(epsilon))
    assert np.allclose(back, epsilon, rtol=1e-9, atol=1e-9 * np.abs(y).max())


@given(arrays(float, 3, elements=st.floats(-1e5, LARGEST_LOG)), seeds)
def test_any_target_gives_a_physical_tensor(logs: np.ndarray, seed: int) -> None:
    target = symmetric(logs, seed)
    y = from_target(target)
    assert np.array_equal(y, y.T)
    noise = 1e-12 * np.abs(y).max()
    assert np.linalg.eigvalsh(y).min() >= -noise
    assert np.linalg.eigvalsh(electronic_from_target(target)).min() >= 1 - 1e-12 - noise


@given(arrays(float, 3, elements=st.floats(-5, 1e5)), seeds)
def test_predictions_are_capped(logs: np.ndarray, seed: int) -> None:
    eigenvalues = np.linalg.eigvalsh(from_target(symmetric(logs, seed)))
    assert eigenvalues.max() <= np.exp(LARGEST_LOG) * (1 + 1e-9)
    assert (eigenvalues > 0).all()


@given(positive(FLOOR, LARGEST), positive(FLOOR, LARGEST))
def test_larger_permittivities_have_larger_targets(first: np.ndarray, second: np.ndarray) -> None:
    """Eigenvalue by eigenvalue the map is monotonic, and the order of the axes stays."""
    a, b = np.linalg.eigvalsh(first), np.linalg.eigvalsh(second)
    ta, tb = np.linalg.eigvalsh(to_target(first)), np.linalg.eigvalsh(to_target(second))
    clear = np.abs(a - b) > 1e-6 * np.maximum(a, b)
    assert (np.sign(ta - tb) == np.sign(a - b))[clear].all()


@given(y=positive(FLOOR, LARGEST), seed=seeds, improper=st.booleans())
def test_both_ways_turn_with_the_frame(
    y: np.ndarray, seed: int, improper: bool, rotation: Callable[..., np.ndarray]
) -> None:
    r = rotation(seed, improper)
    for function in (to_target, from_target, electronic_target, electronic_from_target):
        argument = y + np.eye(3) if function is electronic_target else y / np.abs(y).max()
        expected = r @ function(argument) @ r.T
        found = function(r @ argument @ r.T)
        assert np.allclose(found, expected, atol=1e-8 * max(1.0, np.abs(expected).max()))


def test_values() -> None:
    # (1 + y)^4 = 1 + exp(4L): y = 2^(1/4) − 1 at L = 0, and L = ln(1 + y) where y is large.
    assert np.allclose(from_target(np.zeros((3, 3))), (2**0.25 - 1) * np.eye(3))
    assert np.allclose(to_target((2**0.25 - 1) * np.eye(3)), 0, atol=1e-12)
    large = np.diag([20.0, 100.0, 500.0])
    assert np.allclose(to_target(large), np.diag(np.log1p([20.0, 100.0, 500.0])), atol=1e-5)
    assert np.allclose(electronic_from_target(np.full((3, 3), 0.0)), 2**0.25 * np.eye(3))


def test_what_noise_makes_negative_counts_as_the_floor() -> None:
    floor = to_target(FLOOR * np.eye(3))
    for y in (0.0, -0.3, FLOOR / 2):
        assert np.allclose(to_target(y * np.eye(3)), floor)


def test_leading_axes_are_kept() -> None:
    y = np.stack([[symmetric(np.array([1.0, 2.0, 3.0]), i) for i in range(4)]] * 2)
    found = to_target(y)
    assert found.shape == (2, 4, 3, 3)
    assert np.allclose(found[1, 2], to_target(y[1, 2]))
