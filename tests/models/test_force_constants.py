"""Force constants from few displacements are those from all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.cache import FeatureCache, ForceConstantCache
from models.force_constants import STEP, force_constants, without_translations
from models.potential import Potential
from screening.symmetry import Cell, cell_of, crystal_operations

NAMES = ("NaCl", "quartz", "Te", "rutile", "SrTiO3", "baddeleyite", "wurtzite")


class Springs:
    """Harmonic springs to all neighbours, plus a term that tells left from right."""

    def __init__(self, handed: float = 0.0) -> None:
        self.handed = handed
        self.asked = 0

    def matrix(self, cell: Cell, parity: int) -> np.ndarray:
        lattice, positions, species = cell
        n = len(species)
        shifts = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
        found = np.zeros((n, n, 3, 3))
        for i in range(n):
            for j in range(n):
                for shift in shifts @ lattice:
                    d = (positions[j] - positions[i]) @ lattice + shift
                    length = np.linalg.norm(d)
                    if 1e-6 < length < 4.0:
                        weight = np.exp(-length) * (1 + 0.1 * species[i] + 0.1 * species[j])
                        block = weight * (np.outer(d, d) + np.eye(3))
                        found[i, j] -= block
                        found[i, i] += block
        matrix = found.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
        return matrix * (1 + parity * self.handed)

    def forces(self, cell: Cell, displacements: np.ndarray, parity: int = 1) -> np.ndarray:
        self.asked += len(displacements)
        flat = displacements.reshape(len(displacements), -1)
        return -(flat @ self.matrix(cell, parity)).reshape(displacements.shape)


@pytest.mark.parametrize("name", NAMES)
def test_springs_are_found_exactly(name: str, prototypes: dict[str, Any]) -> None:
    cell, springs = cell_of(prototypes[name]), Springs()
    found = force_constants(cell, springs)  # type: ignore[arg-type]
    expected = springs.matrix(cell, 1)
    assert np.abs(found - expected).max() < 1e-8 * np.abs(expected).max()
    assert springs.asked <= 6 * len(crystal_operations(cell)[1].min(axis=0))
    if name in ("NaCl", "SrTiO3", "rutile"):
        assert springs.asked < 6 * len(cell[2])


def test_both_hands_count_alike(prototypes: dict[str, Any]) -> None:
    """Tellurium's chains have no mirror: the crystal and its image must get the same."""
    cell = cell_of(prototypes["Te"])
    found = force_constants(cell, Springs(handed=0.2))  # type: ignore[arg-type]
    expected = Springs().matrix(cell, 1)
    assert np.abs(found - expected).max() < 1e-8 * np.abs(expected).max()


@pytest.fixture(scope="module")
def potential() -> Potential:
    """The smaller one."""
    return Potential("7net-0")


@pytest.mark.parametrize("name", ["NaCl", "wurtzite", "quartz"])
def test_the_potential_s_own(name: str, prototypes: dict[str, Any], potential: Potential) -> None:
    """Against every displacement of every atom, in both hands."""
    cell = cell_of(prototypes[name])
    n = len(cell[2])
    steps = STEP * np.eye(3 * n).reshape(-1, n, 3)
    brute = sum(
        (potential.forces(cell, -steps, hand) - potential.forces(cell, steps, hand)) / (4 * STEP)
        for hand in (1, -1)
    ).reshape(3 * n, 3 * n)
    expected = without_translations((brute + brute.T) / 2)
    found = force_constants(cell, potential)
    assert np.abs(found - expected).max() < 3e-3 * np.abs(expected).max()
    assert np.linalg.eigvalsh(found)[3 if n > 1 else 0] > -1e-3


def test_they_turn_with_the_crystal(
    prototypes: dict[str, Any], potential: Potential, rotation: Any, turned: Any
) -> None:
    crystal, matrix = prototypes["wurtzite"], rotation(5, True)
    first = force_constants(cell_of(crystal), potential)
    second = force_constants(cell_of(turned(crystal, matrix)), potential)
    both = np.kron(np.eye(len(crystal)), matrix)
    assert np.abs(second - both @ first @ both.T).max() < 2e-3 * np.abs(first).max()


def test_what_was_computed_is_not_computed_again(
    prototypes: dict[str, Any], fresh_cache: FeatureCache
) -> None:
    cell, cache = cell_of(prototypes["NaCl"]), ForceConstantCache.beside(fresh_cache)
    assert cache.stored(cell) is None
    (first,) = cache.compute([cell])
    other = ForceConstantCache.beside(fresh_cache)
    (second,) = other.compute([cell])
    assert other._potential is None
    assert np.array_equal(first, second)
    path = cache.store.path(cell)
    path.write_bytes(path.read_bytes()[:-4])
    assert other.stored(cell) is None
    (third,) = cache.compute([cell])
    assert np.allclose(first, third, atol=1e-4)
