"""Make models/protocol/splits.csv: five 80/10/10 splits by formula, stratified by crystal system.

    python benchmarks/make_splits.py > models/protocol/splits.csv

Run once; the file is the protocol. Running it again on the same table gives the same file.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pandas as pd
from pymatgen.core import Composition

from models.protocol.splits import N_SPLITS, stratified_split


def main() -> None:
    """Write the splits to standard output."""
    data = Path(os.environ.get("SCREEN_DATA", "../shared/data"))
    columns = ["material_id", "formula", "crystal_system"]
    table = pd.read_parquet(data / "dielectric_tensors.parquet", columns=columns)
    table = table.sort_values("material_id").drop_duplicates("material_id")
    groups = [Composition(f).reduced_formula for f in table["formula"]]
    systems = list(table["crystal_system"])
    letters = [stratified_split(groups, systems, 20_000 + i) for i in range(N_SPLITS)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["material_id", "splits"])
    for material_id, own in zip(table["material_id"], zip(*letters, strict=True), strict=True):
        writer.writerow([material_id, "".join(own)])


if __name__ == "__main__":
    main()
