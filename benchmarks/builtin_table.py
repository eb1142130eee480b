"""Compute the built-in table: every crystal of the list, cheapest first, one after the other.

Start it again at any time: what is in the table is not repeated, and a calculation that was
interrupted goes on. Every result is written as soon as it is there, failures with their reasons.

    python benchmarks/builtin_table.py [--directory calculations] [--table FILE.jsonl] [--list]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from dft.abinit import AbinitEngine
from dft.abinit_input import Tuning, mesh
from dft.abinit_settings import AbinitSettings
from dft.calculation import Calculation, State, calculation_key
from dft.gate import judge
from dft.launcher import make_launcher
from dft.pseudopotentials import find
from dft.settings import LocalLauncherSettings
from screening.prototypes import SOURCES, Crystal, crystals

TABLE = Path("screening/data/abinit-prototypes.jsonl")
POLL_S = 1.0
IONIC = 1.3
"""Difference of electronegativities above which gaps are usually wide."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=Path("calculations"))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--list", action="store_true", help="print the order and stop")
    parser.add_argument("--collect", action="store_true", help="write what is done, start nothing")
    given = parser.parse_args()
    engine = AbinitEngine(AbinitSettings())
    known = {row["name"] for row in rows(given.table)}
    wanted = [crystal for crystal in crystals() if crystal.name not in known]
    order = sorted((estimate(crystal), crystal.name, crystal) for crystal in wanted)
    launcher = make_launcher(LocalLauncherSettings(max_parallel=1), given.directory)
    for number, (relative, name, crystal) in enumerate(order):
        print(
            f"{time.strftime('%H:%M:%S')} {number}/{len(order)} {name} {relative:.2g}", flush=True
        )
        if given.list:
            continue
        material = crystal.material()
        key = calculation_key(material.structure_hash, engine.settings_hash)
        calculation = Calculation(given.directory / key)
        if given.collect and calculation.result() is None:
            continue
        calculation.prepare(engine, material)
        launcher.submit([key])
        while launcher.poll([key])[key] is not State.DONE:
            time.sleep(POLL_S)
        row = record(crystal, calculation, engine)
        with given.table.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{'':9}{row['status']}, {row['cpu_s']:.0f} CPU s; {row['detail']}", flush=True)
    launcher.close()


def rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def record(crystal: Crystal, calculation: Calculation, engine: AbinitEngine) -> dict[str, Any]:
    """A row of the table."""
    output = calculation.result()
    if output is None:
        raise SystemExit(f"{calculation.directory} lost its result.")
    structure = crystal.structure()
    judgement = judge(structure, output)
    tensors = judgement.tensors
    electronic = None if tensors is None else tensors.electronic
    ionic = None if tensors is None else tensors.ionic
    total = None if electronic is None or ionic is None else electronic + ionic
    charges = output.born_charges
    last = output.attempts[-1]["settings"] if output.attempts else {}
    used = {name: last[name] for name in ("ecut", "k_spacing") if name in last}
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
            "geometry": "measured lattice constants, not relaxed",
            **engine.settings(),
            **used,
        },
        "attempts": [
            {name: attempt[name] for name in ("why", "failure", "settings", "steps", "cpu_s")}
            for attempt in output.attempts
        ],
        "cpu_s": output.cost.get("cpu_s", 0.0),
    }


def estimate(crystal: Crystal) -> float:
    """What a crystal costs, in units that only order them."""
    import spglib

    from screening.symmetry import cell_of

    structure = crystal.structure()
    settings = AbinitSettings()
    files = find(settings.pseudopotentials, {site.specie.symbol for site in structure})
    electrons = sum(files[site.specie.symbol].valence for site in structure)
    tuning = Tuning.first(settings, set(files), is_paw=True)
    dataset = spglib.get_symmetry_dataset(cell_of(structure), 0.01)
    orbits = len(set(dataset.equivalent_atoms))
    directions = 1 if dataset.number >= 195 else 2 if dataset.number >= 75 else 3
    perturbations = (orbits + 1) * directions
    # Half the mesh by time reversal for the three derivatives in k; the operations of the crystal
    # reduce it further for the responses.
    points = math.prod(mesh(structure, tuning.k_spacing)) / 2
    reduced = points * min(1.0, 4 * directions / len(dataset.rotations)) + 1
    waves = structure.volume * tuning.ecut**1.5
    # Covalent crystals have narrow gaps, which ask for a finer mesh.
    poles = [site.specie.X for site in structure]
    points *= 1.0 if max(poles) - min(poles) > IONIC else 3.0
    return float(
        electrons * waves * (points + perturbations * reduced) * (1 + electrons / 40) / 1e8
        * np.sqrt(len(structure))
    )  # fmt: skip


if __name__ == "__main__":
    main()
