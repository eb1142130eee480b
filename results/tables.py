"""What a campaign found, as tables for people and as files for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from results.text import label_symbol
from results.view import CampaignView
from screening.io import atomic_path, atomic_write
from screening.material import KnownMaterial

if TYPE_CHECKING:
    from results.ledger import Ledger

_EXPORT = {
    "material_id": "material_id",
    "formula": "formula",
    "n_sites": "n_sites",
    "round": "round",
    "band_gap": "band_gap",
    "epsilon": "epsilon",
    "epsilon_electronic": "epsilon_electronic",
    "epsilon_ionic": "epsilon_ionic",
    "refractive_index": "refractive_index",
    "lambda_1": "lambda_1",
    "lambda_2": "lambda_2",
    "lambda_3": "lambda_3",
    "merit": "figure_of_merit",
    "epsilon_mean": "epsilon_predicted",
    "epsilon_std": "epsilon_predicted_std",
    "merit_mean": "figure_of_merit_predicted",
    "merit_std": "figure_of_merit_predicted_std",
    "functional": "functional",
    "structure_hash": "structure_hash",
    "key": "calculation",
}
"""Columns of ``validated.csv``: column of the view → name in the file."""


def round_table(view: CampaignView, number: int) -> pd.DataFrame:
    """What was picked in one round and what came of it, one row per calculation.

    Columns: rank, material, formula, E_g (eV), the prediction with its standard deviation and the
    DFPT value of both the mean static permittivity ε̄ and the task's figure of merit, acquisition,
    verdict (the calculation's status while it has none) and the gate's sentence. A round without
    calculations, or a number without a round, gives an empty table.
    """
    rows = view.calculations[view.calculations["round"] == number]
    label, symbol = view.task.label, label_symbol(view.task.label)
    return pd.DataFrame(
        {
            "rank": rows["rank"].astype("Int64"),
            "material": rows["material_id"],
            "formula": rows["formula"],
            "E_g (eV)": rows["band_gap"],
            "ε̄ predicted": rows["epsilon_mean"],
            "σ(ε̄)": rows["epsilon_std"],
            f"{label} predicted": rows["merit_mean"],
            f"σ({symbol})": rows["merit_std"],
            "acquisition": rows["acquisition"],
            "ε̄ DFPT": rows["epsilon"],
            f"{label} DFPT": rows["merit"],
            "verdict": rows["verdict"].where(rows["verdict"] != "", rows["status"]),
            "detail": rows["detail"],
        }
    ).reset_index(drop=True)


def validated_table(view: CampaignView) -> pd.DataFrame:
    """All validated materials, the best figure of merit first.

    ``λ1`` ≤ ``λ2`` ≤ ``λ3`` are the eigenvalues of the static tensor and ``n`` is the refractive
    index sqrt(trace(ε∞)/3).
    """
    rows = view.validated
    return pd.DataFrame(
        {
            "formula": rows["formula"],
            "material": rows["material_id"],
            "round": rows["round"],
            "E_g (eV)": rows["band_gap"],
            "ε̄": rows["epsilon"],
            view.task.label: rows["merit"],
            "λ1": rows["lambda_1"],
            "λ2": rows["lambda_2"],
            "λ3": rows["lambda_3"],
            "n": rows["refractive_index"],
            "ε̄ predicted": rows["epsilon_mean"],
            "σ(ε̄)": rows["epsilon_std"],
            "functional": rows["functional"],
        }
    )


def export_validated(
    view: CampaignView, source: Ledger | Sequence[KnownMaterial], directory: Path
) -> tuple[Path, Path, Path]:
    """Write ``validated.csv``, ``.json`` and ``.parquet``, each whole or not at all.

    The JSON is a list of objects, best figure of merit first, with everything in the CSV and,
    under ``structure``, what ``pymatgen.core.Structure.from_dict`` reads; ``electronic``, ``ionic``
    and ``static`` are 3×3 tensors in the Cartesian frame of that structure and ``eigenvalues``
    holds theirs, ascending. Unknown numbers are null. The parquet file has the columns of the CSV,
    the tensors as ``eps_electronic``, ``eps_ionic`` and ``eps_static``, and ``structure`` as JSON
    text: a table that a campaign can learn from.

    Parameters
    ----------
    source
        The ledger, or the accepted materials themselves.

    Returns
    -------
    tuple
        The paths of the three files.

    Raises
    ------
    UserError
        The directory cannot be written or the disk is full.
    ValueError
        ``source`` lacks a material that the view calls validated.
    """
    # Later rounds than any: all that was accepted, whichever round it was accepted in.
    materials = (
        source if isinstance(source, Sequence) else source.accepted(view.name, before_round=10**9)
    )
    by_hash = {(k.asked or k.material).structure_hash: k for k in materials}
    rows = view.validated[list(_EXPORT)].rename(columns=_EXPORT).astype({"n_sites": "Int64"})
    objects = []
    for row in rows.to_dict("records"):
        known = by_hash.get(row["structure_hash"])
        if known is None:
            raise ValueError(f"no structure was given for {row['material_id']}, which is validated")
        objects.append(_export_object(row, known, view.task.name))
    names = ("validated.csv", "validated.json", "validated.parquet")
    table, records, columns = (directory / name for name in names)
    atomic_write(table, rows.to_csv(index=False, lineterminator="\n"))
    atomic_write(records, json.dumps(objects, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    with atomic_path(columns) as temporary:
        _write_columns(temporary, rows, objects)
    return table, records, columns


def _write_columns(path: Path, rows: pd.DataFrame, objects: Sequence[Mapping[str, Any]]) -> None:
    """The table with tensors and structures, typed the same however many rows there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(rows, preserve_index=False)
    tensor = pa.list_(pa.list_(pa.float64()))
    for name in ("electronic", "ionic", "static"):
        values = pa.array([row[name] for row in objects], tensor)
        table = table.append_column(f"eps_{name}", values)
    structures = [json.dumps(row["structure"]) for row in objects]
    table = table.append_column("structure", pa.array(structures, pa.string()))
    # What pandas notes about its own types, other readers and other versions of it trip over.
    pq.write_table(table.replace_schema_metadata(None), path)


def _export_object(row: Mapping[Any, Any], known: KnownMaterial, task: str) -> dict[str, Any]:
    tensors = {**known.tensors.to_dict(), "static": None}
    if known.tensors.static is not None:
        tensors["static"] = known.tensors.static.tolist()
    eigenvalues = {
        name: None if tensor is None else np.linalg.eigvalsh(np.asarray(tensor)).tolist()
        for name, tensor in tensors.items()
    }
    values = {str(name): _plain(value) for name, value in row.items()}
    return {
        **values,
        "task": task,
        **tensors,
        "eigenvalues": eigenvalues,
        "structure": known.material.to_dict()["structure"],
    }


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it: no numpy scalars, null where a number is not known."""
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value
