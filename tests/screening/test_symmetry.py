"""Point groups of crystals and what they leave of a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from screening.symmetry import asymmetry, point_group_rotations, primitive_cell, project

EXACT = 1e-12
seeds = st.integers(0, 2**31 - 1)


def as_set(rotations: np.ndarray, digits: int = 4) -> set[tuple[float, ...]]:
    return {tuple(np.round(r.ravel(), digits) + 0.0) for r in rotations}


def assert_same_group(first: np.ndarray, second: np.ndarray, tolerance: float) -> None:
    """Every element of each group lies close to one of the other."""
    assert len(first) == len(second)
    distances = np.abs(first[:, None] - second[None]).max(axis=(-1, -2))
    assert distances.min(axis=0).max() < tolerance
    assert distances.min(axis=1).max() < tolerance


def assert_group(rotations: np.ndarray) -> None:
    """Orthogonal, closed under multiplication, with the identity, without repetition."""
    assert np.abs(rotations @ np.swapaxes(rotations, 1, 2) - np.eye(3)).max() < EXACT
    products = (rotations[:, None] @ rotations[None]).reshape(-1, 3, 3)
    distances = np.abs(products[:, None] - rotations[None]).max(axis=(-1, -2))
    assert distances.min(axis=1).max() < EXACT
    assert np.abs(rotations - np.eye(3)).max(axis=(-1, -2)).min() < EXACT
    assert len(as_set(rotations)) == len(rotations)


def test_orders_are_those_of_the_point_groups(
    prototypes: dict[str, Any], point_group_orders: dict[str, int]
) -> None:
    found = {name: len(point_group_rotations(prototypes[name])) for name in point_group_orders}
    assert found == point_group_orders


def test_rotations_form_a_group(prototypes: dict[str, Any]) -> None:
    for structure in prototypes.values():
        assert_group(point_group_rotations(structure))


def test_inversion_and_chirality_are_seen(prototypes: dict[str, Any]) -> None:
    def determinants(name: str) -> set[float]:
        return set(np.round(np.linalg.det(point_group_rotations(prototypes[name])), 9))

    assert determinants("quartz") == determinants("Te") == {1.0}
    assert determinants("wurtzite") == determinants("rutile") == {1.0, -1.0}
    assert tuple(-np.eye(3).ravel()) in as_set(point_group_rotations(prototypes["rutile"]))
    assert tuple(-np.eye(3).ravel()) not in as_set(point_group_rotations(prototypes["wurtzite"]))


def test_real_crystals_of_low_symmetry(low_symmetry: dict[str, Any]) -> None:
    """Measured and relaxed structures obey their symmetry only roughly; the rotations exactly."""
    orders = {}
    for name, known in low_symmetry.items():
        rotations = point_group_rotations(known.material.structure)
        assert_group(rotations)
        orders[name] = len(rotations)
    assert orders["mp-29443"] == 2  # P-1
    assert orders["mp-15776"] == 1  # P1
    assert orders["mp-626644"] == 2  # C2
    assert orders["mp-2964"] == 4  # Imm2
    assert orders["mp-22862"] == 48  # Fm-3m


@settings(max_examples=100)
@given(data=st.data(), seed=seeds, improper=st.booleans())
def test_the_group_turns_with_the_crystal_and_does_not_see_the_cell(
    data: st.DataObject,
    seed: int,
    improper: bool,
    drawn_crystals: st.SearchStrategy[Any],
    described_anew: Callable[..., dict[str, Any]],
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
) -> None:
    crystal = data.draw(drawn_crystals)
    rotations = point_group_rotations(crystal)
    assert_group(rotations)
    for anew in described_anew(crystal, seed).values():
        assert_same_group(point_group_rotations(anew), rotations, 1e-6)
    matrix = rotation(seed, improper)
    expected = matrix @ rotations @ matrix.T
    assert_same_group(point_group_rotations(turned(crystal, matrix)), expected, 1e-6)


def test_the_group_of_a_prototype_does_not_see_the_cell(
    prototypes: dict[str, Any], described_anew: Callable[..., dict[str, Any]]
) -> None:
    for seed, structure in enumerate(prototypes.values()):
        rotations = point_group_rotations(structure)
        for anew in described_anew(structure, seed).values():
            assert_same_group(point_group_rotations(anew), rotations, 1e-6)


def test_noise_below_the_tolerance_does_not_break_the_group(prototypes: dict[str, Any]) -> None:
    """Positions from a file with few digits: the group is complete, and still exact."""
    for seed, name in enumerate(("quartz", "rutile", "MoS2", "SrTiO3")):
        noisy = prototypes[name].copy()
        noisy.perturb(0.001, seed=seed)
        noisy.apply_strain(np.random.default_rng(seed).normal(0, 1e-4, 3))
        rotations = point_group_rotations(noisy)
        assert_group(rotations)
        assert_same_group(rotations, point_group_rotations(prototypes[name]), 0.01)


def test_a_distortion_above_the_tolerance_breaks_the_group(prototypes: dict[str, Any]) -> None:
    distorted = prototypes["SrTiO3"].copy()
    distorted.translate_sites([1], [0, 0, 0.1], frac_coords=False)
    assert len(point_group_rotations(distorted)) == 8  # 4mm


@given(seed=seeds)
def test_projection(
    seed: int, prototypes: dict[str, Any], random_symmetric: Callable[[int], np.ndarray]
) -> None:
    tensor = random_symmetric(seed)
    for structure in prototypes.values():
        rotations = point_group_rotations(structure)
        found = project(tensor, rotations)
        assert np.abs(rotations @ found @ np.swapaxes(rotations, 1, 2) - found).max() < EXACT
        assert np.allclose(project(found, rotations), found, atol=EXACT)  # once is enough
        assert np.isclose(np.trace(found), np.trace(tensor))
        # Orthogonal: what is taken away has nothing in common with what is left.
        assert abs(np.sum((tensor - found) * found)) < 1e-10
        assert asymmetry(found, rotations) < EXACT


def test_what_each_class_allows(
    prototypes: dict[str, Any], random_symmetric: Callable[[int], np.ndarray]
) -> None:
    """Neumann's principle, as tabulated by Nye, Physical Properties of Crystals (1957), table 3."""

    def allowed(name: str) -> np.ndarray:
        return project(random_symmetric(1), point_group_rotations(prototypes[name]))

    cubic = allowed("NaCl")
    assert np.allclose(cubic, cubic[0, 0] * np.eye(3), atol=EXACT)
    for uniaxial in (allowed("MoS2"), allowed("wurtzite"), allowed("quartz")):
        assert np.allclose(uniaxial, np.diag([uniaxial[0, 0]] * 2 + [uniaxial[2, 2]]), atol=1e-9)
        assert abs(uniaxial[0, 0] - uniaxial[2, 2]) > 0.1
    monoclinic = allowed("baddeleyite")  # unique axis b
    assert np.allclose(monoclinic[1, [0, 2]], 0, atol=EXACT)
    assert abs(monoclinic[0, 2]) > 0.1
    assert np.linalg.matrix_rank(monoclinic - monoclinic[0, 0] * np.eye(3)) > 1


def test_asymmetry_measures_what_is_not_allowed() -> None:
    quarter_turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    group = np.array([np.linalg.matrix_power(quarter_turn, n) for n in range(4)])
    assert asymmetry(np.diag([4.0, 4.0, 1.0]), group) == 0.0
    assert np.isclose(asymmetry(np.diag([4.0, 3.0, 1.0]), group), 0.5 / 4)
    assert asymmetry(np.zeros((3, 3)), group) == 0.0


def test_leading_axes_are_projected_one_by_one(
    prototypes: dict[str, Any], random_symmetric: Callable[[int], np.ndarray]
) -> None:
    rotations = point_group_rotations(prototypes["quartz"])
    tensors = np.stack([[random_symmetric(i + 2 * j) for i in range(2)] for j in range(3)])
    found = project(tensors, rotations)
    assert found.shape == (3, 2, 3, 3)
    assert np.allclose(found[2, 1], project(tensors[2, 1], rotations))


def test_primitive_cells_are_small_and_keep_the_orientation(
    prototypes: dict[str, Any], described_anew: Callable[..., dict[str, Any]]
) -> None:
    for seed, structure in enumerate(prototypes.values()):
        for name, anew in described_anew(structure, seed).items():
            lattice, positions, species = primitive_cell(anew)
            assert len(species) == len(structure), name
            assert sorted(species) == sorted(site.specie.Z for site in structure)
            # Its vectors are vectors of the original lattice, not of a turned one.
            steps = lattice @ np.linalg.inv(structure.lattice.matrix)
            assert np.allclose(steps, np.round(steps), atol=1e-6)
            assert abs(abs(np.linalg.det(steps)) - 1) < 1e-6
            # And its atoms lie where atoms of the crystal lie.
            places = np.linalg.solve(anew.lattice.matrix.T, (positions @ lattice).T).T
            for place, z in zip(places, species, strict=True):
                distances = anew.lattice.get_all_distances([place], anew.frac_coords)[0]
                assert distances.min() < 1e-5
                assert z == anew[int(distances.argmin())].specie.Z
