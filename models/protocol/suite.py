"""The whole protocol for some variants, as cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.calibration import PARTS
from models.protocol.benchmark import TAIL_MERITS, Note, run_splits, run_tail, splits_card
from models.protocol.card import write_card
from models.protocol.continued import require_cards, write_continued
from models.protocol.table import TensorTable
from models.protocol.unlike import run_unlike
from models.protocol.variants import Variant

REFERENCE = "direct"
"""Variant that the others are compared with, material by material."""


def make_cards(
    variants: Mapping[str, Variant],
    table: TensorTable,
    numbers: Sequence[int],
    work: Path,
    cards: Path,
    note: Note,
    *,
    tail: bool = True,
    unlike: bool = True,
) -> None:
    """Run what is missing and write the cards of every variant.

    What a card that lies there says of other splits stays in it.

    Parameters
    ----------
    numbers
        Splits, 1 to 5.
    work
        Predictions are kept here; what is there is not done again.
    tail, unlike
        Also leave out the extremes; an element, or a structure type.

    Raises
    ------
    UserError
        Predictions of splits in ``work`` are of other data or settings, or a card that lies there
        would lose splits; before anything is trained.
    """
    for name, variant in variants.items():
        require_cards(name, variant, table, numbers, PARTS, work, cards)
    for name, variant in variants.items():
        run_splits(name, variant, table, numbers, work, note)
        reference = REFERENCE if name != REFERENCE and (work / REFERENCE).is_dir() else None
        write_continued(splits_card(name, variant, table, work, reference), cards, note)
        for merit in TAIL_MERITS if tail else ():
            card = run_tail(name, variant, table, merit, work, note)
            write_card(cards / f"{name}-tail-{merit}.yaml", card)
        if unlike:
            card = run_unlike(name, variant, table, work, note)
            write_card(cards / f"{name}-unlike.yaml", card)
