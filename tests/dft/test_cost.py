"""What a calculation will cost."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.operations import SymmOp

from dft.cost import FEATURES, Cost, CostModel, abinit_model, bill, features, perturbations
from dft.kmesh import Mesh, mesh_of

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
).get_primitive_structure()


def wurtzite() -> Structure:
    lattice = Lattice.hexagonal(3.25, 5.21)
    positions = [
        [1 / 3, 2 / 3, 0],
        [2 / 3, 1 / 3, 0.5],
        [1 / 3, 2 / 3, 0.382],
        [2 / 3, 1 / 3, 0.882],
    ]
    return Structure(lattice, ["Zn", "Zn", "O", "O"], positions)


@pytest.mark.parametrize(("structure", "count"), [(SALT, 3), (wurtzite(), 6)])
def test_irreducible_perturbations(structure: Structure, count: int) -> None:
    """Rock salt: two atoms and a field. Wurtzite: two kinds of atoms and a field, each along the
    axis and across it."""
    assert perturbations(structure) == count


def test_no_symmetry_leaves_every_perturbation() -> None:
    rng = np.random.default_rng(0)
    crystal = Structure(
        Lattice.from_parameters(4, 5, 6, 80, 85, 95), ["Mg", "O", "O"], rng.random((3, 3))
    )
    assert perturbations(crystal) == 3 * 3 + 3


def test_features_do_not_depend_on_the_frame() -> None:
    turned = SALT.copy()
    turned.apply_operation(SymmOp.from_axis_angle_and_translation([1, 2, 3], 40))
    first, second = (features(s, 14, 20.0, Mesh.around_gamma((4, 4, 4))) for s in (SALT, turned))
    assert first == pytest.approx(second)
    assert first["k_points"] == 8
    assert tuple(first) == FEATURES


def examples(n: int, noise: float) -> list[tuple[dict[str, float], float]]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(n):
        row = {name: float(np.exp(rng.normal(3, 1))) for name in FEATURES}
        seconds = 0.01 * row["electrons"] ** 1.3 * row["plane_waves"] * row["k_points"] ** 0.8
        found.append((row, seconds * row["perturbations"] * np.exp(noise * rng.normal())))
    return found


def test_a_law_without_noise_is_found() -> None:
    model = CostModel.fit(examples(40, 0.0), "here")
    for row, seconds in examples(60, 0.0)[40:]:
        assert model.predict(row).core_hours * 3600 == pytest.approx(seconds, rel=0.02)
    assert model.sigma < 0.02


def test_nine_of_ten_lie_within_the_error_bar() -> None:
    rows = examples(400, 0.3)
    model = CostModel.fit(rows[:150], "here")
    costs = [(model.predict(row), seconds / 3600) for row, seconds in rows[150:]]
    inside = np.mean([cost.low <= hours <= cost.high for cost, hours in costs])
    assert 0.84 < inside < 0.96
    assert model.sigma == pytest.approx(0.3, rel=0.25)


def test_errors_left_out_are_those_of_fits_without_the_row() -> None:
    rows = examples(15, 0.3)
    errors = []
    for index, (row, seconds) in enumerate(rows):
        others = CostModel.fit([*rows[:index], *rows[index + 1 :]], "here")
        errors.append(np.log(others.predict(row).core_hours * 3600 / seconds))
    assert CostModel.fit(rows, "here").sigma == pytest.approx(
        np.sqrt(np.mean(np.square(errors))), rel=0.1
    )


def test_errors_of_a_bill_partly_cancel() -> None:
    one = Cost(1.0, 0.5, 2.0)
    four = bill([one] * 4)
    assert four.core_hours == 4 and four.low == 3 and four.high == 6


def test_errors_of_a_model_do_not_cancel_in_a_bill() -> None:
    """They are the same for all, and a model of few calculations has large ones."""
    one = Cost(1.0, 0.5, 2.0, common=1.0)
    assert bill([one] * 4).low == pytest.approx(2) and bill([one] * 4).high == pytest.approx(8)
    inside, everything = [], examples(9000, 0.3)
    for start in range(0, 9000, 60):
        done, asked = everything[start : start + 40], everything[start + 40 : start + 60]
        model = CostModel.fit(done, "here")
        total = bill([model.predict(row) for row, _ in asked])
        inside.append(total.low <= sum(seconds for _, seconds in asked) / 3600 <= total.high)
    assert 0.84 < np.mean(inside) < 0.96, "0.81 if they cancelled"


def test_the_model_that_comes_with_the_software_knows_a_measured_time() -> None:
    """MgO at level quick: 25 CPU seconds on one core; it was not among the fitted ones."""
    magnesia = SALT.copy()
    magnesia.replace_species({"Na": "Mg", "Cl": "O"})
    magnesia.scale_lattice(4.212**3 / 4)
    cost = abinit_model().predict(features(magnesia, 16, 20.0, mesh_of(magnesia, 0.6)))
    assert cost.low * 3600 < 26 and cost.high * 3600 > 24
    assert cost.high / cost.low < 4
