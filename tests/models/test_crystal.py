"""Crystals reduced by symmetry: the representatives tell all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.cache import FeatureCache
from models.crystal import Crystal
from models.encoder import rank2_basis
from screening.symmetry import project

NAMES = ("NaCl", "quartz", "Te", "rutile", "SrTiO3", "baddeleyite", "wurtzite", "I2")
REPRESENTATIVES = {"NaCl": 2, "quartz": 2, "Te": 1, "rutile": 2, "SrTiO3": 3, "baddeleyite": 3}


@pytest.mark.parametrize("name", NAMES)
def test_orbits(name: str, prototypes: dict[str, Any]) -> None:
    crystal = Crystal.of(prototypes[name])
    n = len(crystal.owner)
    if name in REPRESENTATIVES:
        assert len(crystal.representatives) == REPRESENTATIVES[name]
    assert crystal.weights.sum() == pytest.approx(1)
    assert np.array_equal(crystal.weights * n, np.bincount(crystal.owner))
    assert np.array_equal(crystal.owner[crystal.representatives], range(len(crystal.weights)))
    species = crystal.cell[2]
    assert np.array_equal(species, species[crystal.representatives][crystal.owner])
    assert np.abs(crystal.turns @ np.swapaxes(crystal.turns, 1, 2) - np.eye(3)).max() < 1e-12


def linear_readout(rows: np.ndarray, layout: Any, seed: int) -> np.ndarray:
    """Some equivariant symmetric tensor per atom, made from scalars, vectors and tensors."""
    random = np.random.default_rng(seed)
    s, v, t = np.split(rows, [layout.scalars, layout.scalars + 3 * layout.vectors], axis=1)
    vector = np.einsum("acx,c->ax", v.reshape(len(rows), -1, 3), random.normal(size=layout.vectors))
    five = np.einsum("acx,c->ax", t.reshape(len(rows), -1, 5), random.normal(size=layout.tensors))
    scalar = np.tanh(s @ random.normal(size=layout.scalars) / 20)
    basis = rank2_basis().numpy()
    return (
        scalar[:, None, None] * np.eye(3)
        + vector[:, :, None] * vector[:, None, :]
        + np.einsum("ax,xij->aij", five, basis)
    )


@pytest.mark.parametrize("name", NAMES)
def test_representatives_give_the_mean_over_all_atoms(
    name: str, prototypes: dict[str, Any], cache: FeatureCache
) -> None:
    crystal = Crystal.of(prototypes[name])
    rows = cache.features([prototypes[name]])[0].astype(np.float64)
    layout = cache.encoder.layout
    reduced = crystal.reduced(rows, layout).astype(np.float64)
    everything = linear_readout(rows, layout, 3).mean(axis=0)
    few = np.einsum("a,aij->ij", crystal.weights, linear_readout(reduced, layout, 3))
    expected = project(everything, crystal.rotations)
    assert np.abs(project(few, crystal.rotations) - expected).max() < 3e-3 * np.abs(expected).max()


@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_atoms_come_back(name: str, prototypes: dict[str, Any]) -> None:
    """Expanding and reducing are inverse on what the sites allow; general tensors included."""
    crystal = Crystal.of(prototypes[name])
    drawn = np.random.default_rng(1).normal(size=(len(crystal.representatives), 3, 3))
    allowed = crystal.site_symmetric(drawn)
    atoms = crystal.expanded_tensors(allowed)
    assert np.abs(crystal.reduced_tensors(atoms) - allowed).max() < 1e-10
    for rotation, permutation in zip(crystal.rotations, crystal.permutations, strict=True):
        assert np.abs(atoms[permutation] - rotation @ atoms @ rotation.T).max() < 1e-10
