"""Calculated permittivities beside measured ones and beside other PBE calculations.

Takes the built-in table (ABINIT, PBE, measured lattice constants), or what ``screen dft run …
--json`` printed. ``literature.csv`` has measured values at room temperature with their sources
(``seen``: whether the value was looked up in a copy, or taken over as it is commonly quoted from
that source), and PBE values of Petousis et al., Sci. Data 4 (2017) 160134 (CC BY 4.0), which
belong to relaxed structures. PBE overestimates ε∞, and measured static values carry the thermal
expansion and anharmonicity that a calculation at 0 K lacks.

    python benchmarks/against_experiment.py [--results FILE] [--plot FILE.svg]
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from screening.builtin import builtin_hidden, builtin_known
from screening.tensors import mean_permittivity

LITERATURE = Path(__file__).with_name("literature.csv")
PARTS = ("electronic", "static")
NARROW_EV = 1.0
"""PBE gap below which ε∞ is far off, and which is counted apart."""

Pair = tuple[float | None, float | None]
"""Electronic and static permittivity, averaged over directions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, help="output of `screen dft run --json`")
    parser.add_argument("--plot", type=Path, help="write a plot (.svg, .png)")
    given = parser.parse_args()
    calculated, gaps = built_in() if given.results is None else from_results(given.results)
    others: dict[str, dict[str, Pair]] = {"measured": {}, "pbe": {}}
    with LITERATURE.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for kind, found in others.items():
                pair = tuple(float(row[f"{kind}_{part}"] or "nan") for part in PARTS)
                if row["name"] in calculated and not np.isnan(pair).all():
                    found[row["name"]] = tuple(None if np.isnan(x) else x for x in pair)  # type: ignore[assignment]
    for kind, found in others.items():
        show(kind, calculated, found, gaps)
    if given.plot:
        plot(calculated, others, given.plot)


def show(
    kind: str, calculated: dict[str, Pair], others: dict[str, Pair], gaps: dict[str, float]
) -> None:
    print(f"{'':18}{'ε∞':>7}{kind:>10}{'':>7}{'static':>9}{kind:>10}")
    for name in sorted(others):
        cells = [
            f"{number(ours)}{number(theirs):>10}{percent(ours, theirs)}"
            for ours, theirs in zip(calculated[name], others[name], strict=True)
        ]
        print(f"{name:18}{'  '.join(cells)}")
    wide = [name for name in others if gaps[name] >= NARROW_EV]
    for index, part in enumerate(PARTS):
        for label, names in (("all", list(others)), (f"PBE gap ≥ {NARROW_EV:g} eV", wide)):
            summary = deviations(
                [calculated[n][index] for n in names], [others[n][index] for n in names]
            )
            print(f"{part}, {label}: {summary}")
    print()


def deviations(ours: Sequence[float | None], theirs: Sequence[float | None]) -> str:
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    values = np.array([a / b - 1 for a, b in both])
    return (
        f"{len(values)} crystals, mean deviation {values.mean():+.1%}, mean absolute "
        f"{np.abs(values).mean():.1%}, median absolute {np.median(np.abs(values)):.1%}"
    )


def built_in() -> tuple[dict[str, Pair], dict[str, float]]:
    found, gaps = {}, {}
    for known in (*builtin_known(), *builtin_hidden()):
        tensors, name = known.tensors, known.material.material_id
        if tensors.electronic is None:
            continue
        static = None if tensors.static is None else float(mean_permittivity(tensors.static))
        found[name] = (float(mean_permittivity(tensors.electronic)), static)
        gaps[name] = known.material.band_gap or 0.0
    return found, gaps


def from_results(path: Path) -> tuple[dict[str, Pair], dict[str, float]]:
    found: dict[str, Pair] = {}
    gaps = {}
    for report in json.loads(path.read_text()):
        tensors, name = report.get("tensors"), report["material"]
        if tensors:
            electronic = np.array(tensors["electronic"])
            static = None
            if tensors.get("ionic") is not None:
                static = float(mean_permittivity(electronic + np.array(tensors["ionic"])))
            found[name] = (float(mean_permittivity(electronic)), static)
            gaps[name] = report["output"]["band_gap"] or 0.0
    return found, gaps


def number(value: float | None) -> str:
    return f"{'–' if value is None else f'{value:.2f}':>7}"


def percent(ours: float | None, theirs: float | None) -> str:
    return f"{'':7}" if ours is None or theirs is None else f"{ours / theirs - 1:+7.0%}"


def plot(calculated: dict[str, Pair], others: dict[str, dict[str, Pair]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    # Text stays text, and no date: the same numbers give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "permittivity"})
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    for axis, (kind, found) in zip(axes, others.items(), strict=True):
        for index, label in enumerate(("ε∞", "static ε")):
            points = [
                (pair[index], calculated[name][index], name)
                for name, pair in found.items()
                if pair[index] is not None and calculated[name][index] is not None
            ]
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            axis.scatter(xs, ys, label=f"{label} ({len(points)})", s=18)
            for x, y, name in points:
                if abs(np.log(y / x)) > 0.2:  # type: ignore[operator]
                    axis.annotate(
                        name, (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points"
                    )  # type: ignore[arg-type]
        axis.plot([1.5, 40], [1.5, 40], color="gray", linewidth=0.8)
        axis.set(xscale="log", yscale="log", ylabel="calculated here (ABINIT, PBE)")
        axis.set_xlabel("measured" if kind == "measured" else "PBE of Petousis et al. 2017")
        axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
