"""Figures of merit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from screening import tasks
from screening.errors import UserError
from screening.tasks import Array, Task, get_task, register, task_names
from screening.tensors import mean_permittivity

STATIC = np.array([[7.0, 1.0, 0.0], [1.0, 7.0, 0.0], [0.0, 0.0, 4.0]])
"""Eigenvalues 8, 6 and 4; mean 6."""


@pytest.fixture
def registry() -> Iterator[None]:
    """Leaves the registered tasks as they were."""
    before = dict(tasks._TASKS)
    yield
    tasks._TASKS.clear()
    tasks._TASKS.update(before)


def test_values_by_hand() -> None:
    assert get_task("high-k").figure_of_merit(np.array(2.5), STATIC) == pytest.approx(15.0)
    assert get_task("anisotropy").figure_of_merit(np.array(2.5), STATIC) == pytest.approx(2.0)


def test_what_belongs_to_the_tasks() -> None:
    high_k, anisotropy = get_task("high-k"), get_task("anisotropy")
    assert (high_k.needs_band_gap, high_k.exclude_molecular) == (True, False)
    assert (anisotropy.needs_band_gap, anisotropy.exclude_molecular) == (False, True)
    assert high_k.label == "E_g·ε̄ (eV)"
    assert anisotropy.label == "λmax/λmin"
    assert task_names() == ["anisotropy", "high-k"]


@pytest.mark.parametrize("name", ["high-k", "anisotropy"])
@given(seed=st.integers(0, 2**31 - 1), improper=st.booleans())
def test_merits_do_not_depend_on_the_frame(
    name: str, seed: int, improper: bool, rotation: Callable[..., np.ndarray]
) -> None:
    a = np.random.default_rng(seed).normal(size=(3, 3))
    static, r = a @ a.T + 2 * np.eye(3), rotation(seed, improper)
    gap, task = np.array(3.0), get_task(name)
    turned = task.figure_of_merit(gap, r @ static @ r.T)
    assert turned == pytest.approx(float(task.figure_of_merit(gap, static)))


@pytest.mark.parametrize("name", ["high-k", "anisotropy"])
def test_members_and_materials_are_leading_axes(name: str) -> None:
    task, gaps = get_task(name), np.array([1.0, 2.0, 3.0, 4.0])
    stack = np.stack([[STATIC + m * n * np.diag([1, 2, 3]) for n in range(4)] for m in range(2)])
    found = task.figure_of_merit(gaps[None], stack)
    assert found.shape == (2, 4)
    for m in range(2):
        for n in range(4):
            one = task.figure_of_merit(gaps[n], stack[m, n])
            assert found[m, n] == pytest.approx(float(one))


def test_the_most_isotropic_tensor_has_the_least_anisotropy() -> None:
    assert get_task("anisotropy").figure_of_merit(np.array(1.0), 9 * np.eye(3)) == pytest.approx(1)


def test_an_unknown_task_is_refused_with_the_choice() -> None:
    with pytest.raises(UserError, match=r"no task 'low-k'; choose one of: anisotropy, high-k\."):
        get_task("low-k")


def test_a_user_can_add_a_task(registry: None) -> None:
    class LowLoss(Task):
        name = "low-loss"
        label = "E_g / ε̄ (eV)"

        def figure_of_merit(self, band_gap: Array, static: Array) -> Array:
            return np.asarray(band_gap / mean_permittivity(static))

    register(LowLoss())
    assert "low-loss" in task_names()
    assert get_task("low-loss").figure_of_merit(np.array(3.0), STATIC) == pytest.approx(0.5)
    assert not get_task("low-loss").needs_band_gap


def test_a_task_without_figure_of_merit_cannot_be_made() -> None:
    class Nothing(Task):
        name = label = "nothing"

    with pytest.raises(TypeError, match="figure_of_merit"):
        Nothing()
