"""Pulling: whole, polite, and no more than has changed.

The Materials Project's consolidated data change only with its database version, which the
heartbeat gives without a key. So a complete copy of the current version is used as it is. Of a new
version, light pages (everything but structures and tensors) tell which documents have changed;
only those are fetched whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from screening.errors import UserError
from screening.http import PoliteSession, UnreachableError
from screening.mp.api import (
    DIELECTRIC,
    PAGE,
    SUMMARY,
    Document,
    Heartbeat,
    MaterialsProjectApi,
    Page,
    utc_now,
)
from screening.mp.key import Key, find_key
from screening.mp.store import CLOCK_TOLERANCE, LAYOUT, Copy, Manifest, Row, Store, age
from screening.pulling import PullContext

LIGHT = (
    "material_id", "formula_pretty", "nsites", "volume", "density", "symmetry", "band_gap",
    "is_metal", "energy_above_hull", "deprecated", "last_updated",
)  # fmt: skip
"""Fields of a summary document without its structure: about 400 bytes."""
SCALARS = ("e_total", "e_ionic", "e_electronic", "n")
TENSORS = (
    "material_id", "total", "ionic", "electronic", "e_total", "e_ionic", "e_electronic", "n",
    "nsites", "volume", "symmetry", "deprecated", "last_updated",
)  # fmt: skip
SHAPES = ("last_updated", "formula_pretty", "nsites", "volume", "density", *SCALARS)
"""Fields that change when the structure or the tensors of a document do."""

SWEEPS = 3
"""Passes over the pages before the server's count is taken to be wrong."""
EMPTY_PAGES = 5
RESTARTS = 3
HEARTBEAT_ATTEMPTS = 3


@dataclass(frozen=True)
class Question:
    """What is asked of the Materials Project."""

    what: str
    endpoint: str
    criteria: dict[str, Any]
    with_tensors: bool

    @property
    def fields(self) -> tuple[str, ...]:
        """Light fields of the summary documents."""
        return (*LIGHT, *SCALARS) if self.with_tensors else LIGHT

    def to_dict(self) -> dict[str, Any]:
        """As it names a local copy."""
        return {
            "what": self.what,
            "endpoint": self.endpoint,
            "criteria": self.criteria,
            "fields": sorted(self.fields),
        }


@dataclass(frozen=True)
class Answer:
    """A complete local copy and how it was come by."""

    manifest: Manifest
    copy: Copy
    requests: int
    pages_fetched: int
    documents_fetched: int


def pull(
    question: Question,
    context: PullContext,
    version: str | None = None,
    offline: bool = False,
    session: PoliteSession | None = None,
) -> Answer:
    """A complete copy of the answer: the one on disk if it is current, else a new one.

    Parameters
    ----------
    version
        Database version to use, and no other; None for the current one.
    offline
        Use what is on disk, whatever its age.

    Raises
    ------
    UserError
        No key or one that is not accepted; no network and no copy; the wanted version is neither
        on disk nor the server's; the server does not give all it says it has; a full disk.
    """
    store = Store(context.cache, question.to_dict())
    if version is not None and (manifest := store.complete(version)) is not None:
        return Answer(manifest, store.copy(version), 0, 0, 0)
    if offline:
        return _without_network(store, context, version, "as asked, without network")
    api = MaterialsProjectApi(question.endpoint, session)
    try:
        beat = _heartbeat(api, session)
    except UnreachableError as error:
        return _without_network(store, context, version, str(error))
    _note_clock(beat, context)
    if version is not None and version != beat.database_version:
        have = ", ".join(store.versions()) or "none"
        raise UserError(
            f"The Materials Project now serves database version {beat.database_version}, not "
            f"{version}, and there is no local copy of that (complete copies: {have}); take "
            "another database_version or bring the copy from where it was pulled."
        )
    if (manifest := store.complete(beat.database_version)) is not None:
        return Answer(manifest, store.copy(beat.database_version), api.requests, 0, 0)
    if store.has_other_layout():
        context.note(
            f"The local copy in {store.root} is of an older layout and is not read; pulling again."
        )
    for _ in range(RESTARTS):
        puller = _Puller(question, api, find_key(context.key), store, beat, context)
        try:
            answer = puller.run()
            after = api.heartbeat()
        except UnreachableError as error:
            raise UserError(
                f"{error}; what has come so far is kept, the same command goes on from there."
            ) from None
        if after.database_version == beat.database_version:
            return answer()
        context.note(
            f"The Materials Project went from version {beat.database_version} to "
            f"{after.database_version} during the pull; taking up what has changed."
        )
        puller.copy.discard()
        beat = after
    raise UserError("The Materials Project's database keeps changing; pull again later.")


def _heartbeat(api: MaterialsProjectApi, session: PoliteSession | None) -> Heartbeat:
    """The heartbeat, without the long patience that is right in the middle of a pull."""
    if session is not None:
        return api.heartbeat()
    quick = MaterialsProjectApi(api.endpoint, PoliteSession(attempts=HEARTBEAT_ATTEMPTS))
    api.requests += 1
    return quick.heartbeat()


def _without_network(store: Store, context: PullContext, version: str | None, why: str) -> Answer:
    manifest = store.newest() if version is None else None
    if manifest is None:
        older = " (there is one of an older layout)" if store.has_other_layout() else ""
        wanted = f" of database version {version}" if version is not None else ""
        raise UserError(
            f"There is no local copy of this pull{wanted}{older}, and none can be made now "
            f"({why}); run it once with a network."
        )
    context.note(
        f"Using the local copy of the Materials Project, database version "
        f"{manifest.database_version}, {age(manifest, utc_now())} ({why})."
    )
    return Answer(manifest, store.copy(manifest.database_version), 0, 0, 0)


def _note_clock(beat: Heartbeat, context: PullContext) -> None:
    if beat.server_time is None:
        return
    off = abs(utc_now() - beat.server_time)
    if off > CLOCK_TOLERANCE:
        context.note(
            f"This machine's clock is {off.total_seconds() / 60:.0f} minutes off the server's; "
            "the server's date is recorded, set the clock."
        )


class _Puller:
    """One pull of one database version."""

    def __init__(
        self,
        question: Question,
        api: MaterialsProjectApi,
        key: Key,
        store: Store,
        beat: Heartbeat,
        context: PullContext,
    ) -> None:
        self.question = question
        self.api = api
        self.key = key
        self.store = store
        self.beat = beat
        self.context = context
        self.copy = store.copy(beat.database_version)
        self.pages_fetched = 0
        self.documents_fetched = 0
        self.label = f"Materials Project {beat.database_version}: {question.what}"
        self._earlier: dict[str, Row] | None = None

    def run(self) -> Callable[[], Answer]:
        """Fetch what is missing; returns what declares the copy complete and gives the answer."""
        names, total = self._sweeps()
        unmatched = self._unmatched(names) if self.question.with_tensors else 0
        pulled_at = self.beat.server_time or datetime.now(UTC)
        manifest = Manifest(
            LAYOUT, self.beat.database_version, pulled_at.isoformat(timespec="seconds"),
            self.question.endpoint, self.question.to_dict(), total, names, self.api.requests,
            unmatched,
        )  # fmt: skip

        def finish() -> Answer:
            self.copy.finish(manifest)
            return Answer(
                manifest, self.copy, self.api.requests, self.pages_fetched, self.documents_fetched
            )

        return finish

    def _sweeps(self) -> tuple[list[str], int]:
        """Pages until there are as many different documents as the server says there are."""
        names: list[str] = []
        have = total = 0
        for sweep in range(SWEEPS):
            total = self._sweep(sweep)
            names = self.copy.page_names()
            have = self.copy.different(names)
            if have >= total:
                return names, total
        raise UserError(
            f"The Materials Project says it has {total} documents but gave only {have} different "
            f"ones in {SWEEPS} passes; try again later, what has come so far is kept."
        )

    def _sweep(self, sweep: int) -> int:
        """One pass over all pages; pages already on disk are not fetched again."""
        skip = empty = 0
        total: int | None = None
        while total is None or skip < total:
            found = self.copy.page(sweep, skip)
            if found is None:
                rows, total = self._fetch(skip)
                if not rows and skip < total:
                    empty += 1
                    if empty >= EMPTY_PAGES:
                        break
                    continue
                self.copy.write_page(sweep, skip, rows, total)
                n = len(rows)
            else:
                n, total = found
            if n == 0:
                break
            skip += n
            self.context.progress(self.label, min(skip, total), total)
        return total or 0

    def _fetch(self, skip: int) -> tuple[list[Row], int]:
        """Rows of one page, with structures taken from an earlier version where none changed."""
        earlier = self._from_earlier()
        heavy = () if earlier else ("structure",)
        page: Page = self.api.page(
            SUMMARY, self.key, self.question.criteria, (*self.question.fields, *heavy), skip, PAGE
        )
        self.pages_fetched += 1
        documents = [d if isinstance(d, dict) else {} for d in page.documents]
        kept = {str(d.get("material_id")): d for d in documents if d.get("material_id")}
        same = {i: earlier[i] for i, d in kept.items() if i in earlier and _same(earlier[i], d)}
        changed = [i for i in kept if i not in same]
        if heavy:
            structures = {i: kept[i].pop("structure", None) for i in changed}
        else:
            bodies = self.api.by_ids(SUMMARY, self.key, changed, ("material_id", "structure"))
            structures = {i: bodies.get(i, {}).get("structure") for i in changed}
        self.documents_fetched += len(changed)
        tensors: dict[str, Document] = {}
        if self.question.with_tensors:
            tensors = self.api.by_ids(DIELECTRIC, self.key, changed, TENSORS)
        rows = []
        for document in documents:
            material_id = str(document.get("material_id") or "")
            document.pop("structure", None)
            if material_id in same:
                structure = same[material_id].structure
                dielectric = same[material_id].dielectric
            else:
                structure = _text(structures.get(material_id))
                dielectric = _text(tensors.get(material_id))
            rows.append(Row(material_id, json.dumps(document), structure, dielectric))
        return rows, page.total

    def _from_earlier(self) -> dict[str, Row]:
        """Rows of the newest other version, by id; empty on the first pull."""
        if self._earlier is None:
            manifest = self.store.newest()
            self._earlier = {}
            if manifest is not None:
                copy = self.store.copy(manifest.database_version)
                self._earlier = {r.material_id: r for r in copy.rows(manifest.pages)}
        return self._earlier

    def _unmatched(self, names: Sequence[str]) -> int:
        """Dielectric documents in the database beyond those that were found by their material."""
        every = {"e_total_min": -1e12, "e_total_max": 1e12}
        total = self.api.page(DIELECTRIC, self.key, every, ("material_id",), 0, 1).total
        seen = set(self.copy.ids(names, having="dielectric"))
        return max(0, total - len(seen))


def _same(row: Row, document: Document) -> bool:
    """Whether structure and tensors of a document are those of an earlier copy's row."""
    earlier = json.loads(row.summary)
    if not document.get("last_updated") or row.structure is None:
        return False
    return all(earlier.get(name) == document.get(name) for name in SHAPES)


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value)
