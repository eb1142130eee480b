"""Where the errors sit: test materials of all splits by band gap, softest mode, table and element.

    python benchmarks/where_errors_sit.py --data ../shared/data --work benchmark --variant means

reads what ``screen benchmark`` has left in ``--work``. Each row has the number of test materials,
their mean errors, and their share of the sum of all errors of ln ε̄ static. Then, for materials
tested in both functionals, how well ln ε̄(PBE) − ln ε̄(PBEsol) is predicted, beside one number for
all.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from models.metrics import material_errors
from models.protocol.benchmark import load_outcome
from models.protocol.splits import N_SPLITS
from models.protocol.table import TensorTable
from screening.tensors import mean_permittivity

GAPS = (0.0, 1.0, 2.0, 4.0, np.inf)
"""eV."""
SOFTEST = (0.0, 1.0, 2.0, 3.0, np.inf)
"""Lowest optical frequency at Γ, THz; the tables of one source have it."""
SHOWN = ("electronic", "static")
KEY = ["material_id", "functional"]
LEAST, ELEMENTS = 30, 8
"""Elements in at least so many test materials; so many of them, those with the largest errors."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("benchmark"))
    parser.add_argument("--variant", default="means")
    given = parser.parse_args()
    path = given.data / "dielectric_tensors.parquet"
    frame = errors(TensorTable.read(path), given.work / given.variant)
    softest = pd.read_parquet(path, columns=[*KEY, "source", "min_optical_thz"])
    frame = frame.merge(softest, on=KEY, validate="many_to_one")
    print(
        "| | test materials | electronic ln ε̄ | static ln ε̄ | static MAE(9) | share of the error |"
    )
    print("|---|---|---|---|---|---|")
    for name, chosen in groups(frame):
        own = frame[chosen]
        print(
            f"| {name} | {len(own)} | {own['electronic'].mean():.3f} | {own['static'].mean():.3f} "
            f"| {own['mae_9'].mean():.2f} | {own['static'].sum() / frame['static'].sum():.0%} |"
        )
    for part in SHOWN:
        print(between_functionals(frame, part))


def between_functionals(frame: pd.DataFrame, part: str) -> str:
    """How well the difference that the functional makes is predicted."""
    columns = [f"predicted {part}", f"true {part}"]
    by = frame.drop_duplicates(KEY).set_index("material_id")
    of = {name: by.loc[by["functional"] == name, columns] for name in ("PBE", "PBEsol")}
    predicted, true = ((of["PBE"] - of["PBEsol"]).dropna()[column] for column in columns)
    error, constant = (predicted - true).abs().mean(), (true - true.mean()).abs().mean()
    return (
        f"{part}, {len(true)} materials in both functionals: PBE − PBEsol {true.mean():+.3f} "
        f"± {true.std():.3f}; error of the predicted difference {error:.3f}, "
        f"of the mean difference {constant:.3f}"
    )


def errors(table: TensorTable, work: Path) -> pd.DataFrame:
    """A row per test material and split whose static tensor is known."""
    rows = []
    for split in range(1, N_SPLITS + 1):
        tested, outcome = load_outcome(work / f"split-{split}.npz")
        known = table.labelled("static")[tested]
        tested = tested[known]
        pairs = {p: (outcome.central[p][known], table.truth(p)[tested]) for p in SHOWN}
        logs = {p: [np.log(mean_permittivity(own)) for own in pairs[p]] for p in SHOWN}
        mae_9 = material_errors(*pairs["static"])["mae_9"]
        for place, row in enumerate(tested):
            material = table.known[row].material
            rows.append(
                {
                    "material_id": material.material_id,
                    "functional": table.known[row].functional,
                    "elements": material.elements,
                    "band_gap": material.band_gap,
                    "mae_9": mae_9[place],
                    **{f"predicted {part}": logs[part][0][place] for part in SHOWN},
                    **{f"true {part}": logs[part][1][place] for part in SHOWN},
                }
            )
    frame = pd.DataFrame(rows)
    for part in SHOWN:
        frame[part] = (frame[f"predicted {part}"] - frame[f"true {part}"]).abs()
    return frame


def groups(frame: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Name and membership of each group of rows."""
    yield "all", frame["static"].notna()
    for column, edges, name, unit in (
        ("band_gap", GAPS, "band gap", "eV"),
        ("min_optical_thz", SOFTEST, "softest mode", "THz"),
    ):
        for low, high in itertools.pairwise(edges):
            label = f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
            yield f"{name} {label} {unit}", frame[column].between(low, high, inclusive="left")
        if frame[column].isna().any():
            yield f"{name} unknown", frame[column].isna()
    for source in sorted(frame["source"].unique()):
        yield source, frame["source"] == source
    has = {
        e: frame["elements"].map(lambda own, e=e: e in own) for e in set().union(*frame["elements"])
    }
    common = {element: own for element, own in has.items() if own.sum() >= LEAST}
    worst = sorted(common, key=lambda e: -frame.loc[common[e], "static"].mean())[:ELEMENTS]
    for element in worst:
        yield f"with {element}", common[element]


if __name__ == "__main__":
    main()
