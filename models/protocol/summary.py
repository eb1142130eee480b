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
    """Markdown tables of all cards in a directory: splits, tail test, what was left out whole."""
    splits, tails, unlike = read_cards(cards)
    tables = [*(part_table(part, splits) for part in PARTS), extremes_table(tails)]
    return "\n\n".join([*tables, *(_unlike_table(card) for card in unlike)])


def read_cards(directory: Path) -> tuple[list[dict[str, Any]], ...]:
    """Cards of the splits, of the tail tests and of what was left out, simplest variant first."""
    found = [read_card(path) for path in sorted(directory.glob("*.yaml"))]
    found.sort(key=lambda c: ORDER.index(c["variant"]) if c["variant"] in ORDER else len(ORDER))
    kinds = ["left_out" if "left_out" in c else "merit" if "merit" in c else "" for c in found]
    return tuple(
        [c for c, own in zip(found, kinds, strict=True) if own == kind]
        for kind in ("", "merit", "left_out")
    )


def part_table(part: str, cards: list[dict[str, Any]]) -> str:
    """Markdown table of one part: mean over test materials ± deviation over splits."""
    lines = [
        f"| {part} | " + " | ".join(COLUMNS.values()) + " | 90 % interval covers | splits |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for card in cards:
        figures = card["figures"].get(part)
        if figures is None:
            continue
        cells = [_cell(figures, metric) for metric in COLUMNS]
        cells.append(_covered(figures))
        cells.append(str(len(figures["splits"]) if "splits" in figures else card["n_splits"]))
        lines.append(f"| {card['variant']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figures: dict[str, Any], metric: str) -> str:
    mean = figures["mean_over_splits"][metric]
    deviation = figures["sd_over_splits"].get(metric)
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _covered(figures: dict[str, Any]) -> str:
    share = figures.get("coverage", {}).get("90%")
    return "–" if share is None else f"{share:.1%}"


def extremes_table(cards: list[dict[str, Any]]) -> str:
    """What comes back of the left-out extremes, merit by merit, variants as they come."""
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


def _unlike_table(card: dict[str, Any]) -> str:
    lines = [
        f"| {card['variant']} without | materials | static ln ε̄ | static MAE(9) | "
        "90 % intervals cover: electronic | ionic | static | outside the domain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, f in card["left_out"].items():
        shares = " | ".join(_covered(f[part]) for part in PARTS)
        lines.append(
            f"| {name} | {f['n']} | {f['static']['log_scalar']:.3f} | {f['static']['mae_9']:.3f} | "
            f"{shares} | {f['outside_the_domain']:.1%} |"
        )
    return "\n".join(lines)
