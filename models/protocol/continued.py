"""Cards that outlive the predictions that they were made from.

Predictions are large and lie in a folder of their own; who goes on on another machine has the
cards alone. What a card says split by split is kept for the splits whose predictions are gone. What
needs the predictions of all splits together (pooled figures, the paired comparison) says which
splits it is of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models.protocol.card import read_card

Card = dict[str, Any]
SAME = ("variant", "data", "budget", "settings")
"""What two cards must have in common to be one."""


def continued(card: Card, path: Path) -> Card:
    """The card, with the splits that the one at ``path`` has beyond it.

    A card there of other data, another budget or other settings is replaced, and so is one that
    does not tell its splits apart.

    Raises
    ------
    UserError
        What lies there is no card.
    """
    if not path.exists():
        return card
    earlier = read_card(path)
    if any(earlier.get(key) != card.get(key) for key in SAME):
        return card
    figures = dict(card["figures"])
    for part, before in earlier["figures"].items():
        figures[part] = _joined(figures[part], before) if part in figures else before
    numbers = {n for own in figures.values() for n in own["splits"]}
    hardware = dict.fromkeys([*earlier["hardware"].split("; "), *card["hardware"].split("; ")])
    found = {
        **card, "hardware": "; ".join(hardware), "n_splits": len(numbers), "figures": figures
    }  # fmt: skip
    compared = _compared(card, earlier)
    return {**found, "paired": compared} if compared else found


def _joined(figures: Card, before: Card) -> Card:
    """Figures of a part; pooled ones are of the splits whose predictions are there."""
    gone = [n for n in before["splits"] if n not in figures["splits"]]
    known = _by_split(before)
    if not gone or known is None:
        return figures
    own = _by_split(figures)
    assert own is not None
    numbers = sorted([*gone, *figures["splits"]])

    def merged(ours: list[Any], theirs: list[Any]) -> list[Any]:
        values = dict(zip(before["splits"], theirs, strict=True))
        values |= dict(zip(figures["splits"], ours, strict=True))
        return [values[n] for n in numbers]

    by_split = {metric: merged(own[metric], known[metric]) for metric in own if metric in known}
    found = {
        **figures,
        "splits": numbers,
        "mean_over_splits": {k: round(float(np.mean(v)), 4) for k, v in by_split.items()},
        "sd_over_splits": {k: round(float(np.std(v, ddof=1)), 4) for k, v in by_split.items()},
        "by_split": by_split,
        "pooled_splits": figures.get("pooled_splits", figures["splits"]),
        "systems": {
            system: {
                metric: merged(values, before["systems"][system][metric])
                for metric, values in of_system.items()
            }
            for system, of_system in figures["systems"].items()
        },
    }
    if "runs" in figures and "runs" in before:
        found["runs"] = merged(figures["runs"], before["runs"])
    return found


def _by_split(figures: Card) -> dict[str, list[float]] | None:
    """Each metric split by split; None in an old card that has only their means."""
    if "by_split" in figures:
        return dict(figures["by_split"])
    if len(figures["splits"]) > 1:
        return None
    return {metric: [value] for metric, value in figures["mean_over_splits"].items()}


def _compared(card: Card, earlier: Card) -> Card | None:
    """The paired comparison on more splits: with ours lost, that of the earlier card."""
    own, before = card.get("paired"), earlier.get("paired")
    if before is None:
        return own
    before = {"splits": {p: f["splits"] for p, f in earlier["figures"].items()}, **before}
    if own is None:
        return dict(before)
    parts = {k for k in (*own, *before) if k not in ("minus", "splits")}
    taken = {p: own if _number(own, p) >= _number(before, p) else before for p in sorted(parts)}
    return {
        "minus": own["minus"],
        "splits": {p: side["splits"][p] for p, side in taken.items() if _number(side, p)},
        **{p: side.get(p, {}) for p, side in taken.items()},
    }


def _number(paired: Card, part: str) -> int:
    """Splits that a comparison is of."""
    return len(paired["splits"].get(part, [])) if paired.get(part) else 0
