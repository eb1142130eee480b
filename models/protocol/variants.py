"""The predictors that the protocol compares, behind one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cache import FeatureCache, ForceConstantCache
from models.calibration import PARTS
from models.ensemble import Ensemble
from models.fitting import composition_of, fit
from models.protocol.table import TensorTable
from models.settings import ModelSettings
from screening.errors import UserError
from screening.progress import NamedProgress
from screening.tasks import get_task
from screening.tensors import mean_permittivity

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """Predictions of one variant for n rows of the table.

    Attributes
    ----------
    central
        Part → tensors (n, 3, 3).
    deviation
        Part → standard deviation of ln ε̄ (n,); zeros from a model without error bars.
    bounds
        Part → half widths of the 50, 68, 90 and 95 % intervals in units of the deviation.
    optimistic
        Mean + 1.5 standard deviations over members of ε̄ and of λmax/λmin, (n,) each.
    outside
        Whether a crystal is outside the model's domain, (n,).
    seconds, cpu_seconds
        Of training.
    facts
        Part → what else is to be known of its training.
    """

    central: dict[str, Array]
    deviation: dict[str, Array]
    bounds: dict[str, tuple[float, ...]]
    optimistic: dict[str, Array]
    outside: NDArray[np.bool_]
    seconds: float
    cpu_seconds: float
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


Variant = Callable[[TensorTable, Indices, Indices, Indices, int], Outcome]
"""Table, rows to train on, rows to calibrate on, rows to predict, seed."""


@dataclass(frozen=True)
class EnsembleVariant:
    """Our ensemble with some settings, trained with or without the table's means."""

    settings: ModelSettings
    cache: FeatureCache
    progress: NamedProgress | None = None
    with_means: bool = False

    def trained(
        self, table: TensorTable, training: Indices, validation: Indices, seed: int
    ) -> tuple[Ensemble, float, float]:
        """The ensemble, and what its training took in wall and CPU seconds."""
        held_out = {id(table.known[i]) for i in validation}
        known = [table.known[i] for i in (*training, *validation)]
        if self.with_means:
            strangers = set(table.groups) - {table.groups[i] for i in training}
            known += [k for k in table.means if composition_of(k) not in strangers]
        wall, cpu = time.perf_counter(), time.process_time()
        ensemble = fit(
            known, self.settings, seed, self.cache, self.progress, lambda k: id(k) in held_out
        )
        return ensemble, time.perf_counter() - wall, time.process_time() - cpu

    def __call__(
        self,
        table: TensorTable,
        training: Indices,
        validation: Indices,
        rows: Indices,
        seed: int,
    ) -> Outcome:
        """Train and predict."""
        ensemble, seconds, cpu = self.trained(table, training, validation, seed)
        known = [table.known[i] for i in rows]
        examples = ensemble.examples(
            [k.material.structure for k in known],
            [k.functional for k in known],
            self.cache,
            [k.material.band_gap for k in known],
        )
        ensemble.add_physics(examples, ForceConstantCache.beside(self.cache))
        prediction = ensemble.evaluate(examples)
        static = prediction.static
        merits = merits_of(static)
        return Outcome(
            {part: prediction.central(part) for part in PARTS},
            {part: prediction.deviation(part) for part in PARTS},
            ensemble.calibration.quantiles,
            {k: m.mean(axis=0) + 1.5 * m.std(axis=0, ddof=1) for k, m in merits.items()},
            prediction.distance > 1,
            seconds,
            cpu,
        )


def merits_of(static: Array) -> dict[str, Array]:
    """ε̄ and λmax/λmin of static tensors (..., 3, 3), by the names of the tail tests."""
    gaps = np.zeros(static.shape[:-2])
    ratio = get_task("anisotropy").figure_of_merit(gaps, static)
    return {"mean": mean_permittivity(static), "anisotropy": ratio}


def without_error_bars(
    central: dict[str, Array], seconds: float, cpu: float, facts: dict[str, Any] | None = None
) -> Outcome:
    """The outcome of a model that predicts some parts, (n, 3, 3) each, and says no more."""
    n = len(next(iter(central.values())))
    return Outcome(
        central,
        dict.fromkeys(central, np.zeros(n)),
        {},
        merits_of(central["static"]) if "static" in central else {},
        np.zeros(n, dtype=bool),
        seconds,
        cpu,
        facts or {},
    )


def median(table: TensorTable, training: Indices, _: Indices, rows: Indices, seed: int) -> Outcome:
    """The median mean permittivity of the training materials, isotropic."""
    del seed
    central = {}
    for part in PARTS:
        known = training[table.labelled(part)[training]]
        middle = float(np.median(mean_permittivity(table.truth(part)[known])))
        central[part] = np.tile(middle * np.eye(3), (len(rows), 1, 1))
    return without_error_bars(central, 0.0, 0.0)


def composition(
    table: TensorTable, training: Indices, _: Indices, rows: Indices, seed: int
) -> Outcome:
    """Extremely randomised trees on composition, isotropic."""
    try:
        from sklearn.ensemble import ExtraTreesRegressor
    except ImportError:
        raise UserError("The composition baseline needs scikit-learn: pip install it.") from None
    features = np.stack([composition_features(k.material.structure) for k in table.known])
    wall, cpu = time.perf_counter(), time.process_time()
    central = {}
    for part in PARTS:
        known = training[table.labelled(part)[training]]
        logs = np.log(np.maximum(mean_permittivity(table.truth(part)[known]), 0.01))
        trees = ExtraTreesRegressor(300, min_samples_leaf=2, random_state=seed)
        found = np.exp(trees.fit(features[known], logs).predict(features[rows]))
        central[part] = found[:, None, None] * np.eye(3)
    return without_error_bars(central, time.perf_counter() - wall, time.process_time() - cpu)


def composition_features(structure: Any) -> Array:
    """Weighted mean, spread, least and largest of elemental properties; Å, u, eV."""
    columns: list[Sequence[float]] = []
    weights = []
    for element, amount in structure.composition.get_el_amt_dict().items():
        columns.append(_element(element))
        weights.append(amount)
    values, share = np.array(columns, dtype=float), np.array(weights) / np.sum(weights)
    mean = share @ values
    spread = np.sqrt(share @ (values - mean) ** 2)
    volume = structure.volume / len(structure)
    return np.concatenate([mean, spread, values.min(axis=0), values.max(axis=0), [volume]])


def _element(symbol: str) -> list[float]:
    from pymatgen.core import Element

    element = Element(symbol)
    numbers = (
        element.Z, element.X, element.atomic_mass, element.row, element.group,
        element.atomic_radius, element.mendeleev_no, max(element.common_oxidation_states or (0,)),
    )  # fmt: skip
    return [float(n) if n is not None and np.isfinite(float(n)) else 0.0 for n in numbers]


def ours(cache: FeatureCache, progress: NamedProgress | None = None) -> EnsembleVariant:
    """Our model as it comes, trained on whole tensors."""
    return EnsembleVariant(ModelSettings(encoder=cache.encoder_name), cache, progress)


def variants(cache: FeatureCache, progress: NamedProgress | None = None) -> dict[str, Variant]:
    """Every predictor that ``screen benchmark`` knows, by name."""
    plain = ours(cache, progress)

    def changed(**values: Any) -> EnsembleVariant:
        return replace(plain, settings=plain.settings.model_copy(update=values))

    return {
        "median": median,
        "composition": composition,
        "direct": changed(band_gap=False, physics_effort=0),
        "direct-gap": changed(physics_effort=0),
        "physics": plain,
        "means": replace(plain, with_means=True),
    }
