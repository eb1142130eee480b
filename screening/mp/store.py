"""Local copies of the Materials Project: one directory per question and database version.

::

    <cache>/materials-project/<question>/<database version>/page-0-0000000.parquet …
                                                            manifest.json

Pages are written as they come, each whole or not at all, and stay when a pull is cut off; the
manifest is written last and makes the copy complete. A complete copy is never changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screening.errors import UserError
from screening.io import atomic_path, atomic_write, stable_hash, unwritable

if TYPE_CHECKING:
    import pyarrow as pa

LAYOUT = 1
"""Of the files below a version's directory; a copy with another number is not read."""

COLUMNS = ("material_id", "summary", "structure", "dielectric")

CLOCK_TOLERANCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Row:
    """One document as it came; ``structure`` and ``dielectric`` are JSON text or absent.

    ``material_id`` is empty where a document has none.
    """

    material_id: str
    summary: str
    structure: str | None
    dielectric: str | None


@dataclass(frozen=True)
class Manifest:
    """What a complete copy says of itself."""

    layout: int
    database_version: str
    pulled_at: str
    endpoint: str
    question: dict[str, Any]
    documents: int
    pages: list[str]
    requests: int
    unmatched: int = 0
    """Dielectric documents whose material has no summary document."""


class Store:
    """All copies of the answer to one question.

    Parameters
    ----------
    cache
        Root of everything kept for this user.
    question
        Endpoint, filters and fields, as plain JSON.
    """

    def __init__(self, cache: Path, question: dict[str, Any]) -> None:
        self.question = question
        name = f"{question['what']}-{stable_hash(question)[:16]}"
        self.root = cache / "materials-project" / name

    def copy(self, version: str) -> Copy:
        """The copy of a database version, complete or not."""
        return Copy(self.root / version)

    def complete(self, version: str) -> Manifest | None:
        """The manifest of a version's copy if that is complete.

        Raises
        ------
        UserError
            It was written by a newer version of this software.
        """
        return self.copy(version).manifest()

    def newest(self) -> Manifest | None:
        """The complete copy that was made last."""
        if not self.root.is_dir():
            return None
        found = [self.complete(path.name) for path in self.root.iterdir() if path.is_dir()]
        manifests = [manifest for manifest in found if manifest is not None]
        return max(manifests, key=lambda m: (m.pulled_at, m.database_version), default=None)

    def versions(self) -> list[str]:
        """Database versions with a complete copy."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if p.is_dir() and self.complete(p.name))

    def has_other_layout(self) -> bool:
        """Whether there are copies of an older layout, which are left alone."""
        return any(0 <= _layout(path) < LAYOUT for path in self.root.glob("*/manifest.json"))


class Copy:
    """The pages and the manifest of one database version."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def manifest(self) -> Manifest | None:
        """The manifest; None where the copy is incomplete, damaged or of an older layout.

        Raises
        ------
        UserError
            It was written by a newer version of this software.
        """
        path = self.directory / "manifest.json"
        layout = _layout(path)
        if layout > LAYOUT:
            raise UserError(
                f"The local copy {self.directory} was written by a newer version of this software "
                f"(layout {layout}, this one reads {LAYOUT}); upgrade, or set SCREEN_CACHE to "
                "another directory."
            )
        if layout != LAYOUT:
            return None
        try:
            manifest = Manifest(**json.loads(path.read_text(encoding="utf-8")))
            datetime.fromisoformat(manifest.pulled_at)
        except (OSError, ValueError, TypeError):
            return None
        whole = all(_total(self.directory / name) is not None for name in manifest.pages)
        return manifest if whole else None

    def finish(self, manifest: Manifest) -> None:
        """Declare the copy complete."""
        text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False)
        atomic_write(self.directory / "manifest.json", text)

    def page(self, sweep: int, skip: int) -> tuple[int, int] | None:
        """Rows of a page that is on disk and the total at its time; None where it is not."""
        return _total(self.directory / _name(sweep, skip))

    def write_page(self, sweep: int, skip: int, rows: list[Row], total: int) -> None:
        """Put a page on disk."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
        schema = pa.schema([(name, pa.large_string()) for name in COLUMNS])
        about = {"layout": str(LAYOUT), "total": str(total)}
        table = pa.table(columns, schema=schema).replace_schema_metadata(about)
        path = self.directory / _name(sweep, skip)
        with atomic_path(path) as temporary:
            try:
                pq.write_table(table, temporary, compression="zstd")
            except pa.ArrowException as error:  # a full disk, when pyarrow does not say OSError
                raise unwritable(path, OSError(str(error))) from None

    def page_names(self) -> list[str]:
        """Names of the pages on disk, in order."""
        return sorted(path.name for path in self.directory.glob("page-*.parquet"))

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Rows of the named pages; one without an id, which may lie on two pages, once.

        Raises
        ------
        UserError
            A page cannot be read.
        """
        nameless: set[str] = set()
        for name in names:
            for row in (Row(**row) for row in self._table(name).to_pylist()):
                if not row.material_id:
                    if row.summary in nameless:
                        continue
                    nameless.add(row.summary)
                yield row

    def different(self, names: Sequence[str]) -> int:
        """Different documents in the named pages; without an id their content tells them apart."""
        seen: set[str] = set()
        for name in names:
            rows = self._table(name, ["material_id", "summary"]).to_pylist()
            seen |= {row["material_id"] or row["summary"] for row in rows}
        return len(seen)

    def ids(self, names: Sequence[str], having: str) -> list[str]:
        """Ids of the named pages' rows that have something in the column ``having``."""
        ids = []
        for name in names:
            table = self._table(name, sorted({"material_id", having}))
            ids += table.filter(table[having].is_valid())["material_id"].to_pylist()
        return ids

    def write_columns(self, name: str, columns: dict[str, list[Any]]) -> None:
        """Keep something made from the pages beside them; columns of text."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(column, pa.large_string()) for column in columns])
        with atomic_path(self.directory / name) as temporary:
            pq.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")

    def read_columns(self, name: str) -> list[dict[str, Any]] | None:
        """Rows of what :meth:`write_columns` kept; None where it is absent or damaged."""
        try:
            return list(self._table(name).to_pylist())
        except UserError:
            return None

    def discard(self) -> None:
        """Take away the pages of a copy that can no longer be completed."""
        for name in self.page_names():
            (self.directory / name).unlink(missing_ok=True)

    def _table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.directory / name
        try:
            return pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowException):
            raise UserError(
                f"The local copy {path} is damaged; delete {self.directory} and pull again."
            ) from None


def age(manifest: Manifest, now: datetime) -> str:
    """How old a copy is, in words: ``pulled on 2026-11-21, 3 days ago``."""
    pulled = datetime.fromisoformat(manifest.pulled_at).astimezone(UTC)
    day = f"pulled on {pulled:%Y-%m-%d}"
    since = now - pulled
    if since < -CLOCK_TOLERANCE:
        return f"{day}, which this machine's clock says is in the future; is the clock right?"
    days = since.days
    if days >= 1:
        return f"{day}, {days} day{'s' if days > 1 else ''} ago"
    hours = max(0, int(since.total_seconds() // 3600))
    return f"{day}, {hours} hour{'s' if hours != 1 else ''} ago" if hours else f"{day}, just now"


def _name(sweep: int, skip: int) -> str:
    return f"page-{sweep}-{skip:07d}.parquet"


def _layout(manifest: Path) -> int:
    """Layout that a manifest gives; −1 where there is none that can be read."""
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))["layout"]
        return int(found)
    except (OSError, ValueError, TypeError, KeyError):
        return -1


def _total(page: Path) -> tuple[int, int] | None:
    """Rows in a page and the total it was told; None where it is absent or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(page)
        about = metadata.metadata or {}
        if int(about[b"layout"]) != LAYOUT:
            return None
        return int(metadata.num_rows), int(about[b"total"])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
