"""Calculated permittivities beside measured ones.

Takes the built-in table (ABINIT, PBE, experimental lattice constants), or what
``screen dft run … --json`` printed, and compares crystals whose permittivity is known from
measurement, room temperature. PBE overestimates ε∞, and measured static values carry the thermal
expansion and anharmonicity that the calculation at 0 K lacks.

    python benchmarks/against_experiment.py [--results FILE] [--plot FILE.svg]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from screening.builtin import builtin_hidden, builtin_known
from screening.tensors import mean_permittivity

TEXTBOOK = "Ashcroft & Mermin, Solid State Physics (1976), tables of chapters 27 and 28"
HANDBOOK = "CRC Handbook, Permittivity of inorganic solids (Young & Frederikse 1973)"
SUBRAMANIAN = "Phys. Chem. Minerals 16 (1989) 741"

MEASURED: dict[str, tuple[float | None, float | None, str]] = {
    "LiF": (1.96, 9.01, TEXTBOOK),
    "NaF": (1.74, 5.05, TEXTBOOK),
    "KF": (1.85, 5.46, TEXTBOOK),
    "LiCl": (2.78, 11.95, TEXTBOOK),
    "NaCl": (2.34, 5.90, TEXTBOOK),
    "KCl": (2.19, 4.84, TEXTBOOK),
    "LiBr": (3.17, 13.25, TEXTBOOK),
    "NaBr": (2.59, 6.28, TEXTBOOK),
    "LiI": (3.80, 16.85, TEXTBOOK),
    "NaI": (2.93, 7.28, TEXTBOOK),
    "MgO": (3.0, 9.90, f"{TEXTBOOK}; {SUBRAMANIAN}"),
    "CaO": (None, 11.95, SUBRAMANIAN),
    "AgCl": (None, 11.15, HANDBOOK),
    "BN": (None, 7.1, HANDBOOK),
    "GaAs": (10.9, None, TEXTBOOK),
}
"""ε∞ and static permittivity of the cubic phase, and where they are from."""

Row = tuple[str, float, float | None, float | None, float | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, help="output of `screen dft run --json`")
    parser.add_argument("--plot", type=Path, help="write a plot (.svg, .png)")
    given = parser.parse_args()
    calculated = built_in() if given.results is None else from_results(given.results)
    rows = [
        (name, *calculated[name], *MEASURED[name][:2]) for name in MEASURED if name in calculated
    ]
    print(f"{'':6}{'ε∞':>8}{'measured':>10}{'':>8}{'static':>10}{'measured':>10}")
    for name, electronic, static, optical, low in rows:
        print(
            f"{name:6}{electronic:8.2f}{optical or np.nan:10.2f}{percent(electronic, optical)}"
            f"{np.nan if static is None else static:10.2f}{low or np.nan:10.2f}"
            f"{percent(static, low)}"
        )
    for label, pairs in (
        ("ε∞", [(r[1], r[3]) for r in rows]),
        ("static", [(r[2], r[4]) for r in rows]),
    ):
        values = np.array([(c, m) for c, m in pairs if c is not None and m is not None])
        ratio = values[:, 0] / values[:, 1] - 1
        print(
            f"{label}: {len(ratio)} crystals, mean deviation {ratio.mean():+.1%}, "
            f"mean absolute {np.abs(ratio).mean():.1%}, median absolute "
            f"{np.median(np.abs(ratio)):.1%}"
        )
    if given.plot:
        plot(rows, given.plot)


def built_in() -> dict[str, tuple[float, float | None]]:
    found = {}
    for known in (*builtin_known(), *builtin_hidden()):
        tensors = known.tensors
        if tensors.electronic is None:
            continue
        static = None if tensors.static is None else float(mean_permittivity(tensors.static))
        found[known.material.formula] = (float(mean_permittivity(tensors.electronic)), static)
    return found


def from_results(path: Path) -> dict[str, tuple[float, float | None]]:
    found = {}
    for report in json.loads(path.read_text()):
        tensors = report.get("tensors")
        if tensors:
            electronic = np.array(tensors["electronic"])
            static = electronic + np.array(tensors["ionic"])
            found[report["formula"]] = (
                float(mean_permittivity(electronic)), float(mean_permittivity(static))
            )  # fmt: skip
    return found


def percent(calculated: float | None, measured: float | None) -> str:
    if calculated is None or measured is None:
        return f"{'':8}"
    return f"{calculated / measured - 1:+8.0%}"


def plot(rows: list[Row], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 5))
    for label, one, other in (("ε∞", 1, 3), ("static", 2, 4)):
        pairs = [(r[other], r[one]) for r in rows if r[one] is not None and r[other] is not None]
        axis.scatter(*zip(*pairs, strict=True), label=label)
    axis.plot([1, 30], [1, 30], color="gray", linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlabel="measured", ylabel="calculated (PBE)")
    axis.legend()
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    main()
