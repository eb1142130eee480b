"""Refractive indices in the manner of Matbench's dielectric task, for published models and ours.

    python benchmarks/refractive_index.py dtnet goectp-icom physics --budget 120
    python benchmarks/refractive_index.py --matbench matbench_dielectric.json.gz

Takes ``mean_electronic.parquet`` from ``--data``; scores go to ``--cards``/papers/refractive.yaml.
Or takes Matbench's own table, on Matbench's own folds, and writes a record for its leaderboard,
``matbench.json``, beside the predictions of each model. Folds that have a result in ``--work`` are
not done again.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from models.cache import FeatureCache
from models.papers.names import OURS, parse
from models.papers.training import Budget
from models.protocol.matbench import read_matbench, write_record
from models.protocol.refractive import N_FOLDS, IndexTable, run_folds, write_scores
from models.protocol.table import digest_of
from screening.errors import UserError
from screening.tables import read_frame

MODELS = ("dtnet", "goectp-icom+pretrained", OURS)
FILE = "mean_electronic.parquet"


def main() -> None:
    """Run what is missing and write the card, or the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=MODELS, help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--matbench", type=Path, help="Matbench's table instead of --data")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("benchmark"))
    parser.add_argument("--cards", type=Path, default=Path("benchmarks/cards"))
    parser.add_argument("--budget", type=float, default=math.inf, help="CPU seconds per network")
    parser.add_argument(
        "--folds", type=int, nargs="+", choices=range(N_FOLDS), default=list(range(N_FOLDS))
    )
    try:
        run(parser.parse_args())
    except UserError as error:
        sys.exit(f"Error: {error}")


def run(options: argparse.Namespace) -> None:
    """Model after model."""
    names = [name if name == OURS else str(parse(name)) for name in options.models]
    if options.matbench is not None:
        table = read_matbench(options.matbench)
    else:
        path = options.data / FILE
        table = IndexTable.of(read_frame(path), digest_of(path))
    cache = FeatureCache("7net-l3i5")
    for name in names:
        entry = run_folds(
            name, table, cache, Budget(options.budget), options.work, print, options.folds
        )
        if options.matbench is None:
            data = {"file": FILE, "rows": len(table.known), "sha256": table.digest}
            write_scores(options.cards / "papers" / "refractive.yaml", name, entry, data)
        elif len(entry["folds"]) == N_FOLDS:
            print(f"{name}: {write_record(name, table, options.work)}")


if __name__ == "__main__":
    main()
