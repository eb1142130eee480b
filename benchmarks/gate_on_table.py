"""What does the gate refuse of a table of published tensors, and why?

Every row of ``dielectric_tensors.parquet`` (phonondb, PBEsol; Petousis 2017, PBE) becomes the
output of a calculation, with all that the table knows: both tensors, Born charges, the lowest
optical frequency, the band gap. Tables of this kind are what models are trained on, so that a row
refused here is one that a model would have learned from.

    python benchmarks/gate_on_table.py [--json FILE] [--all-rows]

Rows that the table's own flags exclude (``use_electronic``, ``use_ionic``) are left out unless
``--all-rows`` is given: then the gate has to find by itself what its makers knew to be bad.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dft.engine import CalculationOutput
from dft.gate import judge
from dft.settings import GateThresholds
from dft.verdict import Verdict

DATA = Path(os.environ.get("SCREEN_DATA", "../shared/data"))
EXAMPLES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the counts and examples here as well")
    parser.add_argument("--all-rows", action="store_true", help="also those its makers exclude")
    given = parser.parse_args()
    path = DATA / "dielectric_tensors.parquet"
    if not path.exists():
        raise SystemExit(f"{path} is not there; set SCREEN_DATA to the folder of the tables.")
    frame = pd.read_parquet(path)
    if not given.all_rows:
        frame = frame[frame["use_electronic"] & frame["use_ionic"]]
    begun = time.process_time()
    counts: dict[str, Counter[Verdict]] = defaultdict(Counter)
    examples: dict[Verdict, list[str]] = defaultdict(list)
    for row in frame.to_dict("records"):
        verdict, detail = verdict_of(row)
        counts[row["source"]][verdict] += 1
        if len(examples[verdict]) < EXAMPLES:
            examples[verdict].append(f"{row['material_id']} {row['formula']}: {detail}")
    show(counts, examples)
    print(f"\n{len(frame)} rows, {time.process_time() - begun:.0f} CPU s")
    if given.json:
        record = {
            "rows": len(frame),
            "thresholds": GateThresholds().model_dump(),
            "counts": {s: {str(v): n for v, n in c.items()} for s, c in counts.items()},
            "examples": {str(v): texts for v, texts in examples.items()},
        }
        given.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def verdict_of(row: dict[str, Any]) -> tuple[Verdict, str]:
    """What the gate says of one row of the table."""
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure.from_dict(json.loads(row["structure"]))
        output = CalculationOutput(
            electronic=tensor(row["eps_electronic"]),
            ionic=tensor(row["eps_ionic"]),
            born_charges=tensor(row["born_charges"]),
            min_optical_thz=number(row["min_optical_thz"]),
            band_gap=number(row["band_gap"]),
            converged=True,
            functional=str(row["functional"]),
            engine=str(row["source"]),
            engine_version="",
        )
        judgement = judge(structure, output)
    return judgement.verdict, judgement.detail


def tensor(value: Any) -> np.ndarray | None:
    """Nested lists, arrays of arrays or JSON as an array; None where there is nothing."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, str):
        value = json.loads(value)
        return None if value is None else np.array(value, dtype=float)
    return np.array([np.array(list(row), dtype=float) for row in value])


def number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def show(counts: dict[str, Counter[Verdict]], examples: dict[Verdict, list[str]]) -> None:
    sources = sorted(counts)
    total = sum(counts.values(), Counter())
    width = max(len(v) for v in total)
    print(f"{'':{width}}" + "".join(f"{source:>18}" for source in sources))
    for verdict, _ in total.most_common():
        cells = "".join(f"{counts[source][verdict]:18d}" for source in sources)
        print(f"{verdict:{width}}{cells}")
    print(f"{'rows':{width}}" + "".join(f"{counts[s].total():18d}" for s in sources))
    for verdict, texts in examples.items():
        if verdict is not Verdict.ACCEPTED:
            print(f"\n{verdict}, for example")
            for text in texts:
                print(f"  {text}")


if __name__ == "__main__":
    main()
