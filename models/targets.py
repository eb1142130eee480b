"""From permittivities to what the networks are trained on, and back.

Both parts obey a bound: the eigenvalues of ε∞ are at least 1, those of the ionic part at least 0.
With y = ε∞ − 1 or y = ε_ionic, the networks predict a symmetric matrix L with, eigenvalue by
eigenvalue,

    y = (1 + exp(βL))^(1/β) − 1,        L = log((1 + y)^β − 1) / β.

For y ≳ 1 this is L = log(1 + y), the log-matrix target that tames the heavy tail of permittivities;
for small y it goes on smoothly to y → 0. Whatever L a network puts out, the tensors are physical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from screening.tensors import DielectricTensors

Array = NDArray[np.float64]

SHARPNESS = 4.0
"""β: how late the logarithm sets in."""
FLOOR = 0.01
"""Eigenvalues of y below this are not told apart: DFPT noise, and of no use in a dielectric."""
LARGEST_LOG = 7.6
"""Predictions are capped at exp(7.6) ≈ 2000, beyond any label."""


def to_target(y: Array) -> Array:
    """Positive semidefinite matrices y (..., 3, 3) → L (..., 3, 3)."""

    def function(eigenvalues: Array) -> Array:
        u = np.log1p(np.maximum(eigenvalues, FLOOR))
        return np.asarray(u + np.log(-np.expm1(-SHARPNESS * u)) / SHARPNESS)

    return _matrix_function(y, function)


def from_target(target: Array) -> Array:
    """L (..., 3, 3) → positive definite matrices y (..., 3, 3)."""

    def function(eigenvalues: Array) -> Array:
        bounded = np.minimum(eigenvalues, LARGEST_LOG)
        return np.asarray(np.expm1(np.logaddexp(0.0, SHARPNESS * bounded) / SHARPNESS))

    return _matrix_function(target, function)


def electronic_target(electronic: Array) -> Array:
    """ε∞ (..., 3, 3) → L."""
    return to_target(electronic - np.eye(3))


def electronic_from_target(target: Array) -> Array:
    """L → ε∞ (..., 3, 3), eigenvalues above 1."""
    return from_target(target) + np.eye(3)


def targets_of(known: Sequence[DielectricTensors]) -> tuple[Array, Array]:
    """L of both parts, (n, 2, 3, 3), zeros where unknown, and 1 where known, (n, 2)."""
    targets, mask = np.zeros((len(known), 2, 3, 3)), np.zeros((len(known), 2))
    for i, tensors in enumerate(known):
        if tensors.electronic is not None:
            targets[i, 0], mask[i, 0] = electronic_target(tensors.electronic), 1.0
        if tensors.ionic is not None:
            targets[i, 1], mask[i, 1] = to_target(tensors.ionic), 1.0
    return targets, mask


def _matrix_function(matrices: Array, function: Callable[[Array], Array]) -> Array:
    eigenvalues, vectors = np.linalg.eigh(matrices)
    values = function(eigenvalues)
    result = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return np.asarray((result + np.swapaxes(result, -1, -2)) / 2)
