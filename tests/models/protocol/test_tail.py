"""What comes back of extremes that were left out of training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.protocol.benchmark import tail_figures
from models.protocol.variants import without_error_bars

N = 100
EXTREME = np.array([3, 50])


def table(ratio: float) -> Any:
    """Tensors of ratio 2, and two whose ratio is larger."""
    true = np.array([np.diag([2.0, 3.0, 4.0])] * N)
    true[EXTREME] = np.diag([2.0, 3.0, 2.0 * ratio])
    return SimpleNamespace(truth={"static": true}.__getitem__)


def test_extremes_are_found_by_rank_and_measured_by_their_logarithm() -> None:
    own = table(10.0)
    found = own.truth("static").copy()
    found[3, 2, 2], found[50, 2, 2] = 40.0, 4.0  # one twice too large, one as all others
    found[7] = np.diag([2.0, 3.0, 30.0])
    outcome = without_error_bars({"static": found}, 0.0, 0.0)
    figures = tail_figures(own, np.arange(N), EXTREME, "anisotropy", outcome)
    assert figures["n_left_out"] == 2
    assert figures["recall_top_2"] == 0.5
    expected = (np.log(2) + np.log(5)) / 2
    assert figures["log_error"] == pytest.approx(expected, abs=1e-4)


def test_a_tensor_that_is_not_positive_comes_last_and_has_an_error_all_the_same() -> None:
    own = table(10.0)
    found = own.truth("static").copy()
    found[3] = np.diag([-3.0, 1.0, 20.0])
    outcome = without_error_bars({"static": found}, 0.0, 0.0)
    figures = tail_figures(own, np.arange(N), EXTREME, "anisotropy", outcome)
    assert figures["recall_top_2"] == 0.5
    assert figures["log_error"] == pytest.approx(np.log(2) / 2, abs=1e-4)
