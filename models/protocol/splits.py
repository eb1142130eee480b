"""The five published splits of the tensor table, by material id."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from models.splits import Split
from screening.errors import UserError

N_SPLITS = 5
PARTS = {"t": "train", "v": "validation", "e": "test"}
"""Letters of the file: one per split, in order."""


def stratified_split(
    groups: Sequence[str], strata: Sequence[str], seed: int, share: float = 0.1
) -> list[str]:
    """Letter of each row: 80/10/10, whole groups at a time, alike in every stratum.

    Parameters
    ----------
    groups
        Group of each row (reduced formula); a group belongs to the commonest stratum of its rows.
    strata
        Stratum of each row (crystal system).
    share
        Share of the rows in validation, and in test.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows[group].append(row)
    members: dict[str, list[str]] = defaultdict(list)
    for group in sorted(rows):
        members[Counter(strata[i] for i in rows[group]).most_common(1)[0][0]].append(group)
    letters = ["t"] * len(groups)
    random = np.random.default_rng(seed)
    for stratum in sorted(members):
        names = [members[stratum][i] for i in random.permutation(len(members[stratum]))]
        wanted = share * sum(len(rows[name]) for name in names)
        for letter in "ev":
            taken = 0
            while names and taken + len(rows[names[-1]]) / 2 < wanted:
                for row in rows[name := names.pop()]:
                    letters[row] = letter
                taken += len(rows[name])
    return letters


def published() -> dict[str, str]:
    """Material id → its letters in the five splits."""
    text = (files("models.protocol") / "splits.csv").read_text()
    return {row["material_id"]: row["splits"] for row in csv.DictReader(text.splitlines())}


def published_split(material_ids: Sequence[str], number: int) -> Split:
    """Row numbers of the parts of split ``number`` (1 to 5).

    Raises
    ------
    UserError
        A material that the published splits do not know.
    """
    table = published()
    try:
        letters = np.array([table[i][number - 1] for i in material_ids])
    except KeyError as unknown:
        raise UserError(
            f"The published splits do not know the material {unknown}; they belong to the tensor "
            "table they were made for."
        ) from None
    found = {part: np.flatnonzero(letters == letter) for letter, part in PARTS.items()}
    return Split(**found)
