"""Tables of candidates and of known tensors: parquet, CSV or JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from screening.errors import UserError
from screening.material import KnownMaterial, Material, require_gap
from screening.tensors import DielectricTensors, read_tensor

if TYPE_CHECKING:
    import pandas as pd

IDENTIFIERS = ("material_id", "file")
"""Columns that are text, whatever they look like: 007 is not 7."""
NUMBERS = ("min_optical_thz", "max_optical_thz", "cpu_s")
"""Columns of numbers beside the tensors that are kept."""
MEANS = {"mean_electronic": 1.0, "mean_ionic": 0.0}
"""Columns with a third of a trace, and the least that it can be."""


def read_candidates(path: Path) -> list[Material]:
    """Candidates from a table.

    Columns: ``material_id``, ``structure`` (JSON of ``Structure.as_dict()``); optional ``band_gap``
    (eV), ``formula``, ``nsites``, ``e_above_hull`` (eV/atom), ``source``.

    Raises
    ------
    UserError
        Missing or unreadable file, missing column, one id with two structures.
    """
    return candidates_from_frame(read_frame(path), str(path))


def candidates_from_frame(frame: pd.DataFrame, what: str) -> list[Material]:
    """Like :func:`read_candidates`, from a table already in memory; ``what`` names it."""
    _require(frame, ["material_id", "structure"], what)
    materials = [_material(row, what) for row in _rows(frame)]
    return _unique(materials, [m.material_id for m in materials], what)


def read_usable_candidates(path: Path) -> tuple[list[Material], list[str]]:
    """Like :func:`read_candidates`, but rows whose structure cannot be used are left out.

    Returns
    -------
    tuple
        The materials, their structures and elements read, and why each of the others was refused.
    """
    frame = read_frame(path)
    _require(frame, ["material_id", "structure"], str(path))
    materials, reasons = [], []
    for row in _rows(frame):
        try:
            material = _material(row, str(path))
            # Only reading them tells whether they can be used.
            material.structure, material.elements  # noqa: B018
            materials.append(material)
        except UserError as error:
            reasons.append(str(error))
    return _unique(materials, [m.material_id for m in materials], str(path)), reasons


def read_known(path: Path) -> list[KnownMaterial]:
    """Materials with known tensors from a table.

    Columns as for candidates and ``functional`` (PBE or PBEsol), ``eps_electronic``, and
    ``eps_ionic`` or ``eps_total``: 3×3, relative permittivity, in the Cartesian frame of the
    structure in the same row, empty where unknown. Optional: ``use_electronic``, ``use_ionic``
    (false: do not use that part), ``born_charges`` (n × 3 × 3), ``min_optical_thz``, ``cpu_s``
    (processor time that the calculation took); and ``mean_electronic`` and ``mean_ionic``, a third
    of the trace, in the place of the tensors.

    Raises
    ------
    UserError
        As for candidates; and a tensor that is not 3×3, not finite, not symmetric or not invariant
        under the point group of its structure.
    """
    return known_from_frame(read_frame(path), str(path))


def read_usable(path: Path) -> tuple[list[KnownMaterial], list[str]]:
    """Like :func:`read_known`, but rows that cannot be used are left out.

    Returns
    -------
    tuple
        The materials, and why each of the others was refused.
    """
    return usable_from_frame(read_frame(path), str(path))


def usable_from_frame(frame: pd.DataFrame, what: str) -> tuple[list[KnownMaterial], list[str]]:
    """Like :func:`read_usable`, from a table already in memory; ``what`` names it."""
    known: list[KnownMaterial] = []
    reasons = []
    for position in range(len(frame)):
        try:
            known += known_from_frame(frame.iloc[[position]], what)
        except UserError as error:
            reasons.append(str(error))
    if not known:
        raise UserError(reasons[0] if reasons else f"{what} has no rows.")
    return _unique_known(known, what), reasons


def known_from_frame(frame: pd.DataFrame, what: str) -> list[KnownMaterial]:
    """Like :func:`read_known`, from a table already in memory; ``what`` names it."""
    _require(frame, ["material_id", "structure", "band_gap", "functional"], what)
    if "mean_electronic" not in frame:
        _require(frame, ["eps_electronic"], what)
    if not {"eps_ionic", "eps_total", *MEANS} & {*frame.columns}:
        raise UserError(f"{what} has no column 'eps_ionic' or 'eps_total'; add one of them.")
    return _unique_known([_known(row, what) for row in _rows(frame)], what)


def read_frame(path: Path) -> pd.DataFrame:
    """A table from disk.

    Raises
    ------
    UserError
        No such file, a kind of file that is not understood, or a damaged one.
    """
    import pandas as pd

    if not path.is_file():
        raise UserError(f"There is no table {path}; check the path.")
    try:
        match path.suffix.lower():
            case ".parquet":
                frame = pd.read_parquet(path)
            case ".csv":
                frame = pd.read_csv(path, dtype=dict.fromkeys(IDENTIFIERS, str))
            case ".jsonl":
                frame = pd.DataFrame(_json_lines(path))
            case _:
                raise UserError(
                    f"{path} is no table that can be read; give a .parquet, .csv or .jsonl file."
                )
    except PermissionError:
        raise UserError(f"{path} may not be read; check its permissions.") from None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as a table ({reason}); is it damaged?") from None
    if frame.empty:
        raise UserError(f"{path} is an empty table; it needs at least one row.")
    return frame


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("every line must be a JSON object")
    return rows


def _require(frame: pd.DataFrame, columns: list[str], what: str) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        names = ", ".join(f"'{column}'" for column in missing)
        present = ", ".join(map(str, frame.columns))
        raise UserError(f"{what} lacks the column {names}; it has: {present}.")


def _rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    names = [str(column) for column in frame.columns]
    for values in frame.itertuples(index=False, name=None):
        row = dict(zip(names, values, strict=True))
        yield {name: value for name, value in row.items() if not _empty(value)}


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value is _na()


def _na() -> Any:
    import pandas as pd

    return pd.NA


def _material(row: dict[str, Any], what: str) -> Material:
    if "material_id" not in row or "structure" not in row:
        raise UserError(f"{what} has a row without material_id or structure; fill it or drop it.")
    material_id = str(row["material_id"])
    structure = row["structure"]
    band_gap = _number(row, "band_gap", material_id, what, float)
    if band_gap is not None:
        require_gap(band_gap, f"{material_id} in {what}")
    return Material(
        material_id,
        structure if isinstance(structure, str) else json.dumps(structure, default=_plain),
        formula=str(row["formula"]) if "formula" in row else None,
        n_sites=_number(row, "nsites", material_id, what, int),
        band_gap=band_gap,
        energy_above_hull=_number(row, "e_above_hull", material_id, what, float),
        source=str(row.get("source", Path(what).name)),
    )


def _number(row: dict[str, Any], column: str, material_id: str, what: str, kind: type) -> Any:
    try:
        return kind(row[column]) if column in row else None
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{column} of {material_id} in {what} is {row[column]!r}, not a number; correct it."
        ) from None


def _known(row: dict[str, Any], what: str) -> KnownMaterial:
    material = _material(row, what)
    functional = str(row.get("functional", ""))
    electronic = ionic = None

    def read(column: str) -> Any:
        value = row[column]
        label = f"{column} of {material.material_id} in {what}"
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise UserError(f"{label} is not a 3×3 tensor; write it as JSON.") from None
        return read_tensor(value, material.structure, label)

    if "eps_electronic" in row and _flag(row, "use_electronic", material.material_id, what):
        electronic = read("eps_electronic")
    if _flag(row, "use_ionic", material.material_id, what):
        if "eps_ionic" in row:
            ionic = read("eps_ionic")
        elif "eps_total" in row and electronic is not None:
            ionic = read("eps_total") - electronic
    extras: dict[str, Any] = {
        name: _number(row, name, material.material_id, what, float)
        for name in NUMBERS
        if name in row
    }
    for name in MEANS:
        if name in row:
            extras[name] = _mean(row, name, material.material_id, what)
    if "born_charges" in row:
        extras["born_charges"] = _charges(row["born_charges"], material, what)
    return KnownMaterial(material, DielectricTensors(electronic, ionic), functional, extras)


def _mean(row: dict[str, Any], column: str, material_id: str, what: str) -> float:
    value: float = _number(row, column, material_id, what, float)
    if not MEANS[column] <= value < math.inf:
        raise UserError(
            f"{column} of {material_id} in {what} is {value:g}; a mean permittivity is a number of "
            f"at least {MEANS[column]:g}: correct it or leave the cell empty."
        )
    return value


def _flag(row: dict[str, Any], column: str, material_id: str, what: str) -> bool:
    text = str(row.get(column, True)).lower()
    if text in ("true", "1", "1.0", "yes"):
        return True
    if text in ("false", "0", "0.0", "no"):
        return False
    raise UserError(f"{column} of {material_id} in {what} is {row[column]!r}; write true or false.")


def _charges(value: Any, material: Material, what: str) -> list[list[list[float]]]:
    try:
        atoms = json.loads(value) if isinstance(value, str) else value
        charges = np.array([[[float(z) for z in row] for row in atom] for atom in atoms])
    except (TypeError, ValueError):
        charges = np.zeros(0)
    if charges.shape != (len(material.structure), 3, 3) or not np.isfinite(charges).all():
        raise UserError(
            f"born_charges of {material.material_id} in {what} are not one 3×3 matrix of numbers "
            "for each atom; correct them or leave the cell empty."
        )
    nested: list[list[list[float]]] = charges.tolist()
    return nested


def _plain(value: Any) -> Any:
    """Arrays, as parquet gives nested columns, as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def _unique_known(known: list[KnownMaterial], what: str) -> list[KnownMaterial]:
    """As :func:`_unique`; one id may have tensors of several functionals."""
    labels = [f"{k.material.material_id} ({k.functional})" for k in known]
    kept = _unique([k.material for k in known], labels, what)
    wanted = {id(material) for material in kept}
    return [k for k in known if id(k.material) in wanted]


def _unique(materials: list[Material], labels: list[str], what: str) -> list[Material]:
    """Rows without exact repetitions; the same label with two structures is an error."""
    first: dict[str, Material] = {}
    for material, label in zip(materials, labels, strict=True):
        earlier = first.setdefault(label, material)
        if earlier is not material and earlier.structure_hash != material.structure_hash:
            raise UserError(
                f"{what} has two different structures under the id {label}; "
                "give each structure an id of its own."
            )
    return list(first.values())
