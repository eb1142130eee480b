"""The documents that ``materials_project.py`` serves, from the tables in $SCREEN_DATA."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mp_server
import numpy as np

DATA = Path(os.environ.get("SCREEN_DATA", Path(__file__).parents[2] / "shared" / "data"))
N_CANDIDATES, N_LABELS = 14_000, 7_000


def rows(name: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one of the tables."""
    import pandas as pd

    yield from pd.read_parquet(DATA / name, columns=columns).to_dict("records")


def matrix(value: Any) -> np.ndarray:
    """A tensor as the tables hold it."""
    value = json.loads(value) if isinstance(value, str) else value
    return np.array([list(row) for row in value], dtype=float)


def build(work: Path) -> Path:
    """Write the documents and the true tensors, unless they are there."""
    path = work / "documents.jsonl"
    if path.is_file():
        return path
    from pymatgen.core import Structure

    start = time.perf_counter()
    truth: dict[str, Any] = {}
    impossible: list[str] = []
    made: list[tuple[dict[str, Any], dict[str, Any]]] = []
    partial = work / "documents.partial"
    with partial.open("w") as file:
        for number, row in enumerate(rows("dielectric_tensors.parquet")):
            if not row["use_electronic"]:
                continue
            material_id = f"mp-{2_000_000 + number}"
            structure = Structure.from_dict(json.loads(row["structure"]))
            electronic = matrix(row["eps_electronic"])
            ionic = matrix(row["eps_ionic"]) if row["use_ionic"] else np.zeros((3, 3))
            try:
                dielectric = mp_server.dielectric_document(
                    material_id, structure, electronic, ionic
                )
            except ValueError:
                impossible.append(material_id)
                continue
            summary = mp_server.summary_document(
                material_id, structure, dielectric, energy_above_hull=0.1, is_stable=False,
                band_gap=row["band_gap"] if row["band_gap"] == row["band_gap"] else None,
            )  # fmt: skip
            made.append((summary, dielectric))
            truth[material_id] = [
                electronic.tolist(),
                ionic.tolist() if row["use_ionic"] else None,
                row["formula"],
            ]
            for kind, document in (("summary", summary), ("dielectric", dielectric)):
                file.write(json.dumps({kind: document}) + "\n")
        for number in range(N_LABELS - len(made)):
            summary, dielectric = made[number % len(made)]
            again = {"material_id": f"mp-{3_000_000 + number}"}
            file.write(json.dumps({"summary": summary | again}) + "\n")
            file.write(json.dumps({"dielectric": dielectric | again}) + "\n")
        for number, row in enumerate(rows("stable_nonmetals.parquet")):
            if number == N_CANDIDATES:
                break
            structure = Structure.from_dict(json.loads(row["structure"]))
            summary = mp_server.summary_document(
                row["material_id"], structure, band_gap=row["band_gap"]
            )
            file.write(json.dumps({"summary": summary}) + "\n")
    (work / "truth.json").write_text(json.dumps({"tensors": truth, "impossible": impossible}))
    partial.rename(path)
    print(f"documents built in {time.perf_counter() - start:.0f} s; {len(impossible)} tensors for "
          "which emmet-core makes none (axes of equal length)")  # fmt: skip
    return path
