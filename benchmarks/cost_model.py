"""Fit the cost model to the calculations that come with the software, and say how good it is.

python benchmarks/cost_model.py [--write]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from dft.abinit_settings import AbinitSettings
from dft.cost import FEATURES, CostModel, features
from dft.kmesh import mesh_of
from dft.pseudopotentials import find
from screening.builtin import TABLE

TARGET = Path("dft/cost-abinit.json")
MACHINE = "one core of an x86-64 server of 2020 or later, ABINIT 9.6.2 as packaged by Debian"

Row = tuple[dict[str, float], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", type=Path, default=Path("screening/data") / TABLE)
    parser.add_argument("--write", action="store_true", help=f"write {TARGET}")
    given = parser.parse_args()
    lines = given.table.read_text(encoding="utf-8").splitlines()
    crystals = [examples(json.loads(line)) for line in lines]
    rows = [row for crystal in crystals for row in crystal]
    print(f"{len(rows)} calculations")
    model = CostModel.fit(rows, MACHINE)
    for feature, exponent in zip(FEATURES, model.coefficients[1:], strict=True):
        print(f"  exponent of {feature:14} {exponent:+.2f}")
    errors, inside = [], []
    for left_out in crystals:
        others = CostModel.fit([r for c in crystals if c is not left_out for r in c], MACHINE)
        for attempt, seconds in left_out:
            cost = others.predict(attempt)
            errors.append(np.log(cost.core_hours * 3600 / seconds))
            inside.append(cost.low * 3600 <= seconds <= cost.high * 3600)
    print(
        f"leave one crystal out: typical factor {np.exp(np.sqrt(np.mean(np.square(errors)))):.2f}, "
        f"median {np.exp(np.median(np.abs(errors))):.2f}, worst "
        f"{np.exp(np.max(np.abs(errors))):.2f}; within the error bar {np.mean(inside):.0%}"
    )
    if given.write:
        TARGET.write_text(model.to_json(), encoding="utf-8")


def examples(row: dict[str, Any]) -> list[Row]:
    """Features and CPU seconds of what a row of a table took; not of attempts that ended early."""
    structure = Structure.from_dict(row["structure"])
    files = find(AbinitSettings().pseudopotentials, {site.specie.symbol for site in structure})
    electrons = sum(files[site.specie.symbol].valence for site in structure)
    found = []
    for attempt in row["attempts"]:
        used = attempt["settings"]
        if "5-response" in attempt["steps"] and used["relax"] == "none":
            mesh = mesh_of(structure, used["k_spacing"])
            found.append((features(structure, electrons, used["ecut"], mesh), attempt["cpu_s"]))
    return found


if __name__ == "__main__":
    main()
