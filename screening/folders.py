"""Candidates from a folder of structure files."""

from __future__ import annotations

import math
import warnings
from fnmatch import fnmatch
from pathlib import Path

from screening.errors import UserError
from screening.material import Material, require_gap
from screening.tables import read_frame

PATTERNS = ("*.cif", "*.vasp", "POSCAR*", "CONTCAR*")


def read_folder(folder: Path, band_gaps: Path | None) -> list[Material]:
    """Crystals from CIF and POSCAR files; the id is the file's name without its ending.

    Parameters
    ----------
    folder
        Holds ``*.cif``, ``*.vasp``, ``POSCAR*`` or ``CONTCAR*`` files.
    band_gaps
        CSV with the columns ``file`` or ``material_id``, and ``band_gap`` in eV.

    Raises
    ------
    UserError
        No folder, no structure files, a file that cannot be read or is disordered, two files with
        the same id, a band gap for a file that is not there.
    """
    paths = structure_files(folder)
    gaps = read_gaps(band_gaps) if band_gaps is not None else {}
    materials: dict[str, Material] = {}
    for path in paths:
        material_id = _id(path.name)
        if material_id in materials:
            raise UserError(f"Two files in {folder} have the id '{material_id}'; rename one.")
        materials[material_id] = read_structure(path, gaps.get(material_id))
    strangers = sorted(set(gaps) - set(materials))
    if strangers:
        raise UserError(
            f"{band_gaps} gives a band gap for '{strangers[0]}', but {folder} holds no such "
            "structure; correct the name or add the file."
        )
    return list(materials.values())


def structure_files(folder: Path) -> list[Path]:
    """CIF and POSCAR files of a folder, sorted.

    Raises
    ------
    UserError
        No folder, or none in it.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; check the path.")
    paths = sorted(p for p in folder.iterdir() if _is_structure(p.name) and p.is_file())
    if not paths:
        raise UserError(f"{folder} holds no structure files; put {', '.join(PATTERNS)} there.")
    return paths


def _is_structure(name: str) -> bool:
    return any(fnmatch(name.lower(), pattern.lower()) for pattern in PATTERNS)


def _id(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in (".cif", ".vasp") else name


def read_gaps(path: Path) -> dict[str, float]:
    """Band gaps in eV by id, from a CSV with `material_id` or `file`, and `band_gap`.

    Raises
    ------
    UserError
        The table cannot be read, or a gap is no number, negative or infinite.
    """
    frame = read_frame(path)
    key = next((column for column in ("material_id", "file") if column in frame), None)
    if key is None or "band_gap" not in frame:
        raise UserError(f"{path} needs the columns 'file' (or 'material_id') and 'band_gap'.")
    gaps = {}
    for name, gap in zip(frame[key], frame["band_gap"], strict=True):
        try:
            gaps[_id(str(name))] = float(gap)
        except (TypeError, ValueError):
            raise UserError(f"{path}: the band gap of '{name}' is {gap!r}, not a number.") from None
    known = {name: gap for name, gap in gaps.items() if not math.isnan(gap)}
    for name, gap in known.items():
        require_gap(gap, f"{name} in {path}")
    return known


def read_structure(path: Path, band_gap: float | None = None) -> Material:
    """A crystal from one CIF or POSCAR file; the id is the file's name without its ending.

    Raises
    ------
    UserError
        The file cannot be read, is disordered, or has atoms on top of each other.
    """
    from pymatgen.core import Structure

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_file(path)
    except Exception as error:  # noqa: BLE001 - the parsers raise anything on broken files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} cannot be read as a structure ({reason}); repair or remove it."
        ) from None
    try:
        return Material(_id(path.name), structure, band_gap=band_gap, source=path.parent.name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
