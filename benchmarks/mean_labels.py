"""One table of materials of which only mean permittivities are known, to learn from as well.

    python benchmarks/mean_labels.py --data ../shared/data --out means.parquet
    screen benchmark --means means.parquet

Joins ``scalar_labels.parquet`` (scalar means of the Materials Project) and
``mean_electronic.parquet`` (Naccarato et al., Phys. Rev. Materials 3 (2019) 044602), all PBE, with
the structures that the other files hold. Materials of ``dielectric_tensors.parquet`` are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Lattice, Structure

LARGEST_CELL = 40
"""Atoms; larger cells take long to encode, and the protocol tests on none."""
ELECTRONIC = (1.05, 60.0)
IONIC = (0.01, 1000.0)
"""Means outside are those of metals, unstable modes and failed calculations."""


def main() -> None:
    """Write the table and say what is in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("means.parquet"))
    arguments = parser.parse_args()
    table = joined(arguments.data)
    table.to_parquet(arguments.out, index=False)
    print(f"{len(table)} materials, {table.mean_ionic.notna().sum()} of them with an ionic part")


def joined(data: Path) -> pd.DataFrame:
    """Rows as :func:`screening.tables.read_known` reads them."""
    names = (
        "scalar_labels", "mean_electronic", "stable_nonmetals", "near_hull_nonmetals",
        "formation_energies",
    )  # fmt: skip
    scalars, indices, *others = (
        pd.read_parquet(data / f"{name}.parquet")
        .drop_duplicates("material_id")
        .set_index("material_id")
        for name in names
    )
    known = pd.read_parquet(data / "dielectric_tensors.parquet", columns=["material_id"])
    ids = sorted((set(scalars.index) | set(indices.index)) - set(known.material_id))
    found = []
    for name in ids:
        rows = [frame.loc[name] for frame in (indices, *others) if name in frame.index]
        labels = scalars.loc[name] if name in scalars.index else pd.Series(dtype=object)
        gaps = [row.get("band_gap") for row in (labels, *rows)]
        gap = next((g for g in gaps if within((1e-6, 50.0), g)), None)
        electronic = [r.get("mean_eps_electronic") for r in (*rows[:1], labels)]
        mean = next((e for e in electronic if within(ELECTRONIC, e)), None)
        if not rows or gap is None or mean is None:
            continue
        structure = structure_of(rows[0])
        if len(structure) > LARGEST_CELL:
            continue
        ionic = labels.get("diel_ionic_janosh")
        found.append(
            {
                "material_id": name,
                "structure": json.dumps(structure.as_dict()),
                "functional": "PBE",
                "band_gap": float(gap),
                "mean_electronic": float(mean),
                "mean_ionic": float(ionic) if within(IONIC, ionic) else np.nan,
            }
        )
    return pd.DataFrame(found)


def within(limits: tuple[float, float], value: Any) -> bool:
    """Whether ``value`` is a number between the limits."""
    return value is not None and limits[0] < float(value) < limits[1]


def structure_of(row: pd.Series) -> Structure:
    """From JSON, or from cell parameters (Å, degrees), species and flattened positions."""
    if "structure" in row:
        return Structure.from_dict(json.loads(row["structure"]))
    lattice = Lattice.from_parameters(*row["cell"])
    return Structure(lattice, list(row["species"]), np.reshape(row["frac"], (-1, 3)))


if __name__ == "__main__":
    main()
