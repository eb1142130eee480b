"""The gate through which tensors from outside come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from screening.errors import UserError
from screening.symmetry import asymmetry, point_group_rotations
from screening.tensors import DielectricTensors, as_matrix, mean_permittivity, read_tensor

NAME = "eps_electronic of mp-1 in table.csv"
TETRAGONAL = np.diag([6.8, 6.8, 8.2])
seeds = st.integers(0, 2**31 - 1)


def refusal(value: Any, structure: Any) -> str:
    """The sentence with which a tensor is refused: it names the thing and is one sentence."""
    with pytest.raises(UserError) as caught:
        read_tensor(value, structure, NAME)
    message = str(caught.value)
    assert message.startswith(NAME)
    assert message.endswith(".")
    assert "\n" not in message
    assert message.count(". ") == 0
    return message


@pytest.mark.parametrize(
    "value",
    [
        None,
        5.0,
        "isotropic",
        [],
        [1, 2, 3],
        [[1, 0], [0, 1]],
        [[1, 0, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0]],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]],
        [[[1, 0, 0]], [[0, 1, 0]], [[0, 0, 1]]],
        [["a", "b", "c"]] * 3,
        [[1, None, 0], [0, 1, 0], [0, 0, 1]],
        {"xx": 1},
        np.zeros((2, 3, 3)),
        np.zeros(9),
    ],
    ids=str,
)
def test_what_is_not_3_by_3_is_refused(value: Any, prototypes: dict[str, Any]) -> None:
    assert "is not a 3×3 tensor" in refusal(value, prototypes["rutile"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float, prototypes: dict[str, Any]) -> None:
    tensor = TETRAGONAL.copy()
    tensor[2, 2] = bad
    assert "NaN or infinity" in refusal(tensor, prototypes["rutile"])


def test_what_is_not_symmetric_is_refused(prototypes: dict[str, Any]) -> None:
    tensor = TETRAGONAL.copy()
    tensor[0, 1] = 1.0
    message = refusal(tensor, prototypes["baddeleyite"])
    assert "is not symmetric" in message
    assert "by up to 1" in message


def test_another_frame_is_refused(
    prototypes: dict[str, Any], rotation: Callable[..., np.ndarray]
) -> None:
    for seed in range(5):
        r = rotation(seed, False)
        message = refusal(r @ np.diag([4.0, 4.0, 9.0]) @ r.T, prototypes["rutile"])
        assert "not invariant under the point group" in message
        assert "frame of the structure" in message
    assert "point group" in refusal(np.diag([8.2, 6.8, 6.8]), prototypes["rutile"])
    assert "point group" in refusal(TETRAGONAL, prototypes["NaCl"])


def test_the_right_frame_is_accepted(
    prototypes: dict[str, Any], rotation: Callable[..., np.ndarray], turned: Callable[..., Any]
) -> None:
    for seed in range(5):
        r = rotation(seed, seed % 2 == 1)
        tensor = r @ TETRAGONAL @ r.T
        assert np.allclose(read_tensor(tensor, turned(prototypes["rutile"], r), NAME), tensor)


@given(seed=seeds, size=st.floats(1e-6, 0.02))
def test_noise_is_accepted_and_removed(seed: int, size: float, prototypes: dict[str, Any]) -> None:
    rutile = prototypes["rutile"]
    noise = size * np.random.default_rng(seed).uniform(-1, 1, size=(3, 3)) * 8.2
    found = read_tensor((TETRAGONAL + noise).tolist(), rutile, NAME)
    assert np.array_equal(found, found.T)
    assert asymmetry(found, point_group_rotations(rutile)) < 1e-12
    assert np.abs(found - TETRAGONAL).max() <= size * 8.2 * 1.0001
    assert found.dtype == np.float64


def test_small_tensors_are_measured_against_the_vacuum(prototypes: dict[str, Any]) -> None:
    """An ionic part of 0.01 with noise of the same size says: nearly nothing."""
    found = read_tensor(np.diag([0.01, -0.01, 0.02]), prototypes["NaCl"], NAME)
    assert np.allclose(found, 0.02 / 3 * np.eye(3))


@pytest.mark.parametrize(
    "kind", [list, tuple, np.asarray, lambda x: np.array([np.array(r) for r in x], dtype=object)]
)
def test_nested_sequences_of_any_kind_are_understood(kind: Callable[[Any], Any]) -> None:
    """Parquet gives arrays of arrays, JSON lists, CSV text read as JSON."""
    rows = [[1, 0, 0], [0, 2.5, 0], [0, 0, "3"]]
    assert np.array_equal(as_matrix(kind(rows), NAME), np.diag([1, 2.5, 3]))


def test_static_needs_both_parts() -> None:
    tensor = 2.0 * np.eye(3)
    static = DielectricTensors(tensor, 3 * tensor).static
    assert static is not None
    assert np.array_equal(static, 4 * tensor)
    assert DielectricTensors(tensor, None).static is None
    assert DielectricTensors(None, tensor).static is None


@given(seed=seeds, missing=st.sampled_from([None, "electronic", "ionic"]))
def test_json_round_trip(
    seed: int, missing: str | None, random_symmetric: Callable[[int], np.ndarray]
) -> None:
    parts = {"electronic": random_symmetric(seed), "ionic": random_symmetric(seed + 1)}
    given_ = DielectricTensors(**{k: None if k == missing else v for k, v in parts.items()})
    again = DielectricTensors.from_dict(json.loads(json.dumps(given_.to_dict())))
    for name in parts:
        before, after = getattr(given_, name), getattr(again, name)
        assert (before is None) == (after is None) == (name == missing)
        assert before is None or np.array_equal(before, after)


@given(seed=seeds, improper=st.booleans())
def test_turning_keeps_eigenvalues_and_can_be_undone(
    seed: int,
    improper: bool,
    rotation: Callable[..., np.ndarray],
    random_symmetric: Callable[[int], np.ndarray],
) -> None:
    r = rotation(seed, improper)
    tensors = DielectricTensors(random_symmetric(seed), None)
    assert tensors.electronic is not None
    found = tensors.rotated(r)
    assert found.ionic is None
    assert found.electronic is not None
    assert np.allclose(np.linalg.eigvalsh(found.electronic), np.linalg.eigvalsh(tensors.electronic))
    back = found.rotated(r.T).electronic
    assert back is not None
    assert np.allclose(back, tensors.electronic)


def test_mean_permittivity() -> None:
    assert mean_permittivity(np.diag([1.0, 2.0, 6.0])) == 3.0
    stack = np.stack([[np.eye(3), 2 * np.eye(3)], [3 * np.eye(3), 4 * np.eye(3)]])
    assert np.array_equal(mean_permittivity(stack), [[1, 2], [3, 4]])


@pytest.mark.parametrize("value", [6.3, 0.0, -0.2])
def test_an_isotropic_tensor_needs_no_search_for_symmetry(
    value: float, prototypes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(structure: Any) -> Any:
        raise AssertionError("every point group leaves it as it is")

    monkeypatch.setattr("screening.tensors.point_group_rotations", search)
    tensor = value * np.eye(3) + 1e-14 * np.triu(np.ones((3, 3)))
    found = read_tensor(tensor, prototypes["rutile"], NAME)
    np.testing.assert_array_equal(found, found[0, 0] * np.eye(3))
    assert found[0, 0] == pytest.approx(value, abs=1e-13)
    with pytest.raises(AssertionError):
        read_tensor(tensor + np.diag([1e-9, 1e-9, 0]), prototypes["rutile"], NAME)
