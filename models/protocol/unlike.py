"""Materials unlike the training set: an element, or a structure type, left out as a whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.calibration import LEVELS, PARTS
from models.metrics import material_errors
from models.protocol.benchmark import (
    Note,
    card_header,
    covered,
    load_outcome,
    origin,
    save_outcome,
    validation_of,
)
from models.protocol.table import TensorTable
from models.protocol.variants import Variant
from screening.material import KnownMaterial

Indices = NDArray[np.int64]

ELEMENTS = ("Ti", "Se", "Cs")
"""Left out one at a time: a d⁰ metal whose oxides are the classic dielectrics, an anion, and the
largest common cation."""
N_TYPES = 1
"""So many of the commonest structure types are left out, one at a time."""


def structure_type(known: KnownMaterial) -> str:
    """Anonymous formula and space group, such as ``ABC3-221``."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    structure = known.material.structure
    number = SpacegroupAnalyzer(structure, symprec=1e-2).get_space_group_number()
    return f"{structure.composition.anonymized_formula}-{number}"


def belongs(known: KnownMaterial, which: str) -> bool:
    """Whether a material has the element, or is of the structure type, ``which``."""
    return which in known.material.elements if which in ELEMENTS else structure_type(known) == which


def left_out(table: TensorTable) -> dict[str, Indices]:
    """Name → rows that are left out of training and predicted."""
    sets = {
        element: np.array([i for i, k in enumerate(table.known) if element in k.material.elements])
        for element in ELEMENTS
    }
    rows = defaultdict(list)
    for row, known in enumerate(table.known):
        rows[structure_type(known)].append(row)
    common = Counter({kind: len(own) for kind, own in rows.items()}).most_common(N_TYPES)
    return sets | {kind: np.array(rows[kind]) for kind, _ in common}


def run_unlike(
    name: str, variant: Variant, table: TensorTable, work: Path, note: Note
) -> dict[str, Any]:
    """Train without each of the sets and see how good predictions and error bars of it are."""
    card, made = card_header(name, variant, table), origin(variant, table)
    card["protocol"] = "an element or a structure type left out of training"
    card["left_out"] = {}
    for which, rows in left_out(table).items():
        path = work / name / f"without-{which}.npz"
        if not path.exists():
            kept = np.setdiff1d(np.arange(len(table.known)), rows)
            validation = validation_of(table, kept)
            training = np.setdiff1d(kept, validation)
            usable = table.means_like(lambda k, which=which: not belongs(k, which))  # type: ignore[misc]
            save_outcome(path, rows, variant(usable, training, validation, rows, 55), made)
        _, outcome = load_outcome(path, made)
        figures: dict[str, Any] = {
            "n": len(rows),
            "outside_the_domain": round(float(outcome.outside.mean()), 4),
        }
        for part in PARTS:
            labelled = table.labelled(part)[rows]
            true, predicted = table.truth(part)[rows[labelled]], outcome.central[part][labelled]
            errors = material_errors(predicted, true)
            figures[part] = {
                k: round(float(np.nanmean(errors[k])), 4) for k in ("mae_9", "log_scalar")
            }
            if outcome.bounds:
                shares = covered(table, rows, outcome, part)
                figures[part]["coverage"] = {
                    f"{level:.0%}": round(share, 4)
                    for level, share in zip(LEVELS, shares, strict=True)
                }
        note(f"{name}, without {which}: {figures}")
        card["left_out"][which] = figures
    return card
