"""Where candidates and known tensors come from."""

from __future__ import annotations

from screening.builtin import builtin_hidden, builtin_known
from screening.folders import read_folder
from screening.material import KnownMaterial, Material
from screening.settings import (
    BuiltinSource,
    CandidateSource,
    FolderSource,
    KnownSource,
    TableSource,
)
from screening.tables import read_candidates, read_known


def load_candidates(source: CandidateSource) -> list[Material]:
    """All candidates of a source, before any filter."""
    match source:
        case BuiltinSource():
            return [known.material for known in builtin_hidden()]
        case TableSource():
            return read_candidates(source.path)
        case FolderSource():
            return read_folder(source.path, source.band_gaps)


def load_known(source: KnownSource) -> list[KnownMaterial]:
    """Materials whose tensors are known at the start."""
    match source:
        case BuiltinSource():
            return builtin_known()
        case TableSource():
            return read_known(source.path)


def load_answers(source: KnownSource) -> list[KnownMaterial]:
    """The table that a replayed calculation is answered from."""
    match source:
        case BuiltinSource():
            return builtin_hidden()
        case TableSource():
            return read_known(source.path)
