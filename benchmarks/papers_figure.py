"""Picture of the published models side by side: static MAE(9) by crystal system.

    python benchmarks/papers_figure.py --cards benchmarks/cards --out docs/figures

``papers.png``, from the cards in ``papers/`` below the directory of the cards, over the splits that
all models have been run on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

from models.papers.names import OURS
from models.protocol.benchmark import SYSTEMS
from models.protocol.papers_table import common_splits, is_study, named, read, values_on

PART, METRIC = "static", "mae_9"


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cards", type=Path, default=Path("benchmarks/cards"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    every = read(options.cards / "papers")
    cards = {n: c for n, c in every.items() if PART in c["figures"] and not is_study(n, every)}
    splits = common_splits(cards, PART)
    groups = ("all", *SYSTEMS)
    figure, panel = pyplot.subplots(figsize=(11, 4), layout="constrained")
    width = 0.8 / len(cards)
    colours = matplotlib.colormaps["tab20"]
    for place, (name, card) in enumerate(cards.items()):
        values = [values_on(card, PART, METRIC, group, splits) for group in groups]
        means = [np.mean(v) if v else np.nan for v in values]
        spreads = [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values]
        x = np.arange(len(groups)) + (place - (len(cards) - 1) / 2) * width
        colour = "#222222" if name == OURS else colours(place)
        label = f"{name} (ours)" if name == OURS else name
        panel.bar(x, means, width, yerr=spreads, label=label, color=colour)
    panel.set_xticks(range(len(groups)), groups)
    panel.set_ylabel("static MAE over nine elements")
    panel.set_title(named(splits), fontsize=10)
    panel.legend(ncols=4, frameon=False, fontsize="small")
    figure.savefig(options.out / "papers.png", dpi=110)


if __name__ == "__main__":
    main()
