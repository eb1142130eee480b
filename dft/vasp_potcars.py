"""Whether pymatgen finds the POTCARs that a calculation needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Structure

REMEDY = (
    "put VASP's PBE POTCARs into a folder with `pmg config -p EXTRACTED_POTCARS FOLDER` and name "
    "it with `pmg config --add PMG_VASP_PSP_DIR FOLDER`"
)


def check_potcars() -> tuple[bool, str, str]:
    """Whether there is a library of POTCARs at all: works, what was found, remedy."""
    from pymatgen.core import SETTINGS

    folder = SETTINGS.get("PMG_VASP_PSP_DIR")
    if not folder:
        return False, "pymatgen's PMG_VASP_PSP_DIR is not set", REMEDY
    path = Path(str(folder)).expanduser()
    if not path.is_dir():
        return False, f"PMG_VASP_PSP_DIR is {path}, which is no folder", REMEDY
    symbols = sorted(set(_table().values()))
    found = [symbol for symbol in symbols if _path(path, symbol) is not None]
    if not found:
        return False, f"{path} holds no PBE POTCARs in {_subfolder()}", REMEDY
    return True, f"{len(found)} of {len(symbols)} PBE POTCARs in {path}", REMEDY


def missing_potcars(structure: Structure) -> list[str]:
    """Symbols of POTCARs that this crystal needs and that are not there."""
    from pymatgen.core import SETTINGS

    folder = Path(str(SETTINGS.get("PMG_VASP_PSP_DIR") or "")).expanduser()
    table = _table()
    symbols = [table.get(el.symbol, el.symbol) for el in structure.composition.elements]
    return [symbol for symbol in symbols if _path(folder, symbol) is None]


def covered(*, anywhere: bool = False) -> frozenset[str]:
    """Symbols of the elements whose POTCAR is there, or ``anywhere``: of all that have one."""
    from pymatgen.core import SETTINGS

    table = _table()
    if anywhere:
        return frozenset(table)
    folder = Path(str(SETTINGS.get("PMG_VASP_PSP_DIR") or "")).expanduser()
    return frozenset(el for el, symbol in table.items() if _path(folder, symbol) is not None)


def _table() -> dict[str, str]:
    """The Materials Project's choice, which all presets share."""
    from pymatgen.io.vasp.sets import MPRelaxSet

    return dict(MPRelaxSet.CONFIG["POTCAR"])


def _subfolder() -> str:
    from pymatgen.core import SETTINGS
    from pymatgen.io.vasp.inputs import PotcarSingle

    given = SETTINGS.get("PMG_VASP_PSP_SUB_DIRS", {})
    return str(given.get("PBE", PotcarSingle.functional_dir["PBE"]))


def _path(folder: Path, symbol: str) -> Path | None:
    """Where pymatgen would read the POTCAR, or None."""
    place = folder / _subfolder()
    for name in (f"POTCAR.{symbol}", f"{symbol}/POTCAR"):
        for ending in ("", ".gz", ".bz2", ".xz", ".Z"):
            if (place / f"{name}{ending}").is_file():
                return place / f"{name}{ending}"
    return None
