"""Error bars that mean what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from models.calibrating import calibrated, unseen_by
from models.calibration import LEVELS, Calibration, Scale, coverage, quantiles, spread_of
from models.ensemble import Prediction
from models.targets import electronic_from_target, from_target, targets_of
from screening.builtin import builtin_hidden, builtin_known
from screening.tensors import DielectricTensors

RANDOM = np.random.default_rng(4)
START = RANDOM.bit_generator.state


@pytest.fixture(autouse=True)
def _draws() -> None:
    """The same for a test, whatever ran before it."""
    RANDOM.bit_generator.state = START


def made_up(n: int, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors ``factor`` times as large as the spread tells, with heavy tails."""
    spread = np.exp(RANDOM.normal(-3, 0.7, size=n))
    return factor * spread * RANDOM.laplace(size=n) / 2**0.5, spread, np.zeros(n)


def finishing(targets: np.ndarray) -> Callable[[Calibration], Prediction]:
    """Predictions of members' ``targets``, without physical estimates and inside the domain."""

    def finished(calibration: Calibration) -> Prediction:
        none = np.zeros(targets.shape[1])
        apart = calibration.spread_out(targets, none, none)
        electronic = electronic_from_target(apart[:, :, 0])
        return Prediction(electronic, from_target(apart[:, :, 1]), none, none > 0)

    return finished


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


def test_of_few_errors_the_size_counts_and_agreement_of_members_little() -> None:
    spread = np.exp(RANDOM.normal(-3, 1.0, size=12))
    errors = 0.4 * np.where(np.arange(12) % 2, 1.0, -1.0)
    scale = Scale.of_few(errors, spread)
    assert scale.sigma(spread, np.zeros(12)).mean() == pytest.approx(0.4 * 2**0.5, rel=0.15)
    narrow, wide = scale.sigma(np.array([0.01, 0.16]), np.zeros(2))
    assert wide == pytest.approx(2 * narrow)


def test_which_member_was_not_trained_on_what() -> None:
    found = unseen_by(np.array([0, 1, 2, 3, 2]), np.array([4]), members=5, n_folds=3)
    expected = [[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 1, 0, 1], [1, 0, 0, 0, 1], [0, 1, 0, 0, 1]]
    assert found.tolist() == np.array(expected, dtype=bool).tolist()


@pytest.mark.parametrize("error", [0.1, 0.5])
def test_members_that_know_their_crystals_by_heart_earn_no_trust_for_it(error: float) -> None:
    """Small errors on what they were trained on, ``error`` on what they were not."""
    crystals = [*builtin_known(), *builtin_hidden()]
    # Diamond has an ionic part, and it is 0.
    known = sorted(crystals, key=lambda k: k.material.material_id != "C")[:60]
    assert known[0].tensors.ionic is not None and not known[0].tensors.ionic.any()
    labels, _ = targets_of([k.tensors for k in known])
    random = np.random.default_rng(1)
    unseen = unseen_by(random.integers(10, size=60), np.arange(4), 5, 10)
    size = np.where(unseen, error, 0.01)[..., None, None, None]
    targets = labels + size * random.choice([-1, 1], size=(5, 60, 2, 1, 1)) * np.eye(3)
    finished = finishing(targets)
    found = calibrated(targets, known, unseen, np.zeros(60), finished)
    assert found.n == unseen.any(axis=0).sum() < 50
    assert all(np.isfinite(bounds).all() for bounds in found.quantiles.values())
    spread = finished(found)
    for part, scale in ((0, found.electronic), (1, found.ionic)):
        sigma = scale.sigma(spread_of(targets[:, :, part]), np.zeros(60))
        assert 0.7 * error < np.median(sigma) < 2.1 * error
    assert np.median(spread.deviation("static")) > 0.3 * error


def test_a_part_without_labels_takes_nothing_from_the_other() -> None:
    known = [
        replace(k, tensors=DielectricTensors(k.tensors.electronic, None))
        for k in [*builtin_known(), *builtin_hidden()][:60]
    ]
    labels, _ = targets_of([k.tensors for k in known])
    random = np.random.default_rng(2)
    unseen = unseen_by(random.integers(10, size=60), np.arange(4), 5, 10)
    targets = labels + 0.2 * random.choice([-1, 1], size=(5, 60, 2, 1, 1)) * np.eye(3)
    found = calibrated(targets, known, unseen, np.zeros(60), finishing(targets))
    assumed = Calibration.assumed()
    assert found.n == unseen.any(axis=0).sum()
    assert found.ionic == assumed.ionic and found.electronic != assumed.electronic
    assert found.quantiles["ionic"] == assumed.quantiles["ionic"]
    assert found.quantiles["electronic"] != assumed.quantiles["electronic"]
