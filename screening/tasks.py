"""Tasks: a figure of merit and the filters that belong to it.

A new task is one small class::

    class LowLoss(Task):
        name = "low-loss"
        label = "E_g / ε̄ (eV)"

        def figure_of_merit(self, band_gap, static):
            return band_gap / mean_permittivity(static)

    register(LowLoss())
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from screening.errors import UserError
from screening.tensors import mean_permittivity

Array = NDArray[np.float64]


class Task(ABC):
    """What is being looked for."""

    name: ClassVar[str]
    label: ClassVar[str]
    needs_band_gap: ClassVar[bool] = False
    exclude_molecular: ClassVar[bool] = False
    """Leave out zero-dimensionally bonded crystals before the acquisition."""

    @abstractmethod
    def figure_of_merit(self, band_gap: Array, static: Array) -> Array:
        """Value to maximise, shape (...), from gaps (...) in eV and static tensors (..., 3, 3)."""


class HighK(Task):
    """High permittivity together with a wide gap: E_g·ε̄, ε̄ = trace/3, as in DTNet."""

    name = "high-k"
    label = "E_g·ε̄ (eV)"
    needs_band_gap = True

    def figure_of_merit(self, band_gap: Array, static: Array) -> Array:
        return np.asarray(band_gap * mean_permittivity(static))


class Anisotropy(Task):
    """Strong anisotropy: ratio of the largest to the smallest eigenvalue, as in DTNet.

    Molecular crystals are left out, as in the paper: their few weak modes make a large ratio
    without a use.
    """

    name = "anisotropy"
    label = "λmax/λmin"
    exclude_molecular = True

    def figure_of_merit(self, band_gap: Array, static: Array) -> Array:
        eigenvalues = np.linalg.eigvalsh(static)
        return np.asarray(eigenvalues[..., 2] / eigenvalues[..., 0])


_TASKS: dict[str, Task] = {}


def register(task: Task) -> None:
    """Make a task known under its name."""
    _TASKS[task.name] = task


def task_names() -> list[str]:
    """Names of all registered tasks."""
    return sorted(_TASKS)


def get_task(name: str) -> Task:
    """The task of that name.

    Raises
    ------
    UserError
        No such task.
    """
    try:
        return _TASKS[name]
    except KeyError:
        known = ", ".join(task_names())
        raise UserError(f"There is no task '{name}'; choose one of: {known}.") from None


register(HighK())
register(Anisotropy())
