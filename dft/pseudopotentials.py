"""Finding the file that describes an element, and what it says about itself."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from screening.errors import UserError

_HEADER = 20_000
"""Characters at the beginning of a PAW file that hold everything but the tables."""

_NAMES = (
    "{element}.PBE.gz",
    "{element}.PBE",
    "{element}.xml",
    "{element}.xml.gz",
    "{element}.psp8",
    "{element}.psp8.gz",
    "{element}[._-]*.xml",
    "{element}[._-]*.psp8",
)
"""Names in the order of preference: GPAW's (Debian), plain ones, then those of published tables
such as ``Mg.GGA_PBE-JTH.xml`` and ``Mg-sp-r.psp8``."""


@dataclass(frozen=True)
class Pseudopotential:
    """One file, and what is needed of it before ABINIT reads it.

    Attributes
    ----------
    element
        Symbol.
    path
        Where it is; maybe compressed.
    valence
        Electrons that are not in the core.
    is_paw
        PAW data set, or else norm-conserving.
    """

    element: str
    path: Path
    valence: float
    is_paw: bool

    def unpack(self, directory: Path) -> str:
        """Put it into ``directory`` as ABINIT reads it; returns the file's name."""
        name = f"{self.element}.{'xml' if self.is_paw else 'psp8'}"
        (directory / name).write_bytes(_content(self.path))
        return name


def find(folder: Path, elements: Iterable[str]) -> dict[str, Pseudopotential]:
    """The pseudopotential of each element.

    Raises
    ------
    UserError
        The folder or an element's file is missing, a file cannot be understood or is not for PBE,
        or PAW and norm-conserving files are mixed.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"There is no folder of pseudopotentials {folder}; on Debian and Ubuntu: apt install "
            "gpaw-data, or name a folder of PAW-XML or psp8 files as 'pseudopotentials'."
        )
    found = {element: _read(_find(folder, element), element) for element in sorted(set(elements))}
    kinds = {pseudopotential.is_paw for pseudopotential in found.values()}
    if len(kinds) > 1:
        raise UserError(
            f"{folder} has PAW data for some of {', '.join(found)} and norm-conserving ones for "
            "others, which do not go together; use a folder with one kind."
        )
    return found


def available(folder: Path) -> list[str]:
    """Symbols of the elements that ``folder`` has a file for, in the order of their numbers."""
    from pymatgen.core import Element

    names = [path.name for path in Path(folder).expanduser().glob("*")]
    starts = {re.split(r"[.\-_]", name)[0] for name in names}
    known = sorted((e for e in Element if e.symbol in starts), key=lambda e: e.Z)
    return [e.symbol for e in known if _matches(Path(folder).expanduser(), e.symbol)]


def fingerprint(folder: Path) -> str:
    """Hash of what the folder offers: other files give other answers."""
    from pymatgen.core import Element

    folder = Path(folder).expanduser()
    digest = hashlib.sha256()
    for element in Element:
        for path in _matches(folder, element.symbol)[:1]:
            digest.update(f"{element.symbol} ".encode() + hashlib.sha256(_bytes(path)).digest())
    return digest.hexdigest()[:16]


def _find(folder: Path, element: str) -> Path:
    matches = _matches(folder, element)
    if not matches:
        raise UserError(
            f"{folder} has no pseudopotential for {element} (looked for {element}.PBE.gz, "
            f"{element}*.xml and {element}*.psp8); leave out crystals with {element}, or name a "
            "folder that has one as 'pseudopotentials'."
        )
    return matches[0]


def _matches(folder: Path, element: str) -> list[Path]:
    patterns = (name.format(element=element) for name in _NAMES)
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _read(path: Path, element: str) -> Pseudopotential:
    head = _content(path)[:_HEADER].decode("utf-8", errors="replace")
    try:
        if path.name.removesuffix(".gz").endswith(".psp8"):
            _, second, third = head.splitlines()[:3]
            charge, valence = (float(x) for x in second.split()[:2])
            functional = int(third.split()[1])
            _expect(path, element, _symbol(charge), "PBE" if functional in (11, -101130) else "")
            return Pseudopotential(element, path, valence, is_paw=False)
        atom = dict(re.findall(r'(\w+)="([^"]*)"', _tag(head, "atom")))
        functional_tag = dict(re.findall(r'(\w+)="([^"]*)"', _tag(head, "xc_functional")))
        _expect(path, element, atom["symbol"].strip(), functional_tag["name"])
        return Pseudopotential(element, path, float(atom["valence"]), is_paw=True)
    except (ValueError, KeyError, IndexError):
        raise UserError(
            f"{path} cannot be read as a PAW data set or psp8 pseudopotential; replace it."
        ) from None


def _expect(path: Path, element: str, symbol: str, functional: str) -> None:
    if symbol != element:
        raise UserError(f"{path} is a pseudopotential for {symbol}, not for {element}; rename it.")
    if functional not in ("PBE", "GGA_X_PBE+GGA_C_PBE"):
        raise UserError(
            f"{path} was not made for PBE, the functional of this engine; use a PBE table."
        )


def _tag(text: str, name: str) -> str:
    match = re.search(rf"<{name}\s[^>]*>", text)
    if match is None:
        raise ValueError(name)
    return match[0]


def _symbol(charge: float) -> str:
    from pymatgen.core import Element

    return Element.from_Z(round(charge)).symbol


def _content(path: Path) -> bytes:
    try:
        data = _bytes(path)
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError) as error:
        raise UserError(f"The pseudopotential {path} cannot be read ({error}).") from None


def _bytes(path: Path) -> bytes:
    return path.read_bytes()
