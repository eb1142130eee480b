"""Cards that outlive the predictions that they were made from.

Predictions are large and lie in a folder of their own; who goes on on another machine has the
cards alone. What a card says split by split is kept for the splits whose predictions are gone. What
needs the predictions of all splits together (pooled figures, the paired comparison) says which
splits it is of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from models.protocol.benchmark import card_header, done_splits, over_splits
from models.protocol.card import read_card, write_card
from models.protocol.table import TensorTable
from models.protocol.variants import Variant
from screening.errors import UserError

Card = dict[str, Any]
SAME = ("variant", "data", "budget", "settings")
"""What two cards must have in common to be one."""


def require_cards(
    name: str,
    variant: Variant,
    table: TensorTable,
    numbers: Iterable[int],
    parts: Iterable[str],
    work: Path,
    cards: Path,
) -> None:
    """That a run over these splits and parts can use what is in ``work`` and lose no card.

    Raises
    ------
    UserError
        Results there are of other data, another budget or other settings; or the card has further
        splits and does not tell them apart.
    """
    done = done_splits(name, variant, table, work)
    splits = {
        part: {*numbers, *(n for n, (_, outcome) in done.items() if part in outcome.central)}
        for part in parts
    }
    place = cards / f"{name}.yaml"
    if not can_continue(card_header(name, variant, table), place, splits):
        raise _would_be_lost(place)


def write_continued(card: Card, cards: Path) -> None:
    """Write a card with what the one before says of other splits.

    One that does not tell them apart stays until all its splits are there.
    """
    place = cards / f"{card['variant']}.yaml"
    if can_continue(card, place, {part: f["splits"] for part, f in card["figures"].items()}):
        write_card(place, continued(card, place))


def can_continue(header: Card, path: Path, splits: Mapping[str, Collection[int]]) -> bool:
    """Whether no split is lost if a card of these splits, part by part, replaces the one there."""
    if not path.exists():
        return True
    earlier = read_card(path)
    if any(earlier.get(key) != header.get(key) for key in SAME):
        return True
    return all(
        _by_split(before) is not None or {*before["splits"]} <= {*splits[part]}
        for part, before in earlier["figures"].items()
        if part in splits
    )


def _would_be_lost(path: Path) -> UserError:
    return UserError(
        f"The card {path} is of several splits and has only their means, which would be lost; "
        "write cards to another folder (--cards), or run all its splits."
    )


def continued(card: Card, path: Path) -> Card:
    """The card, with the splits that the one at ``path`` has beyond it.

    A card there of other data, another budget or other settings is replaced.

    Raises
    ------
    UserError
        What lies there is no card, or one that has further splits and does not tell them apart.
    """
    if not path.exists():
        return card
    earlier = read_card(path)
    if any(earlier.get(key) != card.get(key) for key in SAME):
        return card
    figures = dict(card["figures"])
    for part, before in earlier["figures"].items():
        figures[part] = _joined(figures[part], before, path) if part in figures else before
    numbers = {n for own in figures.values() for n in own["splits"]}
    hardware = dict.fromkeys([*earlier["hardware"].split("; "), *card["hardware"].split("; ")])
    found = {
        **card, "hardware": "; ".join(hardware), "n_splits": len(numbers), "figures": figures
    }  # fmt: skip
    compared = _compared(card, earlier)
    return {**found, "paired": compared} if compared else found


def _joined(figures: Card, before: Card, path: Path) -> Card:
    """Figures of a part; pooled ones are of the splits whose predictions are there."""
    gone = [n for n in before["splits"] if n not in figures["splits"]]
    if not gone:
        return figures
    known = _by_split(before)
    if known is None:
        raise _would_be_lost(path)
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
        **over_splits(by_split),
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
    """The paired comparison, part by part the one on more splits: ours may be lost as well."""
    sides = [side for side in (card, earlier) if side.get("paired")]
    if not sides:
        return None
    parts = sorted({k for side in sides for k in side["paired"]} - {"minus", "splits"})
    taken = {part: max(sides, key=lambda side: len(compared_on(side, part))) for part in parts}
    return {
        "minus": sides[0]["paired"]["minus"],
        "splits": {part: on for part, side in taken.items() if (on := compared_on(side, part))},
        **{part: side["paired"].get(part, {}) for part, side in taken.items()},
    }


def compared_on(card: Card, part: str) -> list[int]:
    """Numbers of the splits of the paired comparison; all of a card that does not tell them."""
    paired = card.get("paired", {})
    if not paired.get(part):
        return []
    return list(paired.get("splits", {}).get(part, card["figures"][part]["splits"]))
