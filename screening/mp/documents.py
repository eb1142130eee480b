"""From documents of the Materials Project to materials, or to a reason why not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from screening.errors import UserError
from screening.material import KnownMaterial, Material
from screening.mp.frames import (
    SAME_VOLUME,
    UnplaceableError,
    averaged_group,
    elements_left,
    independent_elements,
    place,
)
from screening.mp.store import Row
from screening.pulling import Refusals
from screening.tensors import DielectricTensors, as_matrix, read_tensor

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]

RULES = 2
"""Number of the rules below; with another number, kept results are made again."""
FUNCTIONAL = "PBE"
"""The Materials Project's DFPT runs use PBE, with +U where its rules say so."""

OTHER_VOLUME = 0.10
"""Relative difference in volume per atom above which tensor and structure do not belong together;
PBE and r2SCAN relaxations differ by up to 8 %."""
LARGEST_ELECTRONIC = 100.0
"""Largest credible ε∞ of a material with a gap: ε∞² E_g ≈ 95 eV (Moss) reaches 100 only at a gap
of 0.01 eV, below what a semilocal band gap means."""
LARGEST_IONIC = 1000.0
"""Largest credible ionic part: an incipient ferroelectric at 0 K has a few hundred; more means a
mode whose frequency is zero within the accuracy of the calculation."""
SUM_TOLERANCE = 0.01


def read_candidates(rows: Iterable[Row], source: str) -> tuple[list[Material], Refusals]:
    """Materials of summary documents, in order of their id; each id once."""
    refused = Refusals()
    found: dict[str, Material] = {}
    for row in rows:
        if row.material_id and row.material_id in found:
            continue  # the same document on two pages: the order changed between requests
        try:
            found[row.material_id] = _material(row, source)
        except _RefusedError as reason:
            refused.add(str(reason), row.material_id or "(no id)")
    return [found[i] for i in sorted(found)], _without(refused, set(found))


@dataclass(frozen=True)
class Placed:
    """What became of one dielectric document: tensors as JSON text, or a reason.

    ``reason`` is empty where the electronic tensor is used; ``partly`` says why the ionic part is
    not.
    """

    material_id: str
    electronic: str | None = None
    ionic: str | None = None
    reason: str = ""
    partly: str = ""


def place_all(rows: Iterable[Row], progress: Callable[[int], None]) -> Iterator[Placed]:
    """Judge dielectric documents and turn their tensors into the frames of the structures."""
    for n, row in enumerate(rows):
        if n % 20 == 0:
            progress(n)
        try:
            tensors, partly = _tensors(row, _material(row, "").structure)
        except _RefusedError as reason:
            yield Placed(row.material_id, reason=str(reason))
            continue
        except UserError:
            yield Placed(row.material_id, reason="malformed document: structure")
            continue
        electronic, ionic = (
            None if t is None else json.dumps(t.tolist())
            for t in (tensors.electronic, tensors.ionic)
        )
        yield Placed(row.material_id, electronic, ionic, partly=partly)


def read_labels(
    rows: Iterable[Row], placed: Iterable[Placed], source: str
) -> tuple[list[KnownMaterial], Refusals, Refusals]:
    """Known tensors of dielectric documents, in the frame of each structure.

    Parameters
    ----------
    placed
        What :func:`place_all` made of the same rows.

    Returns
    -------
    tuple
        Known materials in order of their id; documents refused; documents of which the ionic part
        was refused.
    """
    refused, partly = Refusals(), Refusals()
    found: dict[str, KnownMaterial] = {}
    for row, result in zip(rows, placed, strict=True):
        if row.material_id and row.material_id in found:
            continue
        if result.reason:
            refused.add(result.reason, row.material_id or "(no id)")
            continue
        if result.partly:
            partly.add(result.partly, row.material_id)
        parts = (result.electronic, result.ionic)
        electronic, ionic = (None if p is None else np.array(json.loads(p)) for p in parts)
        found[row.material_id] = KnownMaterial(
            _material(row, source), DielectricTensors(electronic, ionic), FUNCTIONAL
        )
    return [found[i] for i in sorted(found)], _without(refused, set(found)), partly


class _RefusedError(Exception):
    """A reason from the list that users see."""


def _without(refused: Refusals, found: set[str]) -> Refusals:
    """Refusals of records that did not come whole another time; each record once."""
    kept = Refusals()
    seen: set[str] = set()
    for reason in refused.counts():
        for material_id in refused.ids(reason):
            nameless = material_id == "(no id)"
            if nameless or (material_id not in found and material_id not in seen):
                kept.add(reason, material_id)
                seen.add(material_id)
    return kept


def _material(row: Row, source: str) -> Material:
    if not row.material_id:
        raise _RefusedError("malformed document: no id")
    summary = json.loads(row.summary)
    if summary.get("deprecated"):
        raise _RefusedError("deprecated by the Materials Project")
    if row.structure is None:
        raise _RefusedError("malformed document: no structure")
    n_sites, elements = _check_structure(json.loads(row.structure))
    formula = summary.get("formula_pretty")
    if summary.get("nsites") not in (None, n_sites):
        raise _RefusedError("malformed document: number of atoms and structure differ")
    band_gap = _number(summary, "band_gap")
    if band_gap is not None and band_gap < 0:
        raise _RefusedError("malformed document: band_gap")
    material = Material(
        row.material_id,
        row.structure,
        formula=formula if isinstance(formula, str) and formula else None,
        n_sites=n_sites,
        band_gap=band_gap,
        energy_above_hull=_number(summary, "energy_above_hull"),
        source=source,
    )
    try:
        same = set(material.elements) == elements
    except UserError:
        same = False
    if not same:
        raise _RefusedError("malformed document: formula and structure differ")
    return material


def _number(summary: dict[str, Any], name: str) -> float | None:
    value = summary.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise _RefusedError(f"malformed document: {name}")
    return float(value)


def _check_structure(structure: Any) -> tuple[int, set[str]]:
    """Number of sites and elements of a structure's JSON that is whole and ordered.

    Ten times as fast as building the structure.
    """
    try:
        matrix = np.array(structure["lattice"]["matrix"], dtype=float)
        sites = structure["sites"]
        positions = np.array([site["abc"] for site in sites], dtype=float)
        occupied = [[float(s["occu"]) for s in site["species"]] for site in sites]
        elements = {str(s["element"]) for site in sites for s in site["species"]}
    except (KeyError, TypeError, ValueError):
        raise _RefusedError("malformed document: structure") from None
    if matrix.shape != (3, 3) or positions.shape != (len(sites), 3) or not sites:
        raise _RefusedError("malformed document: structure")
    if not (np.isfinite(matrix).all() and np.isfinite(positions).all()):
        raise _RefusedError("malformed document: structure")
    if abs(np.linalg.det(matrix)) < 1.0:
        raise _RefusedError("malformed document: structure")
    if any(len(o) != 1 or abs(o[0] - 1) > 1e-6 for o in occupied):
        raise _RefusedError("disordered or partially occupied")
    return len(sites), elements


def _tensors(row: Row, structure: Structure) -> tuple[DielectricTensors, str]:
    """Tensors in the structure's frame, and why the ionic part is missing if it is."""
    if row.dielectric is None:
        raise _RefusedError("no dielectric document")
    document = json.loads(row.dielectric)
    if document.get("deprecated"):
        raise _RefusedError("deprecated by the Materials Project")
    electronic, ionic, total = (_matrix(document, n) for n in ("electronic", "ionic", "total"))
    scale = max(1.0, float(np.abs(total).max()))
    if np.abs(electronic + ionic - total).max() > SUM_TOLERANCE * scale:
        raise _RefusedError("total is not electronic + ionic")
    _check_electronic(electronic)
    same = _belongs(document, structure)
    try:
        placed = place(np.stack([electronic, ionic]), structure, same)
    except UnplaceableError as reason:
        raise _RefusedError(str(reason)) from None
    try:
        electronic = read_tensor(placed[0], structure, "electronic")
    except UserError:
        raise _RefusedError("electronic part not symmetric under the point group") from None
    if without := _why_not_ionic(ionic):
        return DielectricTensors(electronic, None), without
    try:
        return DielectricTensors(electronic, read_tensor(placed[1], structure, "ionic")), ""
    except UserError:
        return (
            DielectricTensors(electronic, None), "ionic part not symmetric under the point group"
        )  # fmt: skip


def _matrix(document: dict[str, Any], name: str) -> Array:
    try:
        matrix = as_matrix(document.get(name), name)
    except UserError:
        raise _RefusedError("malformed document: tensor") from None
    if np.abs(matrix - matrix.T).max() > SUM_TOLERANCE * max(1.0, float(np.abs(matrix).max())):
        raise _RefusedError("tensor is not symmetric")
    return (matrix + matrix.T) / 2


def _check_electronic(electronic: Array) -> None:
    eigenvalues = np.linalg.eigvalsh(electronic)
    if np.abs(electronic - np.eye(3)).max() < 1e-6:
        raise _RefusedError("electronic tensor is the identity (a failed run)")
    if eigenvalues[0] < 1.0:
        raise _RefusedError("electronic eigenvalue below 1")
    if eigenvalues[-1] > LARGEST_ELECTRONIC:
        raise _RefusedError(f"electronic eigenvalue above {LARGEST_ELECTRONIC:g}")


def _why_not_ionic(ionic: Array) -> str:
    eigenvalues = np.linalg.eigvalsh(ionic)
    if eigenvalues[0] < -SUM_TOLERANCE * max(1.0, float(np.abs(ionic).max())):
        return "ionic part negative (an imaginary mode)"
    if eigenvalues[-1] > LARGEST_IONIC:
        return f"ionic part above {LARGEST_IONIC:g} (a mode of almost no frequency)"
    return ""


def _belongs(document: dict[str, Any], structure: Structure) -> bool:
    """Whether the tensors are of exactly this structure.

    Raises
    ------
    _RefusedError
        They are of another one.
    """
    n_sites, volume = document.get("nsites"), document.get("volume")
    symmetry = document.get("symmetry")
    number = symmetry.get("number") if isinstance(symmetry, dict) else None
    if not isinstance(n_sites, int) or not isinstance(volume, int | float) or n_sites < 1:
        return False
    ratio = volume / n_sites / (structure.volume / len(structure))
    if abs(ratio - 1) > OTHER_VOLUME:
        raise _RefusedError("tensors belong to a structure of another volume")
    if isinstance(number, int) and 1 <= number <= 230:
        # The Materials Project averages tensors over the group found with a tolerance of 0.1 Å.
        # Where the structure has a lower one, what the average took away cannot be had back.
        averaged = independent_elements(averaged_group(structure))
        if independent_elements(number) != averaged:
            raise _RefusedError("tensors belong to a structure of another crystal system")
        if averaged != elements_left(structure):
            raise _RefusedError("tensor averaged over a symmetry that holds only within 0.1 Å")
    return bool(n_sites == len(structure) and abs(ratio - 1) < SAME_VOLUME)
