"""Candidates from ASE databases and extended XYZ files."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screening.errors import UserError
from screening.material import OVERLAPS, Material, has_overlaps
from screening.pulling import PulledCandidates, Refusals

if TYPE_CHECKING:
    from pymatgen.core import Structure

DATABASES = (".db", ".json")
XYZ = (".xyz", ".extxyz")
GAP_NAMES = ("band_gap", "bandgap", "gap", "Eg")
ID_NAMES = ("material_id", "mp_id", "identifier", "name", "uid")


def read_ase(path: Path) -> PulledCandidates:
    """Crystals of an ASE database (.db, .json) or an extended XYZ file (.xyz, .extxyz).

    The id comes from ``material_id``, ``mp_id``, ``identifier``, ``name`` or ``uid`` of a record,
    or else is the file's name and the record's number; the band gap (eV) from ``band_gap``,
    ``bandgap``, ``gap`` or ``Eg``.

    Raises
    ------
    UserError
        No such file, one of another kind, a damaged one, or one without a usable crystal.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the path.")
    refused = Refusals()
    items: dict[str, Material] = {}
    offered = 0
    for number, (atoms, values) in enumerate(_records(path), start=1):
        offered += 1
        given = next((str(values[n]) for n in ID_NAMES if values.get(n) not in (None, "")), "")
        material_id = given or f"{path.stem}-{number}"
        if reason := _why_not(atoms, values):
            refused.add(reason, material_id)
        elif material_id in items:
            refused.add("a second record with the same id", material_id)
        else:
            structure = _structure(atoms)
            if has_overlaps(structure):
                refused.add(OVERLAPS, material_id)
                continue
            items[material_id] = Material(
                material_id, structure, band_gap=_gap(values), source=path.name
            )
    if not items:
        raise UserError(
            f"{path} holds no usable crystal ({offered} records"
            + "".join(f"; {n} {reason}" for reason, n in refused.counts().items())
            + ")."
        )
    ordered = [items[i] for i in sorted(items)]
    return PulledCandidates(ordered, offered, refused, provenance={"source": str(path)})


def is_ase_file(path: Path) -> bool:
    """Whether a file is ASE's by its ending, or, among JSON files, by what is in it."""
    suffix = path.suffix.lower()
    if suffix != ".json":
        return suffix in (*DATABASES, *XYZ)
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and not {"ids", "nextid", "1"}.isdisjoint(content)


def _records(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Atoms and what is said of them, one by one."""
    import ase.db
    import ase.io

    connect: Any = ase.db.connect

    suffix = path.suffix.lower()
    if suffix not in (*DATABASES, *XYZ):
        raise UserError(f"{path} is no ASE database (.db, .json) or extended XYZ (.xyz, .extxyz).")
    number = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if suffix in DATABASES:
                for row in connect(path).select():
                    number += 1
                    yield row.toatoms(), {**row.data, **row.key_value_pairs}
            else:
                for atoms in ase.io.iread(path, index=":", format="extxyz"):
                    number += 1
                    yield atoms, {**_results(atoms), **atoms.info}
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - the readers raise anything on broken files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} cannot be read after record {number} ({reason}); is it damaged?"
        ) from None


def _results(atoms: Any) -> dict[str, Any]:
    return dict(atoms.calc.results) if atoms.calc is not None else {}


def _why_not(atoms: Any, values: dict[str, Any]) -> str:
    import numpy as np

    if not len(atoms):
        return "no atoms"
    if not atoms.pbc.all() or abs(np.linalg.det(atoms.cell.array)) < 1.0:
        return "not periodic in three dimensions"
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "a position or the cell is not a number"
    if (atoms.numbers < 1).any():
        return "an atom of no element (X)"
    occupancy = values.get("occupancy")
    if isinstance(occupancy, dict) and any(
        len(site) != 1 or abs(sum(site.values()) - 1) > 1e-6 for site in occupancy.values()
    ):
        return "disordered or partially occupied"
    return ""


def _structure(atoms: Any) -> Structure:
    from pymatgen.core import Lattice, Structure

    lattice = Lattice(atoms.cell.array)
    return Structure(
        lattice, atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True
    )


def _gap(values: dict[str, Any]) -> float | None:
    for name in GAP_NAMES:
        try:
            gap = float(values[name])
        except (KeyError, TypeError, ValueError):
            continue
        if 0 <= gap < math.inf:
            return gap
    return None
