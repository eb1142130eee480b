"""Refractive indices in the manner of Matbench's dielectric task, for published models and ours.

    python benchmarks/refractive_index.py dtnet goectp-icom physics --budget 120

Takes ``mean_electronic.parquet`` from ``--data``. Folds that have a result in ``--work`` are not
done again; scores go to ``--cards``/papers/refractive.yaml.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from models.cache import FeatureCache
from models.papers.names import OURS
from models.papers.training import Budget
from models.protocol.card import hardware, read_card, write_card
from models.protocol.refractive import IndexTable, run_folds
from screening.tables import read_frame


def main() -> None:
    """Run what is missing and write the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("benchmark"))
    parser.add_argument("--cards", type=Path, default=Path("benchmarks/cards"))
    parser.add_argument("--budget", type=float, default=math.inf, help="CPU seconds per network")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(5)))
    options = parser.parse_args()
    table = IndexTable.of(read_frame(options.data / "mean_electronic.parquet"))
    cache = FeatureCache("7net-l3i5")
    path = options.cards / "papers" / "refractive.yaml"
    found = read_card(path)["models"] if path.exists() else {}
    for name in options.models:
        budget = Budget(options.budget)
        scores = run_folds(name, table, cache, budget, options.work, print, options.folds)
        limited = name != OURS and math.isfinite(options.budget)
        found[name] = {
            "budget": {"cpu_seconds_per_network": options.budget if limited else None},
            **scores,
        }
        write_card(
            path,
            {
                "protocol": "refractive index, 5 folds by composition, fresh model per fold",
                "data": {"file": "mean_electronic.parquet", "rows": len(table.known)},
                "hardware": hardware(),
                "models": found,
            },
        )


if __name__ == "__main__":
    main()
