"""Seeded splits that keep all crystals of one composition on the same side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts."""

    train: Indices
    validation: Indices
    test: Indices


def split_by_group(
    groups: Sequence[str], seed: int, validation: float = 0.1, test: float = 0.1
) -> Split:
    """Divide rows into training, validation and test parts, whole groups at a time.

    Parameters
    ----------
    groups
        Group of each row, for example its reduced formula. Rows of one group share a part, so that
        no composition leaks from training into test.
    seed
        Fixes the split together with the set of group names; the order of rows does not matter.
    validation, test
        Shares of the rows. Each part gets at least one group as long as there are three.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    rows: dict[str, list[int]] = {name: [] for name in names}
    for row, name in enumerate(groups):
        rows[name].append(row)
    remaining = [names[i] for i in order]
    parts: list[Indices] = []
    for share, others in ((test, 2), (validation, 1)):
        part: list[int] = []
        while len(remaining) > others and len(part) < max(1, round(share * len(groups))):
            part += rows[remaining.pop()]
        parts.append(np.array(sorted(part), dtype=np.int64))
    train = np.array(sorted(i for name in remaining for i in rows[name]), dtype=np.int64)
    return Split(train=train, validation=parts[1], test=parts[0])
