"""Error bars that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration import LEVELS, Calibration, Scale, coverage, quantiles, spread_of

RANDOM = np.random.default_rng(4)


def made_up(n: int, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors ``factor`` times as large as the spread tells, with heavy tails."""
    spread = np.exp(RANDOM.normal(-3, 0.7, size=n))
    return factor * spread * RANDOM.laplace(size=n) / 2**0.5, spread, np.zeros(n)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_scale_of_the_errors_is_found(factor: float) -> None:
    scale = Scale.fitted(*made_up(4000, factor))
    spread = np.exp(np.array([-4.0, -3.0, -2.0]))
    assert np.allclose(scale.sigma(spread, np.zeros(3)) / spread, factor, rtol=0.15)


def test_physical_estimates_have_a_scale_of_their_own() -> None:
    errors, spread, _ = made_up(4000, 2.0)
    physics = (np.arange(4000) % 2).astype(float)
    scale = Scale.fitted(np.where(physics == 1, errors / 4, errors), spread, physics)
    assert scale.physics == pytest.approx(np.log(1 / 4), abs=0.15)


def test_intervals_cover_what_they_promise() -> None:
    first, second = made_up(3000, 1.0), made_up(3000, 1.0)
    bounds = quantiles(first[0], first[1])
    assert np.allclose(coverage(second[0], second[1], bounds), LEVELS, atol=0.03)
    assert bounds == tuple(sorted(bounds))


def test_members_move_apart_about_their_mean() -> None:
    targets = RANDOM.normal(size=(5, 6, 2, 3, 3))
    targets = targets + np.swapaxes(targets, -1, -2)
    calibration = Calibration(
        Scale(np.log(2.0), 1.0, 0.0), Scale(np.log(0.5), 1.0, np.log(3.0)),
        Calibration.none().quantiles, 9,
    )  # fmt: skip
    physics = np.array([0, 1, 0, 1, 0, 1.0])
    found = calibration.spread_out(targets, physics, np.full(6, 0.7))
    assert np.allclose(found.mean(axis=0), targets.mean(axis=0))
    ratio = [spread_of(found[:, :, p]) / spread_of(targets[:, :, p]) for p in range(2)]
    assert np.allclose(ratio[0], 2.0)
    assert np.allclose(ratio[1], np.where(physics == 1, 1.5, 0.5))


def test_nothing_learned_changes_nothing() -> None:
    targets = RANDOM.normal(size=(3, 4, 2, 3, 3))
    inside = np.array([0.0, 0.5, 0.99, 1.0])
    assert np.allclose(Calibration.none().spread_out(targets, np.zeros(4), inside), targets)
    again = Calibration.from_dict(Calibration.none().to_dict())
    assert again == Calibration.none()


def test_outside_the_domain_errors_are_expected_to_grow() -> None:
    targets = RANDOM.normal(size=(3, 4, 2, 3, 3))
    targets = targets + np.swapaxes(targets, -1, -2)
    distance = np.array([0.2, 1.0, 1.5, 30.0])
    found = Calibration.none().spread_out(targets, np.zeros(4), distance)
    for part in range(2):
        ratio = spread_of(found[:, :, part]) / spread_of(targets[:, :, part])
        assert np.allclose(ratio, [1, 1, 1.5, 3])
