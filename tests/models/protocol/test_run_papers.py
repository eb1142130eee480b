"""Published models beside ours under the protocol, on a table of a few crystals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.cache import FeatureCache
from models.calibration import PARTS
from models.fitting import composition_of
from models.papers.names import OURS
from models.papers.training import Budget
from models.protocol.benchmark import (
    TAIL_MERITS,
    check_origin,
    load_outcome,
    origin,
    run_tail,
    save_outcome,
    tail_rows,
)
from models.protocol.card import read_card
from models.protocol.papers import PaperVariant, run_papers
from models.protocol.papers_table import tables
from models.protocol.splits import published, published_split
from models.protocol.suite import make_cards
from models.protocol.table import TensorTable
from models.protocol.variants import median, variants, without_error_bars
from screening.errors import UserError
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
    return TensorTable(
        known, **parts, groups=[composition_of(k) for k in known], systems=["cubic"] * len(known),
        digest="of the table", refused=0,
    )  # fmt: skip


@pytest.fixture
def variant(cache: FeatureCache) -> PaperVariant:
    return PaperVariant(NAME, cache, Budget(epochs=1))


def predict_ours(table: TensorTable, cache: FeatureCache, work: Path, *splits: int) -> None:
    """What a training of ours would have left: predictions of all parts, and of the tails."""
    made = origin(variants(cache)[OURS], table)
    rows = {f"split-{n}": published_split(table.material_ids, n).test for n in splits}
    rows |= {f"tail-{merit}": tail_rows(table, merit)[0] for merit in TAIL_MERITS}
    for name, own in rows.items():
        outcome = without_error_bars({part: 1.1 * table.truth(part)[own] for part in PARTS}, 9.0, 9)
        save_outcome(work / OURS / f"{name}.npz", own, outcome, made)
    facts = {"parameters": 5, "materials_per_cpu_second": 1.0, "violations": VIOLATIONS}
    (work / OURS / "measured.json").write_text(json.dumps(facts))


def quietly(_: str) -> None:
    pass


def test_ours_and_its_splits_stay_beside_a_published_model(
    variant: PaperVariant, table: TensorTable, cache: FeatureCache, tmp_path: Path
) -> None:
    work, cards = tmp_path / "work", tmp_path / "cards"
    for number in (1, 2):
        predict_ours(table, cache, work, number)
        run_papers([variant], table, [number], ["static"], work, cards, quietly, tail=number == 2)
        shutil.rmtree(work)
    published, ours = (read_card(cards / f"{name}.yaml") for name in (NAME, OURS))
    for card in (published, ours):
        assert card["figures"]["static"]["splits"] == [1, 2]
    assert ours["figures"]["ionic"]["splits"] == [1, 2]
    assert published["paired"]["static"]["mae_9"]["difference"] > 0
    text = tables(cards)
    assert f"| static, MAE(9), splits 1, 2 | {NAME} | {OURS} |" in text
    for merit in TAIL_MERITS:
        tails = {name: read_card(cards / f"{name}-tail-{merit}.yaml") for name in (NAME, OURS)}
        assert tails[OURS]["figures"]["recall_top_2"] == 1.0, "it errs by the same factor for all"
        assert tails[NAME]["figures"]["n_left_out"] == tails[OURS]["figures"]["n_left_out"] > 0
        assert tails[NAME]["budget"] == {"cpu_seconds_per_network": None, "epochs": 1}
        assert f"| {merit}: {NAME} |" in text


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
        (Budget(epochs=2), "of the table", "is of another budget; delete it"),
        (Budget(epochs=1), "of another", "is of another data; delete it"),
    ],
)
def test_a_result_is_not_taken_for_one_of_another_budget_or_table(
    budget: Budget, digest: str, words: str, variant: PaperVariant, table: TensorTable,
    tmp_path: Path,
) -> None:  # fmt: skip
    run_papers([variant], table, [1], ["static"], tmp_path, tmp_path / "cards", quietly)
    other, more = replace(variant, budget=budget), replace(table, digest=digest)
    for numbers in ([1], [2]):
        with pytest.raises(UserError, match=words):
            run_papers([other], more, numbers, ["static"], tmp_path, tmp_path / "cards", quietly)
    assert not (tmp_path / NAME / "split-2-static.npz").exists(), "noticed before it is trained"
    with pytest.raises(UserError, match=words):
        load_outcome(tmp_path / NAME / "split-1-static.npz", origin(other, more))


def test_tails_of_another_budget_are_refused_too(
    variant: PaperVariant, table: TensorTable, tmp_path: Path
) -> None:
    run_tail(NAME, variant, table, "mean", tmp_path, quietly)
    with pytest.raises(UserError, match=r"tail-mean.npz is of another budget"):
        run_tail(NAME, replace(variant, budget=Budget(1.0)), table, "mean", tmp_path, quietly)


def test_a_result_that_does_not_tell_its_origin_is_refused() -> None:
    with pytest.raises(UserError, match=r"old.npz does not tell data and budget; delete it"):
        check_origin(Path("old.npz"), None, {"sha256": "x", "budget": {}})
