"""The ionic tensor from Born charges and force constants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.physics import COULOMB, FLOOR, Modes, estimate, largest_mean, neutral
from screening.tables import known_from_frame


def pair(stiffness: float) -> np.ndarray:
    """Force constants of two atoms joined by a spring that is alike in all directions."""
    return stiffness * np.kron([[1, -1], [-1, 1]], np.eye(3))


CHARGES = np.stack([2 * np.eye(3), -2 * np.eye(3)])


def test_two_ions_on_a_spring() -> None:
    """The reduced coordinate u = u1 − u2 has dipole Z·u and energy K·u²/2: ε = Z²/(K·V)."""
    tensor = Modes.of(pair(5.0)).ionic(CHARGES, 20.0)
    assert np.allclose(tensor, COULOMB / 20.0 * 4 / 5.0 * np.eye(3))


def test_rigid_translations_never_enter() -> None:
    """Not even with charges that do not add up to zero, or force constants of any size."""
    for scale in (1e-4, 1.0, 1e4):
        modes = Modes.of(scale * pair(1.0))
        assert len(modes.stiffness) == 3
        assert np.allclose(modes.stiffness, 2 * scale)
        shifted = modes.ionic(CHARGES + 3 * np.eye(3), 20.0)
        assert np.allclose(shifted, modes.ionic(CHARGES, 20.0))


def test_a_softening_mode_grows_without_bound_and_then_is_floored() -> None:
    values = [float(estimate(Modes.of(pair(k)), CHARGES, 20.0)[0][0, 0]) for k in (4.0, 0.4, 0.04)]
    assert values[1] == pytest.approx(10 * values[0])
    assert values[2] == pytest.approx(100 * values[0])
    floored, told = estimate(Modes.of(pair(1e-9)), CHARGES, 20.0)
    assert floored[0, 0] == pytest.approx(COULOMB / 20 * 8 / FLOOR)
    assert told[-1] == pytest.approx(1.0)


def test_an_unstable_mode_is_told_and_counts_as_after_its_transition() -> None:
    stable, told = estimate(Modes.of(pair(2.0)), CHARGES, 20.0)
    folded, unstable = estimate(Modes.of(pair(-1.0)), CHARGES, 20.0)
    assert np.allclose(folded, stable)
    assert told[-1] == 0.0
    assert unstable[-1] == pytest.approx(2.0)  # floored in full, and unstable


def test_a_crystal_without_charges_has_no_ionic_part() -> None:
    tensor, told = estimate(Modes.of(pair(3.0)), np.zeros((2, 3, 3)), 20.0)
    assert np.abs(tensor).max() == 0.0
    assert np.isfinite(told).all()
    single = Modes.of(np.zeros((3, 3)))
    assert np.abs(estimate(single, np.zeros((1, 3, 3)), 20.0)[0]).max() == 0.0


def test_charges_are_made_neutral() -> None:
    drawn = np.random.default_rng(0).normal(size=(2, 5, 3, 3))
    assert np.abs(neutral(drawn).sum(axis=1)).max() < 1e-12


def test_true_charges_and_force_constants_give_the_true_tensor(
    tensor_table: Any, screen_data: Path
) -> None:
    """On phonondb's records; also fixes which index of Z* is the field's."""
    rows = tensor_table[tensor_table["source"] == "phonondb"].sample(60, random_state=1)
    constants = pd.read_parquet(screen_data / "gamma_force_constants.parquet")
    constants = constants.set_index("material_id")["phi"]
    errors, swapped = [], []
    for _, row in rows.iterrows():
        (known,) = known_from_frame(row.to_frame().T, "the tensor table")
        structure, true = known.material.structure, known.tensors.ionic
        assert true is not None
        size = 3 * len(structure)
        matrix = np.zeros((size, size))
        matrix[np.triu_indices(size)] = constants[row["material_id"]]
        modes = Modes.of(matrix + np.triu(matrix, 1).T)
        charges = np.array(json.loads(row["born_charges"]))
        scale = max(float(np.abs(true).max()), 0.1)
        for born, found in ((charges, errors), (np.swapaxes(charges, 1, 2), swapped)):
            found.append(np.abs(modes.ionic(born, structure.volume) - true).max() / scale)
    assert np.median(errors) < 1e-4
    assert max(errors) < 5e-3
    assert np.mean(np.array(swapped) > 5e-3) > 0.4


def test_what_has_no_charges_has_no_ionic_part() -> None:
    """The bound is far above what ions make, and nothing where charges vanish."""
    ions = np.stack([2 * np.eye(3), -2 * np.eye(3)])
    modes = Modes.of(np.kron([[1.0, -1.0], [-1.0, 1.0]], 5.0 * np.eye(3)))
    volume = 20.0
    mean = np.trace(modes.ionic(ions, volume)) / 3
    assert largest_mean(ions, volume) > 50 * mean
    assert largest_mean(0.01 * ions, volume) == pytest.approx(1e-4 * largest_mean(ions, volume))
    assert largest_mean(0 * ions, volume) == 0
