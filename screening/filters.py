"""Filters that a candidate passes before anything is predicted, and how many each one took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from screening.bonding import is_layered, is_molecular
from screening.errors import UserError
from screening.hydrogen import lacks_hydrogen
from screening.identity import CrystalIndex
from screening.material import Material
from screening.progress import NamedProgress
from screening.settings import FilterSettings
from screening.tasks import Task

Test = Callable[[Material], bool]


class NothingLeftError(UserError):
    """No candidate has passed the filters."""


@dataclass(frozen=True)
class Taken:
    """How many candidates a filter took, and more where that helps: elements and how often."""

    filter: str
    count: int
    detail: str = ""


@dataclass(frozen=True)
class Pool:
    """Candidates that passed, in order of their id, and what happened to the others."""

    candidates: list[Material]
    n_offered: int
    taken: list[Taken]

    def summary(self) -> str:
        """One line: ``17895 offered; 10905 taken by 'more than 20 atoms'; …; 6500 left``."""
        steps = [
            f"{t.count} taken by '{t.filter}'" + (f" ({t.detail})" if t.detail else "")
            for t in self.taken
            if t.count
        ]
        return "; ".join([f"{self.n_offered} offered", *steps, f"{len(self.candidates)} left"])


def filter_candidates(
    candidates: Sequence[Material],
    task: Task,
    settings: FilterSettings,
    elements: Mapping[str, Collection[str]],
    known: Sequence[Material],
    progress: NamedProgress | None = None,
) -> Pool:
    """Apply all filters, cheap ones first.

    Parameters
    ----------
    elements
        Whose symbols of elements, by the name of what has to know them: the encoder, the engine.
    known
        Materials with known tensors.

    Raises
    ------
    NothingLeftError
        Nothing is left; the message says which filter took how many.
    """
    known_crystals, offered_crystals = CrystalIndex(known), CrystalIndex()

    def is_first(material: Material) -> bool:
        if material in offered_crystals:
            return False
        offered_crystals.add(material)
        return True

    gap_name = f"band gap below {settings.min_band_gap:g} eV"
    tests: list[tuple[str, Test]] = [
        (f"more than {settings.max_sites} atoms", lambda m: m.n_sites <= settings.max_sites)
    ]
    if task.needs_band_gap or settings.min_band_gap > 0:
        tests += [
            ("band gap unknown", lambda m: m.band_gap is not None),
            (gap_name, lambda m: (m.band_gap or 0.0) >= settings.min_band_gap),
        ]
    strange = {f"element unknown to the {who}": frozenset(its) for who, its in elements.items()}
    tests += [
        (name, lambda m, its=its: its.issuperset(m.elements))  # type: ignore[misc]
        for name, its in strange.items()
    ]
    tests += [
        ("already known", lambda m: m not in known_crystals),
        ("offered twice", is_first),
    ]
    if settings.exclude_hydrogen_missing:
        tests.append(("hydrogen missing", lambda m: not lacks_hydrogen(m.structure)))
    if task.exclude_molecular:
        tests.append(("molecular crystal", lambda m: not is_molecular(m.structure)))
    if settings.exclude_layered:
        tests.append(("layered crystal", lambda m: not is_layered(m.structure)))
    left = sorted(candidates, key=lambda m: m.material_id)
    taken = []
    for name, test in tests:
        passed: list[Material] = []
        lost: list[Material] = []
        for i, material in enumerate(left):
            if progress is not None and i % 50 == 0:
                progress(f"filter: {name}", i, len(left))
            (passed if test(material) else lost).append(material)
        detail = _strangers(lost, strange[name]) if name in strange else ""
        taken.append(Taken(name, len(lost), detail))
        left = passed
    pool = Pool(left, len(candidates), taken)
    if not left:
        raise NothingLeftError(
            f"No candidate is left after the filters ({pool.summary()}); "
            "loosen the filters or offer other candidates."
        )
    return pool


def _strangers(materials: Sequence[Material], elements: Collection[str]) -> str:
    """Elements that were in the way, the most frequent first: ``Ac 12, Th 3``."""
    count = Counter(symbol for m in materials for symbol in set(m.elements) - set(elements))
    ordered = sorted(count.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{symbol} {n}" for symbol, n in ordered)
