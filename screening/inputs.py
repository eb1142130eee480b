"""Crystals that a person names on the command line: files, folders, tables, in any mixture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from screening.errors import UserError
from screening.folders import read_folder, read_gaps, read_structure
from screening.material import Material
from screening.tables import read_candidates

TABLES = (".parquet", ".csv", ".jsonl")
ASE_FILES = (".db", ".xyz", ".extxyz")


def read_crystals(paths: Sequence[Path], band_gaps: Path | None = None) -> list[Material]:
    """Materials from structure files, folders of them, tables, ASE databases.

    Parameters
    ----------
    band_gaps
        CSV with ``file`` (or ``material_id``) and ``band_gap`` in eV, for structures that come
        without.

    Raises
    ------
    UserError
        Something that is not there or cannot be read; nothing at all.
    """
    gaps = read_gaps(band_gaps) if band_gaps is not None else {}
    found: list[Material] = []
    for path in paths:
        if path.is_dir():
            found += read_folder(path, None)
        elif path.suffix.lower() in TABLES:
            found += read_candidates(path)
        elif path.suffix.lower() in ASE_FILES:
            from screening.ase_files import read_ase

            found += read_ase(path).items
        elif path.is_file():
            found.append(read_structure(path))
        else:
            raise UserError(f"There is no file or folder {path}; check the path.")
    for material in found:
        if material.band_gap is None:
            material.band_gap = gaps.get(material.material_id)
    if not found:
        raise UserError("There is no crystal in what was given.")
    return found
