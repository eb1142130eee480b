"""Crystals that a person names on the command line: files, folders, tables, in any mixture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from screening.ase_files import is_ase_file, read_ase
from screening.errors import UserError
from screening.folders import read_gaps, read_structure, structure_files
from screening.material import Material
from screening.tables import read_usable_candidates

TABLES = (".parquet", ".csv", ".jsonl")


def read_crystals(
    paths: Sequence[Path], band_gaps: Path | None = None
) -> tuple[list[Material], list[str]]:
    """Materials from structure files, folders of them, tables, ASE databases.

    Parameters
    ----------
    band_gaps
        CSV with ``file`` (or ``material_id``) and ``band_gap`` in eV, for structures that come
        without.

    Returns
    -------
    tuple
        The crystals that can be read, and a sentence for each that cannot.

    Raises
    ------
    UserError
        A path that is not there, a folder or table with nothing in it, no crystal that can be read.
    """
    gaps = read_gaps(band_gaps) if band_gaps is not None else {}
    found: list[Material] = []
    refused: list[str] = []
    for path in paths:
        items, reasons = _read(path)
        found += items
        refused += reasons
    for material in found:
        if material.band_gap is None:
            material.band_gap = gaps.get(material.material_id)
    if not found:
        raise UserError(refused[0] if refused else "There is no crystal in what was given.")
    return found, refused


def _read(path: Path) -> tuple[list[Material], list[str]]:
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return read_usable_candidates(path)
    if is_ase_file(path):
        pulled = read_ase(path)
        return pulled.items, [f"{path}: {n} {why}." for why, n in pulled.refused.counts().items()]
    if not path.exists():
        raise UserError(f"There is no file or folder {path}; check the path.")
    found, refused = [], []
    for file in structure_files(path) if path.is_dir() else [path]:
        try:
            found.append(read_structure(file))
        except UserError as error:
            refused.append(str(error))
    return found, refused
