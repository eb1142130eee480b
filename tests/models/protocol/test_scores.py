"""Metrics with intervals, paired comparisons and cards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.metrics import material_errors
from models.protocol.card import read_card, write_card
from models.protocol.scores import paired, resampled_means, scores
from screening.errors import UserError

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.uniform(2, 9, size=(200, 1, 1)) * np.eye(3)
SYSTEMS = ["cubic", "monoclinic"] * 100


def test_perfect_predictions() -> None:
    found = scores(TRUE, TRUE, SYSTEMS)
    assert set(found) == {"all", "cubic", "monoclinic"}
    assert found["all"]["n"] == 200 and found["cubic"]["n"] == 100
    assert found["all"]["mae_9"] == [0.0, 0.0, 0.0]
    assert found["all"]["within_25"] == [1.0, 1.0, 1.0]


def test_intervals_hold_the_mean_of_the_population() -> None:
    held = 0
    for seed in range(100):
        errors = np.random.default_rng(seed).exponential(size=80)
        low, high = np.percentile(resampled_means(errors, seed), (2.5, 97.5))
        held += low < 1.0 < high
    assert 88 <= held <= 99


def test_pairing_sees_what_separate_intervals_do_not() -> None:
    common = RANDOM.exponential(2.0, size=300)
    better, worse = common, common + 0.05 + RANDOM.normal(0, 0.05, size=300)
    found = paired(better, worse)
    assert found["low"] < found["difference"] < found["high"] < 0
    a, b = (np.percentile(resampled_means(x, 0), (2.5, 97.5)) for x in (better, worse))
    assert a[1] > b[0]  # the separate intervals overlap


def test_the_papers_cut_leaves_out_large_tensors() -> None:
    true = np.stack([5 * np.eye(3), 200 * np.eye(3)])
    errors = material_errors(true + np.eye(3), true)
    assert errors["mae_9_below_100"][0] == pytest.approx(1 / 3)
    assert np.isnan(errors["mae_9_below_100"][1])


def test_cards(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    write_card(path, {"variant": "ours", "figures": {"ε": [1.0, 0.9, 1.1]}})
    assert read_card(path)["figures"] == {"ε": [1.0, 0.9, 1.1]}
    for text in ("format: 99\n", "nonsense: [", ""):
        path.write_text(text)
        with pytest.raises(UserError, match="no result card"):
            read_card(path)
