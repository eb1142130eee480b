"""Published models beside ours under the protocol, on a table of a few crystals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from models.cache import FeatureCache
from models.calibration import PARTS
from models.fitting import composition_of
from models.papers.names import OURS
from models.papers.training import Budget
from models.protocol.benchmark import (
    COMPARED,
    TAIL_MERITS,
    check_origin,
    load_outcome,
    origin,
    run_tail,
    save_outcome,
    tail_rows,
)
from models.protocol.card import read_card, write_card
from models.protocol.papers import PaperVariant, run_papers
from models.protocol.papers_table import tables
from models.protocol.splits import published, published_split
from models.protocol.suite import make_cards
from models.protocol.table import TensorTable
from models.protocol.variants import EnsembleVariant, median, without_error_bars
from models.protocol.violations import RATE, measured
from models.settings import ModelSettings
from screening.errors import UserError
from screening.io import atomic_write
from screening.material import KnownMaterial, Material

NAME = "goectp+1-layer"
VIOLATIONS = {"rotation": [0, 0], "cell": [0, 0], "point_group": [0, 0]}


@pytest.fixture(scope="module")
def table(builtin: list[KnownMaterial]) -> TensorTable:
    """Built-in crystals under names that the published splits know: 3 in either test set."""
    by_letters: dict[str, list[str]] = {}
    for name, letters in published().items():
        by_letters.setdefault(letters[:2], []).append(name)
    names = [n for own in ("et", "te", "vt", "tv") for n in by_letters[own][:3]] + by_letters["tt"]
    known = [
        KnownMaterial(Material(name, k.material.structure), k.tensors, k.functional)
        for k, name in zip(builtin, names, strict=False)
    ]
    parts = {p: np.stack([getattr(k.tensors, p) for k in known]) for p in ("electronic", "ionic")}
    # Cubic crystals have no extremes of anisotropy; one is made up.
    parts["electronic"][-1, 2, 2] *= 1.5
    return TensorTable(
        known, **parts, groups=[composition_of(k) for k in known], systems=["cubic"] * len(known),
        digest="of the table", refused=0,
    )  # fmt: skip


@pytest.fixture
def variant(cache: FeatureCache) -> PaperVariant:
    return PaperVariant(NAME, cache, Budget(epochs=1))


@pytest.fixture
def own(cache: FeatureCache, quick: ModelSettings) -> EnsembleVariant:
    """Ours, trained in seconds and without force constants."""
    return EnsembleVariant(quick.model_copy(update={"physics_effort": 0}), cache)


def measure(work: Path) -> None:
    """What would have been measured of ours; its measurement takes minutes."""
    facts = {"parameters": 5, RATE: 1.0, "violations": VIOLATIONS}
    atomic_write(work / OURS / "measured.json", json.dumps(facts))


def predict_ours(own: EnsembleVariant, table: TensorTable, work: Path, *splits: int) -> None:
    """What a training of ours would have left: predictions of all parts, and of the tails."""
    made = origin(own, table)
    tested = {f"split-{n}": published_split(table.material_ids, n).test for n in splits}
    tested |= {f"tail-{merit}": tail_rows(table, merit)[0] for merit in TAIL_MERITS}
    for name, rows in tested.items():
        central = {part: 1.1 * table.truth(part)[rows] for part in PARTS}
        save_outcome(work / OURS / f"{name}.npz", rows, without_error_bars(central, 9.0, 9), made)
    measure(work)


def quietly(_: str) -> None:
    pass


def test_ours_and_its_splits_stay_beside_a_published_model(
    variant: PaperVariant, own: EnsembleVariant, table: TensorTable, tmp_path: Path
) -> None:
    work, cards = tmp_path / "work", tmp_path / "cards"
    for number in (1, 2):
        predict_ours(own, table, work, number)
        run_papers(
            [variant], own, table, [number], ["static"], work, cards, quietly, tail=number == 2
        )
        shutil.rmtree(work)
    published, ours = (read_card(cards / f"{name}.yaml") for name in (NAME, OURS))
    for card in (published, ours):
        assert card["figures"]["static"]["splits"] == [1, 2]
    assert ours["figures"]["ionic"]["splits"] == [1, 2]
    assert set(published["paired"]["static"]) == set(COMPARED)
    for metric in ("mae_9", "mae_9_below_100"):
        assert published["paired"]["static"][metric]["difference"] > 0
    text = tables(cards)
    assert f"| static, MAE(9), splits 1, 2 | {NAME} | {OURS} |" in text
    for merit in TAIL_MERITS:
        tails = {name: read_card(cards / f"{name}-tail-{merit}.yaml") for name in (NAME, OURS)}
        assert tails[OURS]["figures"]["recall_top_2"] == 1.0, "it errs by the same factor for all"
        assert tails[NAME]["figures"]["n_left_out"] == tails[OURS]["figures"]["n_left_out"] > 0
        assert tails[NAME]["budget"] == {"cpu_seconds_per_network": None, "epochs": 1}
        assert f"| {merit}: {NAME} |" in text


def test_a_table_without_extremes_has_no_tail(
    own: EnsembleVariant, table: TensorTable, tmp_path: Path
) -> None:
    same = np.stack([np.eye(3)] * len(table.known))
    alike = replace(table, electronic=same, ionic=same)
    with pytest.raises(UserError, match="stands out in 'anisotropy'"):
        run_tail(OURS, own, alike, "anisotropy", tmp_path, quietly)


def test_ours_is_trained_where_it_is_asked_for(
    own: EnsembleVariant, table: TensorTable, tmp_path: Path
) -> None:
    work, cards = tmp_path / "work", tmp_path / "cards"
    said: list[str] = []
    run_papers([], own, table, [1], ["static"], work, cards, said.append)
    assert any("no predictions of physics to compare with" in sentence for sentence in said)
    measure(work)
    run_papers([], own, table, [1], ["static"], work, cards, said.append, train_ours=True)
    card = read_card(cards / f"{OURS}.yaml")
    assert card["settings"] == own.settings.model_dump()
    assert card["figures"]["static"]["splits"] == [1]
    assert tables(cards).splitlines()[2].startswith("| physics | 5 |")


def test_missing_pretrained_weights_are_noticed_before_anything_is_trained(
    variant: PaperVariant, own: EnsembleVariant, table: TensorTable, tmp_path: Path
) -> None:
    both = [variant, replace(variant, name=f"{NAME}+pretrained")]
    with pytest.raises(UserError, match="no pretrained weights of goectp"):
        run_papers(both, own, table, [1], ["static"], tmp_path, tmp_path / "cards", quietly)
    assert not list(tmp_path.iterdir())


def test_a_card_of_several_splits_is_not_found_in_the_way_after_hours(
    variant: PaperVariant, own: EnsembleVariant, table: TensorTable, tmp_path: Path
) -> None:
    """One that has only their means: refused before anything is trained, or replaced at the end."""
    work, cards = tmp_path / "work", tmp_path / "cards"
    run_papers([variant], own, table, [1, 2], ["static"], work, cards, quietly)
    old = read_card(cards / f"{NAME}.yaml")
    del old["figures"]["static"]["by_split"]
    write_card(cards / f"{NAME}.yaml", old)
    for numbers, gone in (([1], "2"), ([3], "1, 2")):
        with pytest.raises(UserError, match=f"of which {gone} would be lost"):
            run_papers([variant], own, table, numbers, ["static"], tmp_path / "new", cards, quietly)
    assert not (tmp_path / "new").exists()
    said: list[str] = []
    run_papers([variant], own, table, [1, 2], ["static"], tmp_path / "new", cards, said.append)
    assert sum("stays as it is until there are predictions" in sentence for sentence in said) == 1
    static = read_card(cards / f"{NAME}.yaml")["figures"]["static"]
    assert static["splits"] == [1, 2] and "by_split" in static


def test_screening_starts_from_the_structure(
    cache: FeatureCache, prototypes: dict[str, Structure], encoded: list[int]
) -> None:
    crystals, calls = list(prototypes.values())[:4], []

    def predict(structures: Sequence[Structure], own: FeatureCache) -> np.ndarray:
        before = len(encoded)
        own.reduced(structures)
        calls.append(len(encoded) - before)
        return np.tile(np.eye(3), (len(structures), 1, 1))

    cache.reduced(crystals)
    assert measured(predict, crystals, cache)[RATE] > 0
    assert calls[:2] == [4, 4], "first turned, then as they are"


def test_splits_of_a_variant_of_ours_stay_in_its_card(table: TensorTable, tmp_path: Path) -> None:
    for number in (1, 2):
        make_cards(
            {"median": median}, table, [number], tmp_path / f"work-{number}", tmp_path, quietly,
            tail=False, unlike=False,
        )  # fmt: skip
    assert read_card(tmp_path / "median.yaml")["figures"]["static"]["splits"] == [1, 2]


@pytest.mark.parametrize(
    ("budget", "digest", "words"),
    [
        (Budget(epochs=2), "of the table", "differs in budget from what is asked for; delete it"),
        (Budget(epochs=1), "of another", "differs in data from what is asked for; delete it"),
    ],
)
def test_a_result_is_not_taken_for_one_of_another_budget_or_table(
    budget: Budget, digest: str, words: str, variant: PaperVariant, own: EnsembleVariant,
    table: TensorTable, tmp_path: Path,
) -> None:  # fmt: skip
    run_papers([variant], own, table, [1], ["static"], tmp_path, tmp_path / "cards", quietly)
    other, more = replace(variant, budget=budget), replace(table, digest=digest)
    for numbers in ([1], [2]):
        with pytest.raises(UserError, match=words):
            run_papers(
                [other], own, more, numbers, ["static"], tmp_path, tmp_path / "cards", quietly
            )
    assert not (tmp_path / NAME / "split-2-static.npz").exists(), "noticed before it is trained"
    with pytest.raises(UserError, match=words):
        load_outcome(tmp_path / NAME / "split-1-static.npz", origin(other, more))


def test_tails_of_another_budget_are_refused_too(
    variant: PaperVariant, table: TensorTable, tmp_path: Path
) -> None:
    run_tail(NAME, variant, table, "mean", tmp_path, quietly)
    with pytest.raises(UserError, match=r"tail-mean.npz differs in budget"):
        run_tail(NAME, replace(variant, budget=Budget(1.0)), table, "mean", tmp_path, quietly)


def test_a_result_that_does_not_tell_its_origin_is_refused() -> None:
    with pytest.raises(UserError, match=r"old.npz does not tell its data and budget; delete it"):
        check_origin(Path("old.npz"), None, {"sha256": "x", "budget": {}})
