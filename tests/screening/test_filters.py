"""Filters before the prediction: what each takes, in which order, and what is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from screening.errors import UserError
from screening.filters import Pool, filter_candidates
from screening.material import Material
from screening.settings import FilterSettings
from screening.tasks import get_task

ELEMENTS = {"Na", "Cl", "Si", "O", "Ti", "Zn", "S", "C", "Te"}
SETTINGS = FilterSettings(max_sites=9, min_band_gap=1.0)

Make = Callable[..., Material]


@pytest.fixture
def make(prototypes: dict[str, Any]) -> Make:
    """``make(prototype, id, gap)``."""

    def material(
        name: str, material_id: str = "", gap: float | None = 3.0, **more: Any
    ) -> Material:
        return Material(material_id or name, prototypes[name], band_gap=gap, **more)

    return material


def run(
    candidates: Sequence[Material],
    task: str = "high-k",
    settings: FilterSettings = SETTINGS,
    known: Sequence[Material] = (),
) -> Pool:
    known_to = {"encoder": ELEMENTS}
    return filter_candidates(candidates, get_task(task), settings, known_to, known)


def ids(pool: Pool) -> list[str]:
    return [m.material_id for m in pool.candidates]


def taken(pool: Pool, words: str) -> int:
    """How many candidates the filters with these words in their names took."""
    return sum(t.count for t in pool.taken if words in t.filter)


def test_each_filter_takes_its_own(make: Make, prototypes: dict[str, Any]) -> None:
    turned_salt = Material("salt again", prototypes["NaCl"] * (1, 1, 2), band_gap=3.0)
    candidates = [
        make("wurtzite"),
        make("rutile"),
        make("NaCl"),
        make("baddeleyite"),  # 12 atoms
        make("CO2"),  # 12 atoms
        make("quartz", gap=None),
        make("Te", gap=0.4),
        make("zincblende", gap=0.999),
        make("SrTiO3"),
        make("K2PtCl6"),
        turned_salt,
        make("anatase"),
    ]
    pool = run(candidates, known=[make("rutile", "known")])
    assert ids(pool) == ["NaCl", "anatase", "wurtzite"]
    assert taken(pool, "more than 9 atoms") == 2
    assert taken(pool, "gap unknown") == 1
    assert taken(pool, "band gap below 1 eV") == 2
    assert taken(pool, "element unknown to the encoder") == 2
    assert taken(pool, "already known") + taken(pool, "offered twice") == 2
    assert pool.n_offered == len(candidates) == len(pool.candidates) + taken(pool, "")


def test_limits_belong_to_what_passes(make: Make) -> None:
    candidates = [make("quartz", gap=1.0), make("NaCl", gap=50.0)]  # 9 atoms, 1 eV
    assert ids(run(candidates)) == ["NaCl", "quartz"]
    tighter = FilterSettings(max_sites=8, min_band_gap=1.0)
    assert ids(run(candidates, settings=tighter)) == ["NaCl"]
    wider = FilterSettings(max_sites=9, min_band_gap=1.001)
    assert ids(run(candidates, settings=wider)) == ["NaCl"]


def test_the_result_does_not_depend_on_the_order_offered(make: Make) -> None:
    names = ["NaCl", "rutile", "wurtzite", "zincblende", "anatase", "Te", "quartz"]
    candidates = [make(name) for name in names]
    expected = ids(run(candidates))
    assert expected == sorted(names)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(names))
        assert ids(run([candidates[i] for i in order])) == expected


def test_of_two_offers_of_a_crystal_the_first_id_stays(make: Make) -> None:
    pool = run([make("NaCl", "b"), make("NaCl", "a"), make("NaCl", "c"), make("rutile", "d")])
    assert ids(pool) == ["a", "d"]
    assert taken(pool, "offered twice") == 2


def test_a_task_without_gap_needs_none_unless_asked(make: Make) -> None:
    candidates = [make("rutile", gap=None), make("quartz", gap=0.2), make("NaCl")]
    free = FilterSettings(max_sites=9, min_band_gap=0.0)
    assert ids(run(candidates, "anisotropy", free)) == ["NaCl", "quartz", "rutile"]
    assert ids(run(candidates, "anisotropy", SETTINGS)) == ["NaCl"]
    assert ids(run(candidates, "high-k", free)) == ["NaCl", "quartz"]


def test_molecular_crystals_are_left_out_where_the_task_says_so(make: Make) -> None:
    wide = FilterSettings(max_sites=12, min_band_gap=0.0)
    candidates = [make("CO2"), make("NaCl"), make("Te")]
    assert ids(run(candidates, "anisotropy", wide)) == ["NaCl", "Te"]
    assert taken(run(candidates, "anisotropy", wide), "molecular") == 1
    assert ids(run(candidates, "high-k", wide)) == ["CO2", "NaCl", "Te"]


def test_cheap_filters_spare_the_expensive_ones_the_work(make: Make) -> None:
    """Structures of candidates that are too large or metallic are never parsed."""

    def unreadable(material_id: str, n_sites: int, gap: float, formula: str = "TiO2") -> Material:
        return Material(
            material_id, "not a structure", formula=formula, n_sites=n_sites, band_gap=gap
        )

    candidates = [
        make("NaCl"),
        unreadable("large", 10, 3.0),
        unreadable("metallic", 6, 0.1),
        unreadable("strange", 6, 3.0, "PoO2"),
    ]
    assert ids(run(candidates)) == ["NaCl"]
    with pytest.raises(UserError, match="The structure of small"):
        run([*candidates, unreadable("small", 6, 3.0)])


def test_an_empty_pool_is_explained(make: Make) -> None:
    candidates = [
        make("baddeleyite"),
        make("quartz", gap=None),
        make("zincblende", gap=0.1),
        make("wurtzite", gap=0.2),
        make("SrTiO3"),
        make("NaCl"),
    ]
    with pytest.raises(UserError) as caught:
        run(candidates, known=[make("NaCl", "known")])
    message = str(caught.value)
    for part in (
        "6 offered",
        "1 taken by 'more than 9 atoms'",
        "1 taken by 'band gap unknown'",
        "2 taken by 'band gap below 1 eV'",
        "1 taken by 'element unknown to the encoder'",
        "1 taken by 'already known",
        "0 left",
    ):
        assert part in message
    assert "loosen the filters" in message
    assert "\n" not in message
    with pytest.raises(UserError, match="0 offered; 0 left"):
        run([])


def test_the_summary_tells_what_happened(make: Make) -> None:
    pool = run([make("NaCl"), make("baddeleyite"), make("Te")])
    assert pool.summary() == "3 offered; 1 taken by 'more than 9 atoms'; 2 left"


def test_progress_is_told(make: Make) -> None:
    told: list[tuple[str, int, int]] = []
    filter_candidates(
        [make("NaCl"), make("Te")], get_task("high-k"), SETTINGS, {}, (),
        lambda *what: told.append(what),
    )  # fmt: skip
    assert ("filter: more than 9 atoms", 0, 2) in told
    assert len(told) >= 5
