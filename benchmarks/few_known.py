"""Error bars of ensembles that had few crystals to learn from: promised and found coverage.

Trains on the known crystals of the built-in table and asks for the hidden ones; with the tensor
table (``SCREEN_DATA``) also on 30, 100 and 300 of its crystals, and asks for 120 others, of other
compositions. Takes ten minutes, most of it for the encoder.

    python benchmarks/few_known.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from models.cache import FeatureCache, ForceConstantCache
from models.calibration import Calibration, coverage
from models.ensemble import Ensemble, log_errors
from models.fitting import fit
from models.settings import ModelSettings
from screening.builtin import builtin_hidden, builtin_known
from screening.errors import UserError
from screening.material import KnownMaterial
from screening.tables import known_from_frame

DATA = Path(os.environ.get("SCREEN_DATA", "../shared/data"))
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


def sets() -> Iterator[tuple[str, Known, Known]]:
    known, hidden = builtin_known(), builtin_hidden()
    yield f"{len(known)} built in", known, hidden
    path = DATA / "dielectric_tensors.parquet"
    if not path.exists():
        print(f"(no tensor table at {path}: set SCREEN_DATA)")
        return
    crystals = drawn(path)
    for n in (30, 100, LARGEST):
        yield f"{n} of the tensor table", crystals[:n], crystals[LARGEST:]


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
    prediction = ensemble.predict(
        [k.material.structure for k in asked], asked[0].functional, cache,
        band_gaps=[k.material.band_gap for k in asked],
        force_constants=ForceConstantCache.beside(cache),
    )  # fmt: skip
    true = np.stack([k.tensors.static for k in asked])
    return log_errors(prediction, "static", true, np.arange(len(asked)))


if __name__ == "__main__":
    main()
