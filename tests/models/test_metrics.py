"""Error measures against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.metrics import held_out_metrics, tensor_errors
from screening.tensors import DielectricTensors

SYMMETRIC = np.array([[4.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.0, 2.0]])


def test_values_by_hand() -> None:
    true = np.stack([np.diag([2.0, 2.0, 2.0]), np.diag([2.0, 4.0, 6.0])])
    predicted = np.stack([np.diag([2.0, 2.0, 5.0]), np.diag([1.0, 4.0, 7.0])])
    predicted[0, 0, 1] = predicted[0, 1, 0] = 0.5
    errors = tensor_errors(predicted, true)
    # Unique elements: |3| + |0.5| of six, and |1| + |1| of six.
    assert errors["mae_6"] == pytest.approx((3.5 / 6 + 2 / 6) / 2)
    # All elements: the one off the diagonal counts twice.
    assert errors["mae_9"] == pytest.approx((4.0 / 9 + 2 / 9) / 2)
    assert errors["scalar"] == pytest.approx((1.0 + 0.0) / 2)
    assert errors["log_scalar"] == pytest.approx(np.log(3 / 2) / 2)
    assert errors["median_relative"] == pytest.approx(0.25)
    # Eigenvalues 1.5, 2.5, 5 against 2, 2, 2; and 1, 4, 7 against 2, 4, 6.
    expected = (np.log(5 / 1.5) + np.log(7 / 3)) / 2
    assert errors["log_anisotropy"] == pytest.approx(expected)


def test_perfect_predictions_have_no_error() -> None:
    true = np.stack([SYMMETRIC, 3 * np.eye(3)])
    errors = tensor_errors(true, true)
    assert errors.pop("within_25") == 1.0
    assert set(errors.values()) == {0.0}


@given(arrays(float, (4, 3), elements=st.floats(0.1, 50)))
def test_where_only_the_diagonal_is_wrong_mae_6_is_larger_by_three_halves(
    differences: np.ndarray,
) -> None:
    true = np.stack([SYMMETRIC + 60 * np.eye(3)] * 4)
    errors = tensor_errors(true - np.stack([np.diag(d) for d in differences]), true)
    assert errors["mae_6"] == pytest.approx(1.5 * errors["mae_9"])


@given(st.floats(0.1, 3))
def test_where_only_the_rest_is_wrong_mae_6_is_smaller_by_three_quarters(size: float) -> None:
    true = np.stack([9 * np.eye(3)])
    errors = tensor_errors(true + size * (1 - np.eye(3)), true)
    assert errors["mae_6"] == pytest.approx(0.75 * errors["mae_9"])
    assert errors["scalar"] == pytest.approx(0, abs=1e-12)


def test_members_are_judged_on_what_they_have_not_seen() -> None:
    true = [
        DielectricTensors(2 * np.eye(3), 1 * np.eye(3)),
        DielectricTensors(2 * np.eye(3), None),
        DielectricTensors(None, 5 * np.eye(3)),
        DielectricTensors(4 * np.eye(3), 2 * np.eye(3)),
    ]
    electronic = np.stack(
        [[(2 + member + row) * np.eye(3) for row in range(4)] for member in range(2)]
    )
    ionic = np.ones_like(electronic) * np.eye(3)
    found = held_out_metrics(electronic, ionic, true, [np.array([0, 1, 2]), np.array([3])])
    # Member 0 predicts 2 and 3 for rows 0 and 1 (both 2); member 1 predicts 6 for row 3 (4).
    assert found["electronic"]["scalar"] == pytest.approx(((0 + 1) / 2 + 2) / 2)
    # Static is known for rows 0 (3, predicted 3) and 3 (6, predicted 7) alone.
    assert found["static"]["scalar"] == pytest.approx((0 + 1) / 2)


def test_a_part_that_no_member_can_be_judged_on_is_left_out() -> None:
    true = [DielectricTensors(2 * np.eye(3), None)] * 2
    predicted = np.ones((1, 2, 3, 3)) * np.eye(3)
    found = held_out_metrics(predicted, predicted, true, [np.array([1])])
    assert set(found) == {"electronic"}
    assert held_out_metrics(predicted, predicted, true, [np.array([], dtype=np.int64)]) == {}
