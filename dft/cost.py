"""What a calculation will cost, from what calculations did cost.

The model is linear in logarithms: time = c · electronsᵃ · volumeᵇ · plane wavesᶜ · k-pointsᵈ ·
perturbationsᵉ. Its exponents are fitted to the calculations made, with a prior around what the
algorithms scale with, so that few calculations do not lead it astray; its error bar is that of
predictions for calculations that were left out of the fit. ``benchmarks/cost_model.py`` fits it.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dft.units import ANGSTROM_PER_BOHR

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from dft.kmesh import Mesh

Array = NDArray[np.float64]

FEATURES = ("electrons", "volume", "plane_waves", "k_points", "perturbations")
PRIOR_EXPONENTS = (1.0, 0.0, 1.0, 1.0, 1.0)
"""A band per pair of electrons, each a vector of plane waves at each k-point, each perturbation."""
PRIOR_SD = 0.5
"""How far an exponent may lie from that: algorithms have parts that scale otherwise."""
Z90 = 1.645
"""Standard deviations of a normal distribution between its middle and the ends of 90 % of it."""
HOUR_S = 3600.0

Took = tuple["Structure", float]
"""A calculated crystal, and the CPU seconds that it took."""
Done = Callable[[], Sequence[Took]]
"""Reads them, for who wants to know."""


@dataclass(frozen=True)
class Cost:
    """Predicted processor time of one calculation.

    Attributes
    ----------
    core_hours
        Best guess.
    low, high
        Between which 9 of 10 calculations lie.
    common
        Share of the variance of ln(time) that is the model's own, and so the same error for
        calculations that are alike.
    """

    core_hours: float
    low: float
    high: float
    common: float = 0.0


@dataclass(frozen=True)
class CostModel:
    """A fitted model.

    Attributes
    ----------
    coefficients
        Logarithm of the time in seconds at the centre, then the exponents in the order of
        :data:`FEATURES`.
    centre
        Means of the logarithms of the features.
    covariance
        Of the coefficients.
    sigma
        Root mean square error of ln(time) over calculations that were left out of the fit.
    n_calculations
        How many it was fitted to.
    machine
        Where these ran.
    """

    coefficients: list[float]
    centre: list[float]
    covariance: list[list[float]]
    sigma: float
    n_calculations: int
    machine: str

    @classmethod
    def fit(cls, rows: Sequence[tuple[dict[str, float], float]], machine: str) -> CostModel:
        """Fit to pairs of features and CPU seconds."""
        logs = _logarithms(features for features, _ in rows)
        seconds = np.log([seconds for _, seconds in rows])
        centre = logs.mean(axis=0)
        design = np.column_stack([np.ones(len(logs)), logs - centre])
        prior = np.array([seconds.mean(), *PRIOR_EXPONENTS])
        # The constant is free: nothing is known about the machine beforehand.
        weights = np.array([0.0, *[1.0] * len(FEATURES)]) / PRIOR_SD**2
        noise = 1.0
        for _ in range(20):
            precision = design.T @ design / noise + np.diag(weights)
            covariance = np.linalg.inv(precision)
            pull = design.T @ seconds / noise + weights * prior
            coefficients = covariance @ pull
            noise = float(np.mean((seconds - design @ coefficients) ** 2)) + 1e-6
        # Error of each row's prediction by a fit to the others, without fitting n times.
        leverage = np.einsum("ij,jk,ik->i", design, covariance, design) / noise
        left_out = (seconds - design @ coefficients) / (1 - leverage)
        return cls(
            coefficients.tolist(), centre.tolist(), covariance.tolist(),
            float(np.sqrt(np.mean(left_out**2))), len(rows), machine,
        )  # fmt: skip

    def predict(self, features: dict[str, float]) -> Cost:
        """What a calculation with these features costs."""
        row = np.array([1.0, *(_logarithms([features])[0] - self.centre)])
        middle = float(row @ self.coefficients)
        own = float(row @ np.array(self.covariance) @ row)
        variance = self.sigma**2 + own
        spread = Z90 * math.sqrt(variance)
        hours = math.exp(middle) / HOUR_S
        low, high = hours * math.exp(-spread), hours * math.exp(spread)
        return Cost(hours, low, high, own / variance if own > 0 else 0.0)

    def to_json(self) -> str:
        """The content of the file that comes with the software."""
        return json.dumps(asdict(self), indent=1) + "\n"


LEAST_DONE = 8
"""Calculations that it takes to fit a model, and its error bar, where none comes along."""


def learned_costs(
    demands: Sequence[dict[str, float]], done: Sequence[tuple[dict[str, float], float]]
) -> list[Cost | None]:
    """Costs of calculations with some features, by a model fitted to finished ones.

    Parameters
    ----------
    done
        Features and CPU seconds of finished calculations; with less than :data:`LEAST_DONE` of
        them nobody can say.
    """
    if len(done) < LEAST_DONE:
        return [None] * len(demands)
    model = CostModel.fit(done, "here")
    return [model.predict(demand) for demand in demands]


@functools.cache
def abinit_model() -> CostModel:
    """The model of ABINIT calculations that comes with the software."""
    text = (resources.files("dft") / "cost-abinit.json").read_text(encoding="utf-8")
    return CostModel(**json.loads(text))


def bill(costs: Iterable[Cost]) -> Cost:
    """Several calculations together.

    Errors of single calculations are independent and partly cancel; those of the model add up, as
    if they were the same for all. That another machine is slower than the one that the model was
    fitted on is in neither.
    """
    known = list(costs)
    total = sum(cost.core_hours for cost in known)
    down = _together([(cost.core_hours - cost.low, cost.common) for cost in known])
    up = _together([(cost.high - cost.core_hours, cost.common) for cost in known])
    return Cost(total, total - down, total + up)


def _together(errors: Sequence[tuple[float, float]]) -> float:
    """Error of a sum, from errors of its parts and the shares of their variance in common."""
    single = sum(error**2 * (1 - common) for error, common in errors)
    return math.sqrt(single + sum(error * math.sqrt(common) for error, common in errors) ** 2)


def hours(core_hours: float) -> str:
    """Core-hours with two digits that mean something."""
    return f"{core_hours:.2g}" if core_hours < 10 else f"{core_hours:.0f}"


def features(
    structure: Structure, electrons: float, ecut_ha: float, mesh: Mesh
) -> dict[str, float]:
    """What the cost of a calculation depends on; see :data:`FEATURES`.

    Parameters
    ----------
    structure
        The crystal.
    electrons
        Valence electrons in the cell.
    ecut_ha
        Cutoff in Ha.
    mesh
        The k-points.
    """
    from dft.kmesh import rotations_of

    waves = structure.volume / ANGSTROM_PER_BOHR**3 * (2 * ecut_ha) ** 1.5 / (6 * math.pi**2)
    return {
        "electrons": float(electrons),
        "volume": structure.volume,
        "plane_waves": waves,
        "k_points": float(mesh.irreducible(rotations_of(structure))),
        "perturbations": float(perturbations(structure)),
    }


def perturbations(structure: Structure) -> int:
    """Irreducible perturbations: displacements along the lattice vectors, and electric fields.

    Two are equivalent if an operation of the crystal turns one into the other or its opposite.
    """
    import spglib

    from screening.symmetry import cell_of

    cell: Any = cell_of(structure)
    found = spglib.get_symmetry(cell, symprec=0.01)
    lattice, positions, _ = cell
    n = len(positions)
    rotations = [np.eye(3)] if found is None else found["rotations"]
    translations = [np.zeros(3)] if found is None else found["translations"]
    group = {(atom, axis): (atom, axis) for atom in range(n + 1) for axis in range(3)}

    def root(member: tuple[int, int]) -> tuple[int, int]:
        while group[member] != member:
            member = group[member]
        return member

    for rotation, translation in zip(rotations, translations, strict=True):
        difference = (positions @ rotation.T + translation)[:, None] - positions[None]
        difference -= np.round(difference)
        image = np.linalg.norm(difference @ lattice, axis=-1).argmin(axis=1)
        # Fields are the atom after the last; they turn as reciprocal vectors do.
        kinds = [(a, int(image[a]), rotation) for a in range(n)]
        kinds.append((n, n, np.rint(np.linalg.inv(rotation).T)))
        for (atom, target, matrix), axis in itertools.product(kinds, range(3)):
            column = np.abs(matrix[:, axis])
            if column.sum() == 1:
                group[root((atom, axis))] = root((target, int(column.argmax())))
    return len({root(member) for member in group})


def _logarithms(rows: Iterable[dict[str, float]]) -> Array:
    return np.log([[row[name] for name in FEATURES] for row in rows])
