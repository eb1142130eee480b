"""Error bars of ensembles that had few crystals to learn from: promised and found coverage.

Trains on the known crystals of the built-in table and asks for the hidden ones; with the tensor
table (``SCREEN_DATA``) also on 30, 100 and 300 of its crystals, and asks for 120 others, of other
compositions. Then the physical estimate by itself, nothing learned: how far is it off for
compositions that the shipped network for Born charges was trained on, and for others? Takes ten
minutes, most of it for the encoder.

    python benchmarks/few_known.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Composition

from models.cache import FeatureCache, ForceConstantCache
from models.calibration import Calibration, coverage
from models.ensemble import Ensemble, log_errors
from models.fitting import composition_of, fit
from models.inputs import PHYSICS
from models.settings import ModelSettings
from models.shipped import shipped
from models.targets import from_target
from screening.builtin import builtin_hidden, builtin_known
from screening.errors import UserError
from screening.material import KnownMaterial
from screening.tables import known_from_frame
from screening.tensors import mean_permittivity

DATA = Path(os.environ.get("SCREEN_DATA", "../shared/data"))
PATH = DATA / "dielectric_tensors.parquet"
LEAST_IONIC = 0.3
"""Mean ionic parts below this are nearly noise; their logarithm says nothing."""
LARGEST, ASKED, MOST_SITES = 300, 120, 8

Known = Sequence[KnownMaterial]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print("| known | asked | error of ln ε̄ | error bars | σ | in the 50, 68, 90, 95 % interval |")
    print("|---|---|---|---|---|---|")
    for name, known, asked in sets():
        cache = FeatureCache("7net-l3i5")
        ensembles = [fit(known, ModelSettings(), seed, cache) for seed in range(given.seeds)]
        calibrations = [ensemble.calibration for ensemble in ensembles]
        assumed = [Calibration.assumed()] * given.seeds
        for kind, chosen in (("assumed, 2.7 × spread", assumed), ("learned", calibrations)):
            errors, deviations, inside = [], [], []
            for ensemble, calibration in zip(ensembles, chosen, strict=True):
                ensemble.calibration = calibration
                error, sigma = errors_of(ensemble, asked, cache)
                errors.append(np.abs(error))
                deviations.append(sigma)
                inside.append(coverage(error, sigma, calibration.quantiles["static"]))
            found = ", ".join(f"{100 * x:.0f}" for x in np.mean(inside, axis=0))
            medians = " | ".join(
                [f"{np.median(errors):.2f}", kind, f"{np.median(deviations):.2f}", found]
            )
            print(f"| {name} | {len(asked)} | {medians} |", flush=True)
    if PATH.exists():
        print(estimate_alone())


def sets() -> Iterator[tuple[str, Known, Known]]:
    known, hidden = builtin_known(), builtin_hidden()
    yield f"{len(known)} built in", known, hidden
    if not PATH.exists():
        print(f"(no tensor table at {PATH}: set SCREEN_DATA)")
        return
    crystals = drawn(PATH)
    taught = {composition_of(k) for k in crystals[:LARGEST]}
    asked = [k for k in crystals[LARGEST:] if composition_of(k) not in taught]
    for n in (30, 100, LARGEST):
        yield f"{n} of the tensor table", crystals[:n], asked


def drawn(path: Path) -> list[KnownMaterial]:
    """Crystals of the table with both parts, whole compositions in an order that chance gives."""
    frame = pd.read_parquet(path)
    frame = frame[frame["use_electronic"] & frame["use_ionic"] & (frame["nsites"] <= MOST_SITES)]
    found: list[KnownMaterial] = []
    for formula in np.random.default_rng(0).permutation(sorted(frame["formula"].unique())):
        for row in np.flatnonzero(frame["formula"] == formula):
            try:
                found += known_from_frame(frame.iloc[[row]], path.name)
            except UserError:
                continue
        if len(found) >= LARGEST + ASKED:
            break
    return found


def errors_of(
    ensemble: Ensemble, asked: Known, cache: FeatureCache
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of ln ε̄ of the static tensor, and their σ."""
    examples = ensemble.examples(
        [k.material.structure for k in asked], [k.functional for k in asked], cache,
        [k.material.band_gap for k in asked],
    )  # fmt: skip
    ensemble.add_physics(examples, ForceConstantCache.beside(cache))
    prediction = ensemble.evaluate(examples)
    true = np.stack([k.tensors.static for k in asked])
    return log_errors(prediction, "static", true, np.arange(len(asked)))


def estimate_alone() -> str:
    """Errors of ln ε̄_ionic of the built-in crystals, in words."""
    ensemble, cache = shipped(), FeatureCache("7net-l3i5")
    known = [*builtin_known(), *builtin_hidden()]
    true = mean_permittivity(np.stack([k.tensors.ionic for k in known]))
    examples = ensemble.examples(
        [k.material.structure for k in known], [k.functional for k in known], cache,
        [k.material.band_gap for k in known],
    )  # fmt: skip
    ensemble.add_physics(examples, ForceConstantCache.beside(cache))
    found = mean_permittivity(from_target(examples.estimate.astype(float))).mean(axis=0)
    usable = (examples.context[:, PHYSICS.start] > 0) & (true > LEAST_IONIC)
    errors = np.abs(np.log(found / np.maximum(true, LEAST_IONIC)))
    frame = pd.read_parquet(PATH, columns=["formula", "born_charges"]).dropna()
    taught = {Composition(formula).reduced_formula for formula in frame["formula"].unique()}
    seen = np.array([composition_of(k) in taught for k in known])
    groups = (("with compositions it was trained on", seen), ("with others", ~seen))
    parts = [
        f"{(usable & rows).sum()} {name} {np.median(errors[usable & rows]):.2f} in the middle, "
        f"{errors[usable & rows].mean():.2f} on average"
        for name, rows in groups
    ]
    return "Error of ln ε̄_ionic by the estimate alone: " + "; ".join(parts) + "."


if __name__ == "__main__":
    main()
