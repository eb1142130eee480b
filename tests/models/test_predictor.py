"""What a prediction of dielectric tensors has to obey, whatever the networks learned.

Features are kept in half precision (relative error 2e-4 at most), and that is what limits the
equivariance and the independence of the cell; the invariance under the point group is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.cache import FeatureCache
from models.ensemble import Ensemble, Prediction
from screening.symmetry import asymmetry, point_group_rotations
from screening.tensors import SYMMETRY_TOLERANCE, read_tensor

TOLERANCE = 1e-3
"""Relative to the largest element of the tensor; features are rounded to half precision."""
TOLERANCE_DRAWN = 5e-3
"""Drawn crystals are crushed or torn apart; their large features are rounded more coarsely."""
EXACT = 1e-10
PARTS = ("electronic", "ionic")
NO_SHRINKING = (Phase.explicit, Phase.generate)
"""A smaller example is not worth the minutes that the encoder takes to find it."""
CUBIC = ("NaCl", "CsCl", "SrTiO3", "Ar", "zincblende", "K2PtCl6", "CO2", "N2", "mp-22862")

seeds = st.integers(0, 2**31 - 1)


@pytest.fixture(scope="module")
def anisotropic(wild: Callable[..., Ensemble]) -> Ensemble:
    """Random networks whose tensors are as anisotropic as those of real crystals."""
    return wild(3.0, 100.0)


@pytest.fixture(scope="module", params=["random", "trained"])
def ensemble(request: pytest.FixtureRequest, anisotropic: Ensemble, trained: Ensemble) -> Ensemble:
    """Every property holds before training and after it."""
    return anisotropic if request.param == "random" else trained


@pytest.fixture(scope="module", params=["built-in", "prototypes", "low symmetry"])
def crystals(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Real crystals by name."""
    if request.param == "built-in":
        return {
            k.material.material_id: k.material.structure for k in request.getfixturevalue("builtin")
        }
    if request.param == "prototypes":
        found: dict[str, Any] = request.getfixturevalue("prototypes")
        return found
    known = request.getfixturevalue("low_symmetry")
    return {name: k.material.structure for name, k in known.items()}


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of tensors (..., 3, 3), relative to the largest element of each."""
    scale = np.abs(expected).max(axis=(-1, -2))
    return float((np.abs(found - expected).max(axis=(-1, -2)) / scale).max())


def anisotropy(tensors: np.ndarray) -> np.ndarray:
    """λmax/λmin."""
    eigenvalues = np.linalg.eigvalsh(tensors)
    return np.asarray(eigenvalues[..., 2] / eigenvalues[..., 0])


def assert_same(
    found: Prediction, expected: Prediction, rotations: np.ndarray | None = None
) -> None:
    for part in PARTS:
        tensors = getattr(expected, part)
        if rotations is not None:
            tensors = rotations @ tensors @ np.swapaxes(rotations, -1, -2)
        assert deviation(getattr(found, part), tensors) < TOLERANCE


@pytest.mark.parametrize("improper", [False, True])
def test_tensors_turn_with_the_crystal(
    crystals: dict[str, Any],
    ensemble: Ensemble,
    cache: FeatureCache,
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
    improper: bool,
) -> None:
    structures = list(crystals.values())
    rotations = np.array([rotation(seed, improper) for seed in range(len(structures))])
    expected = ensemble.predict(structures, "PBE", cache)
    found = ensemble.predict(
        [turned(s, r) for s, r in zip(structures, rotations, strict=True)], "PBE", cache
    )
    assert_same(found, expected, rotations)


def test_the_choice_of_cell_does_not_matter(
    crystals: dict[str, Any],
    ensemble: Ensemble,
    cache: FeatureCache,
    described_anew: Callable[..., dict[str, Any]],
) -> None:
    expected = ensemble.predict(list(crystals.values()), "PBE", cache)
    others = [list(described_anew(s, n).values()) for n, s in enumerate(crystals.values())]
    ways = range(len(others[0]))
    for first in ways if len(crystals) < 20 else [0]:  # of many crystals, each in another way
        anew = [other[(first + n) % len(ways)] for n, other in enumerate(others)]
        assert_same(ensemble.predict(anew, "PBE", cache), expected)


def test_tensors_have_the_symmetry_of_the_crystal(
    crystals: dict[str, Any], ensemble: Ensemble, cache: FeatureCache
) -> None:
    structures = list(crystals.values())
    prediction = ensemble.predict(structures, "PBE", cache)
    for part in PARTS:
        for i, structure in enumerate(structures):
            rotations = point_group_rotations(structure)
            for tensor in getattr(prediction, part)[:, i]:
                assert asymmetry(tensor, rotations) < EXACT
                assert np.array_equal(tensor, tensor.T)


def test_only_cubic_crystals_are_isotropic(
    crystals: dict[str, Any], anisotropic: Ensemble, cache: FeatureCache, builtin: Any
) -> None:
    """Guards the other tests: tensors that were always isotropic would pass most of them."""
    cubic = {*CUBIC, *(k.material.material_id for k in builtin)}
    prediction = anisotropic.predict(list(crystals.values()), "PBE", cache)
    found = dict(zip(crystals, anisotropy(prediction.ionic).max(axis=0), strict=True))
    for name, value in found.items():
        assert (value < 1 + EXACT) == (name in cubic), name
    others = [value for name, value in found.items() if name not in cubic]
    assert not others or np.median(others) > 1.2


def test_predictions_differ_from_crystal_to_crystal_and_from_member_to_member(
    crystals: dict[str, Any], ensemble: Ensemble, cache: FeatureCache
) -> None:
    prediction = ensemble.predict(list(crystals.values()), "PBE", cache)
    for part in PARTS:
        mean = np.trace(getattr(prediction, part), axis1=-2, axis2=-1) / 3
        assert (mean.std(axis=1) > 0.05).all()
        assert (mean.std(axis=0) > 1e-4).all()


@pytest.mark.parametrize("gain", [1.0, 1e2, 1e4, 1e6])
def test_tensors_are_physical_whatever_the_networks_put_out(
    crystals: dict[str, Any], wild: Callable[..., Ensemble], cache: FeatureCache, gain: float
) -> None:
    prediction = wild(gain, 100 * gain).predict(list(crystals.values()), "PBE", cache)
    electronic = np.linalg.eigvalsh(prediction.electronic)
    ionic = np.linalg.eigvalsh(prediction.ionic)
    # The last digits of eigenvalues that span three orders of magnitude are noise.
    assert (electronic > 1 - 1e-12 * electronic.max()).all()
    assert (ionic > -1e-12 * ionic.max()).all()
    assert electronic.max() < 2100
    assert ionic.max() < 2100
    if gain == 1.0:
        assert (electronic > 1).all()
        assert (ionic > 0).all()
    assert np.array_equal(prediction.static, prediction.electronic + prediction.ionic)


def test_predictions_enter_where_calculations_do(
    crystals: dict[str, Any], ensemble: Ensemble, cache: FeatureCache
) -> None:
    """What the predictor says is written in the frame of the structure it was given."""
    prediction = ensemble.predict(list(crystals.values()), "PBE", cache)
    for structure, tensor in zip(crystals.values(), prediction.static[0], strict=True):
        read = read_tensor(tensor, structure, "a prediction")
        assert deviation(read, tensor) < EXACT < SYMMETRY_TOLERANCE


def test_order_and_company_of_the_crystals_do_not_matter(
    prototypes: dict[str, Any], ensemble: Ensemble, cache: FeatureCache
) -> None:
    structures = list(prototypes.values())
    together = ensemble.predict(structures, "PBE", cache)
    backwards = ensemble.predict(structures[::-1], "PBE", cache)
    for part in PARTS:
        assert deviation(getattr(backwards, part)[:, ::-1], getattr(together, part)) < 1e-5
    for i, structure in enumerate(structures):
        alone = ensemble.predict([structure], "PBE", cache)
        assert deviation(alone.static[:, 0], together.static[:, i]) < 1e-5


def test_no_crystals_no_tensors(ensemble: Ensemble, cache: FeatureCache) -> None:
    prediction = ensemble.predict([], "PBE", cache)
    assert prediction.static.shape == (ensemble.settings.members, 0, 3, 3)


@settings(max_examples=30)
@given(data=st.data(), seed=seeds, improper=st.booleans())
def test_drawn_crystals(
    data: st.DataObject,
    seed: int,
    improper: bool,
    drawn_crystals: st.SearchStrategy[Any],
    anisotropic: Ensemble,
    cache: FeatureCache,
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
    described_anew: Callable[..., dict[str, Any]],
) -> None:
    crystal = data.draw(drawn_crystals)
    matrix = rotation(seed, improper)
    anew = described_anew(crystal, seed)
    structures = [crystal, turned(crystal, matrix), anew["niggli"], anew["everything"]]
    prediction = anisotropic.predict(structures, "PBE", cache)
    for part in PARTS:
        tensors = getattr(prediction, part)
        first = tensors[:, 0]
        assert deviation(tensors[:, 1], matrix @ first @ matrix.T) < TOLERANCE_DRAWN
        assert deviation(tensors[:, 2], first) < TOLERANCE_DRAWN
        assert deviation(tensors[:, 3], first) < TOLERANCE_DRAWN
        for i, structure in enumerate(structures):
            rotations = point_group_rotations(structure)
            assert all(asymmetry(tensor, rotations) < EXACT for tensor in tensors[:, i])
    assert (np.linalg.eigvalsh(prediction.electronic) > 1).all()
    assert (np.linalg.eigvalsh(prediction.ionic) > 0).all()


@pytest.mark.parametrize("edge", [1.3, 2.0, 12.0])
def test_crushed_and_blown_up_crystals_get_tensors_that_obey_the_rules(
    edge: float,
    anisotropic: Ensemble,
    cache: FeatureCache,
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
) -> None:
    """Features of crushed crystals exceed what half precision can hold."""
    from pymatgen.core import Lattice, Structure

    lattice, matrix = Lattice.monoclinic(edge, 1.1 * edge, 1.2 * edge, 100), rotation(0, True)
    crystals = [Structure(lattice, [el], [[0, 0, 0]]) for el in ("Cs", "W", "H", "O")]
    expected = anisotropic.predict(crystals, "PBE", cache)
    assert np.isfinite(expected.static).all()
    assert (np.linalg.eigvalsh(expected.electronic) > 1).all()
    found = anisotropic.predict([turned(c, matrix) for c in crystals], "PBE", cache)
    assert_same(found, expected, matrix)
