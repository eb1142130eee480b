"""Writing tables that :mod:`screening.tables` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from screening.errors import UserError
from screening.io import atomic_path, atomic_write
from screening.material import KnownMaterial, Material


def write_table(items: Sequence[Material] | Sequence[KnownMaterial], path: Path) -> None:
    """Candidates or known tensors as a table, ``.parquet`` or ``.jsonl``.

    Raises
    ------
    UserError
        Another kind of file, or one that cannot be written.
    """
    rows = [_known(item) if isinstance(item, KnownMaterial) else _candidate(item) for item in items]
    match path.suffix.lower():
        case ".jsonl":
            atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        case ".parquet":
            import pandas as pd

            with atomic_path(path) as temporary:
                pd.DataFrame(rows).to_parquet(temporary, index=False)
        case _:
            raise UserError(f"{path} is no kind of table that is written; use .parquet or .jsonl.")


def _candidate(material: Material) -> dict[str, Any]:
    return {
        "material_id": material.material_id,
        "formula": material.formula,
        "nsites": material.n_sites,
        "band_gap": material.band_gap,
        "e_above_hull": material.energy_above_hull,
        "source": material.source,
        "structure": json.dumps(material.structure.as_dict()),
    }


def _known(known: KnownMaterial) -> dict[str, Any]:
    tensors = known.tensors.to_dict()
    return {
        **_candidate(known.material),
        "functional": known.functional,
        "eps_electronic": tensors["electronic"],
        "eps_ionic": tensors["ionic"],
        **known.extras,
    }
