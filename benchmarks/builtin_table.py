"""Compute the built-in table: every crystal of the list, cheapest first.

Start it again at any time: what is in the table is not repeated, and a calculation that was
interrupted goes on. Every result is written as soon as it is there, failures with their reasons.

    python benchmarks/builtin_table.py [--directory calculations] [--table FILE.jsonl]
        [--parallel N] [--list]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from calculations import calculate, calculation_of
from pymatgen.core import Structure

from dft.abinit import AbinitEngine
from dft.abinit_settings import AbinitSettings
from dft.calculation import Calculation
from dft.cost import HOUR_S
from dft.engine import CalculationOutput
from dft.gate import judge
from screening.io import atomic_write
from screening.prototypes import SOURCES, Crystal, crystals

TABLE = Path("screening/data/abinit-prototypes.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=Path("calculations"))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--parallel", type=int, default=1, help="calculations at the same time")
    parser.add_argument("--first", nargs="*", default=[], help="names to begin with")
    parser.add_argument("--list", action="store_true", help="print the order and stop")
    parser.add_argument("--collect", action="store_true", help="write what is done, start nothing")
    given = parser.parse_args()
    engine = AbinitEngine(AbinitSettings())
    known = {row["name"] for row in rows(given.table)}
    wanted = [crystal for crystal in crystals() if crystal.name not in known]
    materials = {crystal.name: crystal.material() for crystal in wanted}
    costs = engine.costs(list(materials.values()))
    seconds = {n: c.core_hours * HOUR_S for n, c in zip(materials, costs, strict=True)}
    order = sorted(wanted, key=lambda c: (c.name not in given.first, seconds[c.name]))
    total = sum(seconds.values()) / HOUR_S
    print(f"{len(known)} crystals in the table, {len(order)} to go: {total:.0f} core-hours")
    if given.list:
        for crystal in order:
            print(f"{crystal.name}: {seconds[crystal.name]:.0f} s expected")
        return
    by_name = {crystal.name: crystal for crystal in order}
    queue = [materials[name] for name in by_name]
    if given.collect:
        places = {m: calculation_of(engine, m, given.directory) for m in queue}
        queue = [m for m, place in places.items() if place.result() is not None]
    for material, calculation in calculate(engine, queue, given.directory, given.parallel):
        name = material.material_id
        row = record(by_name[name], calculation, engine)
        # Whole or not at all, for the software reads this file; another copy may write it as well.
        lines = [json.dumps(r, ensure_ascii=False) for r in rows(given.table) if r["name"] != name]
        lines.append(json.dumps(row, ensure_ascii=False))
        atomic_write(given.table, "\n".join(lines) + "\n")
        print(
            f"{time.strftime('%H:%M:%S')} {name} {row['status']}, {row['cpu_s']:.0f} CPU s, "
            f"{seconds[name]:.0f} expected; {row['detail']}",
            flush=True,
        )


def rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def record(crystal: Crystal, calculation: Calculation, engine: AbinitEngine) -> dict[str, Any]:
    """A row of the table; what was relaxed comes with the structure that the tensors belong to."""
    output = calculation.result()
    if output is None:
        raise SystemExit(f"{calculation.directory} lost its result.")
    structure = calculated(crystal, output)
    judgement = judge(structure, output)
    tensors = judgement.tensors
    electronic = None if tensors is None else tensors.electronic
    ionic = None if tensors is None else tensors.ionic
    total = None if electronic is None or ionic is None else electronic + ionic
    charges = output.born_charges
    last = output.attempts[-1]["settings"] if output.attempts else {}
    used = {name: last[name] for name in ("ecut", "k_spacing", "fft_box") if name in last}
    return {
        "name": crystal.name,
        "prototype": crystal.prototype,
        "formula": structure.composition.reduced_formula,
        "nsites": len(structure),
        "structure": structure.as_dict(),
        "lattice_source": SOURCES[crystal.source],
        "status": str(judgement.verdict),
        "detail": judgement.detail,
        "band_gap": output.band_gap,
        "eps_electronic": None if electronic is None else electronic.tolist(),
        "eps_total": None if total is None else total.tolist(),
        "born_charges": None if charges is None else charges.tolist(),
        "min_optical_thz": output.min_optical_thz,
        "settings": {
            "code": f"abinit {output.engine_version}".strip(),
            "xc": "PBE",
            "paw": "gpaw-setups 0.9.20000",
            "geometry": "measured lattice constants, "
            + ("not relaxed" if output.relaxed_structure is None else "positions relaxed"),
            **engine.settings(),
            **used,
        },
        "attempts": [
            {name: attempt[name] for name in ("why", "failure", "settings", "steps", "cpu_s")}
            for attempt in output.attempts
        ],
        "cpu_s": output.cost.get("cpu_s", 0.0),
    }


def calculated(crystal: Crystal, output: CalculationOutput) -> Structure:
    """The structure that a calculation is of: as it is in the list, or its positions relaxed."""
    if output.relaxed_structure is None:
        return crystal.structure()
    return Structure.from_dict(output.relaxed_structure)


if __name__ == "__main__":
    main()
