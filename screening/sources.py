"""Where candidates and known tensors come from."""

from __future__ import annotations

from screening.builtin import builtin_hidden, builtin_known
from screening.folders import read_folder
from screening.gaps import give_gaps
from screening.material import KnownMaterial, Material
from screening.pulling import PullContext, PulledCandidates, PulledKnown, local
from screening.settings import (
    AseSource,
    BuiltinSource,
    CandidateSource,
    FolderSource,
    KnownSource,
    MaterialsProjectLabels,
    MaterialsProjectSource,
    OptimadeSource,
    TableSource,
)
from screening.tables import read_candidates, read_known


def pull_candidates(source: CandidateSource, context: PullContext) -> PulledCandidates:
    """All usable candidates of a source before any filter, with what was refused."""
    match source:
        case BuiltinSource():
            return local([known.material for known in builtin_hidden()], "built-in data")
        case TableSource():
            pulled = local(read_candidates(source.path), str(source.path))
            give_gaps(pulled.items, None, source.assumed_band_gap, context, str(source.path))
        case FolderSource():
            pulled = local(read_folder(source.path, source.band_gaps), str(source.path))
            give_gaps(pulled.items, None, source.assumed_band_gap, context, str(source.path))
        case AseSource():
            from screening.ase_files import read_ase

            pulled = read_ase(source.path)
            what = str(source.path)
            give_gaps(pulled.items, source.band_gaps, source.assumed_band_gap, context, what)
        case OptimadeSource():
            from screening.optimade import pull_optimade

            pulled = pull_optimade(source, context)
            what = f"provider {source.provider}"
            give_gaps(pulled.items, source.band_gaps, source.assumed_band_gap, context, what)
        case MaterialsProjectSource():
            from screening.mp.source import pull_candidates as pull_from_mp

            return pull_from_mp(source, context)
    return pulled


def pull_known(source: KnownSource, context: PullContext) -> PulledKnown:
    """Materials whose tensors are known at the start, with what was refused."""
    match source:
        case BuiltinSource():
            return local(builtin_known(), "built-in data")
        case TableSource():
            return local(read_known(source.path), str(source.path))
        case MaterialsProjectLabels():
            from screening.mp.source import pull_known as pull_from_mp

            return pull_from_mp(source, context)


def load_candidates(source: CandidateSource) -> list[Material]:
    """The candidates alone; a key comes from the environment or pymatgen's settings."""
    return pull_candidates(source, PullContext()).items


def load_known(source: KnownSource) -> list[KnownMaterial]:
    """The known materials alone."""
    return pull_known(source, PullContext()).items


def load_answers(source: KnownSource, context: PullContext | None = None) -> list[KnownMaterial]:
    """The table that a replayed calculation is answered from."""
    if isinstance(source, BuiltinSource):
        return builtin_hidden()
    return pull_known(source, context or PullContext()).items
