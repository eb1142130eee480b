"""What every source of crystals gives: materials, what was refused and why, where it came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import SecretStr

from screening.io import cache_directory
from screening.material import KnownMaterial, Material
from screening.progress import NamedProgress

T = TypeVar("T")

KeyProvider = Callable[[], SecretStr | None]

EXAMPLES = 3


def _no_progress(what: str, done: int, total: int) -> None: ...


def _no_note(text: str) -> None: ...


def _no_key() -> SecretStr | None:
    return None


@dataclass(frozen=True)
class PullContext:
    """What a source may use while it fetches.

    Attributes
    ----------
    key
        Where to look for a key last, after the environment and pymatgen's settings.
    progress
        Called with what is being done, how much is done and of how much.
    note
        Called with one sentence that a person should read.
    cache
        Root of the local copies.
    pinned
        Database versions that a campaign began with, by :attr:`Pulled.pin`; these, not the newest,
        are used again.
    """

    key: KeyProvider = _no_key
    progress: NamedProgress = _no_progress
    note: Callable[[str], None] = _no_note
    cache: Path = field(default_factory=cache_directory)
    pinned: dict[str, str] = field(default_factory=dict)


class Refusals:
    """Records that were not taken, by reason; nothing disappears without a trace."""

    def __init__(self) -> None:
        self._ids: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, material_id: str) -> None:
        """Count one record under a reason."""
        self._ids[reason].append(material_id)

    def update(self, other: Refusals) -> None:
        """Count all of another collection too."""
        for reason, ids in other._ids.items():
            self._ids[reason].extend(ids)

    def __len__(self) -> int:
        return sum(len(ids) for ids in self._ids.values())

    def counts(self) -> dict[str, int]:
        """How many for each reason, the most frequent first."""
        ordered = sorted(self._ids.items(), key=lambda item: (-len(item[1]), item[0]))
        return {reason: len(ids) for reason, ids in ordered}

    def examples(self, reason: str) -> list[str]:
        """The first few ids of a reason, in order of the id."""
        return sorted(self._ids[reason])[:EXAMPLES]

    def ids(self, reason: str) -> list[str]:
        """All ids of a reason."""
        return sorted(self._ids[reason])


@dataclass(frozen=True)
class Pulled(Generic[T]):
    """The answer of a source.

    Attributes
    ----------
    items
        Materials, or known materials, in order of their id.
    offered
        How many records the source has for the question.
    refused
        Records that cannot be used at all, with reasons.
    partly
        Records taken with one part missing (for instance the ionic tensor), with reasons.
    provenance
        Where it comes from, as plain JSON: endpoint, database version, date, requests made.
    pin
        Name of what :attr:`PullContext.pinned` may fix, and its value; None for local files.
    """

    items: list[T]
    offered: int
    refused: Refusals = field(default_factory=Refusals)
    partly: Refusals = field(default_factory=Refusals)
    provenance: dict[str, Any] = field(default_factory=dict)
    pin: tuple[str, str] | None = None

    def summary(self) -> str:
        """One line for a person."""
        parts = [f"{self.offered} offered"]
        parts += [f"{n} refused: {reason}" for reason, n in self.refused.counts().items()]
        parts += [f"{n} in part: {reason}" for reason, n in self.partly.counts().items()]
        return "; ".join([*parts, f"{len(self.items)} taken"])

    def to_dict(self) -> dict[str, Any]:
        """Counts, examples and provenance as plain JSON."""
        return {
            "offered": self.offered,
            "taken": len(self.items),
            "refused": _described(self.refused),
            "in_part": _described(self.partly),
            **self.provenance,
        }


PulledCandidates = Pulled[Material]
PulledKnown = Pulled[KnownMaterial]


def _described(refusals: Refusals) -> list[dict[str, Any]]:
    return [
        {"reason": reason, "count": n, "examples": refusals.examples(reason)}
        for reason, n in refusals.counts().items()
    ]


def local(items: Sequence[T], what: str) -> Pulled[T]:
    """The answer of a source that reads files."""
    return Pulled(list(items), len(items), provenance={"source": what})
