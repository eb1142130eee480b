"""Result cards as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.calibration import PARTS
from models.protocol.card import read_card

COLUMNS = {
    "mae_9": "MAE(9)",
    "mae_9_below_100": "MAE(9), all below 100",
    "mae_6": "MAE(6)",
    "log_scalar": "ln ε̄",
    "log_anisotropy": "ln λmax/λmin",
    "within_25": "within 25 %",
}
ORDER = ("median", "composition", "direct", "direct-gap", "physics")


def summary(cards: Path) -> str:
    """Markdown tables of all cards in a directory: the splits, then the tail test."""
    splits, tails = read_cards(cards)
    return "\n\n".join([*(part_table(part, splits) for part in PARTS), _tail_table(tails)])


def read_cards(directory: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cards of the splits and of the tail tests, simplest variant first."""
    found = [read_card(path) for path in sorted(directory.glob("*.yaml"))]
    found.sort(key=lambda c: ORDER.index(c["variant"]) if c["variant"] in ORDER else len(ORDER))
    return [c for c in found if "merit" not in c], [c for c in found if "merit" in c]


def part_table(part: str, cards: list[dict[str, Any]]) -> str:
    """Markdown table of one part: mean over test materials ± deviation over splits."""
    lines = [
        f"| {part} | " + " | ".join(COLUMNS.values()) + " | 90 % interval covers | splits |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for card in cards:
        figures = card["figures"][part]
        cells = [_cell(figures, metric) for metric in COLUMNS]
        covered = figures.get("coverage", {}).get("90%")
        cells.append("–" if covered is None else f"{covered:.1%}")
        cells.append(str(card["n_splits"]))
        lines.append(f"| {card['variant']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figures: dict[str, Any], metric: str) -> str:
    mean = figures["mean_over_splits"][metric]
    deviation = figures["sd_over_splits"].get(metric)
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _tail_table(cards: list[dict[str, Any]]) -> str:
    lines = [
        "| tail | left out | recall in top 2 % | in top 5 % | rank correlation | log error |",
        "|---|---|---|---|---|---|",
    ]
    for card in sorted(cards, key=lambda c: str(c["merit"])):
        f = card["figures"]
        lines.append(
            f"| {card['merit']}: {card['variant']} | {f['n_left_out']} | {f['recall_top_2']:.2f} | "
            f"{f['recall_top_5']:.2f} | {f['rank_correlation']:.2f} | {f['log_error']:.2f} |"
        )
    return "\n".join(lines)
