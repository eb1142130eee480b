"""A whole campaign as one zip file that another machine goes on with.

======================  ==========================================================================
``manifest.json``       what this is: format, name, versions, the campaigns it rests on
``N/ledger.json``       the rows of the ledger, one folder ``N`` per campaign, the oldest first
``N/home/…``            the campaign's files: rounds with their models, report, tables
``N/calculations/…``    its calculations, wherever they lie
``N/sources/…``         the tables and folders that it reads
======================  ==========================================================================

What comes from a database stays there: the campaign goes on with the version that it began with.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from flows.config import NAME
from flows.run import predecessors, versions
from results.ledger import Ledger
from results.transfer import dump_campaign, load_campaign
from screening.errors import UserError
from screening.io import atomic_path, unwritable

FORMAT = 1
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
MANIFEST = "manifest.json"
SOURCES = (("known",), ("candidates",), ("engine", "answers"))
"""Where a campaign's settings name sources."""
FILES = ("path", "band_gaps")
"""What a source's settings call its files."""
OF_THIS_MACHINE = ("handle.json", "job.json")
"""Files of a calculation that mean nothing elsewhere."""


def export_campaign(ledger: Ledger, directory: Path, name: str, output: Path) -> Path:
    """Write the zip, whole or not at all; a campaign at work may be exported as it stands.

    Raises
    ------
    UserError
        No such campaign, or the file cannot be written.
    """
    record = ledger.campaign(name)
    follows = None if record is None else record.config.get("follows")
    names = [*reversed(predecessors(follows, ledger)), name]
    manifest = {"format": FORMAT, "campaign": name, "campaigns": names, "versions": versions()}
    with (
        atomic_path(output) as temporary,
        zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6, strict_timestamps=False
        ) as archive,
    ):
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
        for number, member in enumerate(names):
            _pack(archive, ledger, directory, member, PurePosixPath(str(number)))
    return output


def import_campaign(ledger: Ledger, directory: Path, path: Path) -> str:
    """Take up a campaign from a zip; its name. Campaigns that are here already stay as they are.

    Raises
    ------
    UserError
        The file is no such zip, a newer version wrote it, or the campaign is here already.
    """
    with _opened(path) as archive:
        manifest = _manifest(archive, path)
        names = [str(name) for name in manifest["campaigns"]]
        for number, name in enumerate(names):
            if name != names[-1] and ledger.campaign(name) is not None:
                continue
            _unpack(archive, ledger, directory, name, str(number), path)
    return names[-1]


def _pack(
    archive: zipfile.ZipFile, ledger: Ledger, directory: Path, name: str, place: PurePosixPath
) -> None:
    def add(path: Path, inner: PurePosixPath | Path) -> None:
        # What is at work has files that come and go.
        with contextlib.suppress(FileNotFoundError):
            archive.write(path, (place / inner).as_posix())

    archive.writestr(str(place / "ledger.json"), dump_campaign(ledger, name))
    home = directory / name
    for path in _files(home):
        inner = path.relative_to(home)
        if inner.parts[0] not in ("calculations", "sources"):
            add(path, "home" / inner)
    table = ledger.calculations(name)
    for key, folder in dict(zip(table["key"], table["directory"], strict=True)).items():
        for path in _files(Path(folder)):
            if path.name not in OF_THIS_MACHINE:
                add(path, Path("calculations", str(key)) / path.relative_to(folder))
    record = ledger.campaign(name)
    assert record is not None
    for source, label in _sources(record.config):
        if not source.exists():
            raise UserError(
                f"{source}, which campaign '{name}' reads, is not there; put it back, for without "
                "it nobody can go on with the campaign."
            )
        for path in _files(source) if source.is_dir() else [source]:
            deeper = path.relative_to(source) if source.is_dir() else Path()
            add(path, Path("sources", label) / deeper)


def _unpack(
    archive: zipfile.ZipFile, ledger: Ledger, directory: Path, name: str, place: str, path: Path
) -> None:
    home = directory / name
    if ledger.campaign(name) is None and home.exists():
        raise UserError(
            f"{home} is in the way: it belongs to no campaign in this ledger; move it away, or "
            "import into another directory (--directory)."
        )

    def move(table: str, row: dict[str, Any]) -> dict[str, Any]:
        if table == "campaign":
            if row["name"] != name:
                raise ValueError
            return {**row, "config": _moved(row["config"], home / "sources")}
        if table == "round" and row["model_dir"] is not None:
            return {**row, "model_dir": str(home / f"round-{row['number']}" / "model")}
        if table == "calculation":
            return {**row, "directory": str(home / "calculations" / row["key"])}
        return row

    def finish() -> None:
        unpacked.replace(home)

    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".import-") as scratch:
            unpacked = Path(scratch) / name
            _extract(archive, place, unpacked, path)
            text = archive.read(f"{place}/ledger.json").decode()
            load_campaign(ledger, text, move, finish)
    except OSError as error:
        raise unwritable(home, error) from error
    except (KeyError, ValueError, TypeError, *DAMAGED):
        raise UserError(f"{path} is damaged; export the campaign once more.") from None


def _extract(archive: zipfile.ZipFile, place: str, home: Path, path: Path) -> None:
    home.mkdir()
    for member in archive.infolist():
        parts = PurePosixPath(member.filename).parts
        if len(parts) < 3 or parts[0] != place or member.is_dir():
            continue
        inner = parts[2:] if parts[1] == "home" else parts[1:]
        if ".." in parts or not set(parts[1:2]) <= {"home", "calculations", "sources"}:
            raise UserError(f"{path} holds a file outside a campaign, '{member.filename}'.")
        target = home.joinpath(*inner)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)


def _sources(config: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Files and folders that a campaign reads, with their places in the archive."""
    for number, (node, key) in enumerate(_named_files(config)):
        source = Path(node[key])
        yield source, f"{number}-{source.name}"


def _moved(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings that read from ``folder`` what they read elsewhere."""
    moved = copy.deepcopy(dict(config))
    places = [inner for _, inner in _sources(moved)]
    for (node, key), inner in zip(list(_named_files(moved)), places, strict=True):
        node[key] = str(folder / inner)
    return moved


def _named_files(config: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for keys in SOURCES:
        node: Any = config
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        for key in FILES:
            if isinstance(node, dict) and isinstance(node.get(key), str):
                yield node, key


def _files(folder: Path) -> list[Path]:
    """Files below a folder, hidden ones (locks, half-written files) left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; check the path.") from None
    except (OSError, zipfile.BadZipFile):
        raise UserError(f"{path} is no zip file that `screen export` wrote.") from None


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(archive.read(MANIFEST))
        written = int(manifest["format"])
        assert manifest["campaigns"]
        # They become folders.
        assert all(re.fullmatch(NAME, name) for name in manifest["campaigns"])
    except (KeyError, ValueError, TypeError, AssertionError, *DAMAGED):
        raise UserError(f"{path} is no zip file that `screen export` wrote.") from None
    if written > FORMAT:
        raise UserError(
            f"{path} was written by a newer version of the software (format {written}, this one "
            f"reads {FORMAT}); install that version."
        )
    return dict(manifest)
