"""Pictures of the protocol: are the error bars honest, and where does the model go wrong?

    python benchmarks/model_figures.py --data ../shared/data --work benchmark --out docs/figures

``calibration.png``: share of test materials inside the intervals against the share promised, at
random splits and where an element or a structure type was left out. ``parity.png``: predicted
against true ε̄ of the test materials of all splits. ``tail.png``: the same for materials whose kind
was left out because they are extreme.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

from models.calibration import LEVELS, PARTS
from models.protocol.benchmark import TAIL_MERITS, load_outcome, tail_rows, true_merit
from models.protocol.card import read_card
from models.protocol.splits import N_SPLITS
from models.protocol.table import TensorTable
from screening.tensors import mean_permittivity

VARIANT, REFERENCE = "physics", "direct"
COLOURS = {"electronic": "#2b5fb3", "ionic": "#b3432b", "static": "#3a7d44"}


def main() -> None:
    """Draw all three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("benchmark"))
    parser.add_argument("--cards", type=Path, default=Path("benchmarks/cards"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = TensorTable.read(options.data / "dielectric_tensors.parquet")
    calibration(options.cards, options.out / "calibration.png")
    parity(table, options.work, options.out / "parity.png")
    tail(table, options.work, options.out / "tail.png")


def calibration(cards: Path, path: Path) -> None:
    """Promised against found coverage."""
    splits = read_card(cards / f"{VARIANT}.yaml")["figures"]
    unlike = read_card(cards / f"{VARIANT}-unlike.yaml")["left_out"]
    figure, panels = pyplot.subplots(1, 3, figsize=(11, 4), sharey=True, layout="constrained")
    for panel, part in zip(panels, PARTS, strict=True):
        panel.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        shares = list(splits[part]["coverage"].values())
        panel.plot(LEVELS, shares, "o-", color=COLOURS[part], label="random splits")
        for name, marker in zip(unlike, "sv^D", strict=False):
            found = list(unlike[name][part]["coverage"].values())
            panel.plot(LEVELS, found, marker + ":", color="#555555", label=f"without {name}")
        area = splits[part]["miscalibration_area"]
        panel.set_title(f"{part}: mean deviation {area:.3f}", fontsize=10)
        panel.set_xlabel("promised")
        panel.set_xlim(0.4, 1)
        panel.set_ylim(0.2, 1)
    panels[0].set_ylabel("share of materials inside")
    panels[0].legend(fontsize=8, frameon=False)
    _save(figure, path)


def parity(table: TensorTable, work: Path, path: Path) -> None:
    """Predicted against true ε̄ of every part."""
    figure, panels = pyplot.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    found = [
        load_outcome(work / VARIANT / f"split-{n}.npz")
        for n in range(1, N_SPLITS + 1)
        if (work / VARIANT / f"split-{n}.npz").exists()
    ]
    for panel, part in zip(panels, PARTS, strict=True):
        true, predicted = [], []
        for rows, outcome in found:
            known = table.labelled(part)[rows]
            true.append(mean_permittivity(table.truth(part)[rows[known]]))
            predicted.append(mean_permittivity(outcome.central[part][known]))
        _diagonal(panel, np.concatenate(true), np.concatenate(predicted), COLOURS[part])
        panel.set_title(f"ε̄ {part}, {len(found)} splits", fontsize=10)
    panels[0].set_ylabel("predicted")
    _save(figure, path)


def tail(table: TensorTable, work: Path, path: Path) -> None:
    """Predicted against true merit of the left-out extremes, with and without physics."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    for panel, merit in zip(panels, TAIL_MERITS, strict=True):
        ranked, extreme, _ = tail_rows(table, merit)
        chosen = np.isin(ranked, extreme)
        true = true_merit(table, ranked, merit)[chosen]
        for variant, colour in ((REFERENCE, "#999999"), (VARIANT, "#3a7d44")):
            _, outcome = load_outcome(work / variant / f"tail-{merit}.npz")
            _diagonal(panel, true, outcome.optimistic[merit][chosen], colour, variant)
        panel.set_title(f"left-out extremes of {'ε̄' if merit == 'mean' else 'λmax/λmin'}")
        panel.legend(frameon=False)
    panels[0].set_ylabel("predicted, μ + 1.5σ")
    _save(figure, path)


def _diagonal(panel: Any, true: Any, predicted: Any, colour: str, label: str = "") -> None:
    positive = (true > 0) & (predicted > 0)
    panel.loglog(
        true[positive], predicted[positive], ".", color=colour, alpha=0.5, label=label or None
    )
    low = max(min(true[positive].min(), predicted[positive].min()), 0.05)
    ends = [low, max(true.max(), predicted.max())]
    panel.plot(ends, ends, color="black", linewidth=0.8)
    panel.set_xlabel("true (DFPT)")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=70)
    pyplot.close(figure)
    print(path)


if __name__ == "__main__":
    main()
