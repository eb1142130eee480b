"""Cards that outlive the predictions that they were made from.

Predictions are large and lie in a folder of their own; who goes on on another machine has the
cards alone. What a card says split by split is kept for the splits whose predictions are gone. What
needs the predictions of all splits together (pooled figures, the paired comparison) says which
splits it is of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from models.calibration import PARTS
from models.protocol.benchmark import Note, card_header, done_splits, over_splits
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
    numbers: Collection[int],
    parts: Collection[str],
    work: Path,
    cards: Path,
) -> None:
    """That a run over these splits and parts can use what is in ``work`` and lose no card.

    Raises
    ------
    UserError
        Predictions of splits there are of other data, another budget or other settings; what lies
        in the card's place is no card; or it has further splits and does not tell them apart.
    """
    done = done_splits(name, variant, table, work)
    splits = {
        part: {
            *(numbers if part in parts else ()),
            *(n for n, (_, outcome) in done.items() if part in outcome.central),
        }
        for part in PARTS
    }
    place = cards / f"{name}.yaml"
    if gone := _lost(_earlier(card_header(name, variant, table), place), splits):
        raise _refusal(place, gone)


def write_continued(card: Card, cards: Path, note: Note) -> None:
    """Write a card with what the one before says of other splits.

    One that does not tell them apart stays until all its splits are there.

    Raises
    ------
    UserError
        What lies in its place is no card.
    """
    place = cards / f"{card['variant']}.yaml"
    if gone := _lost(_earlier(card, place), _splits(card)):
        note(f"{place} stays as it is until there are predictions of the splits {_named(gone)}.")
    else:
        write_card(place, continued(card, place))


def _splits(card: Card) -> dict[str, list[int]]:
    return {part: figures["splits"] for part, figures in card["figures"].items()}


def _earlier(header: Card, path: Path) -> Card | None:
    """The card at ``path`` that one with this header goes on with, if there is one."""
    if not path.exists():
        return None
    earlier = read_card(path)
    return earlier if all(earlier.get(key) == header.get(key) for key in SAME) else None


def _lost(earlier: Card | None, splits: Mapping[str, Collection[int]]) -> list[int]:
    """Splits of which an earlier card has means only, and a new one would have nothing."""
    if earlier is None:
        return []
    return sorted(
        {
            number
            for part, before in earlier["figures"].items()
            if splits.get(part) and _by_split(before) is None
            for number in before["splits"]
            if number not in splits[part]
        }
    )


def _refusal(path: Path, gone: list[int]) -> UserError:
    return UserError(
        f"The card {path} has only the mean over its splits, of which {_named(gone)} would be "
        "lost; write cards to another folder (--cards), or run these as well."
    )


def _named(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def continued(card: Card, path: Path) -> Card:
    """The card, with the splits that the one at ``path`` has beyond it.

    A card there of other data, another budget or other settings is replaced.

    Raises
    ------
    UserError
        What lies there is no card, or one that has further splits and does not tell them apart.
    """
    earlier = _earlier(card, path)
    if earlier is None:
        return card
    if gone := _lost(earlier, _splits(card)):
        raise _refusal(path, gone)
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
    if not gone:
        return figures
    known = _by_split(before)
    own = _by_split(figures)
    assert own is not None and known is not None
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
