"""A card goes on where the predictions behind it are gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.calibration import PARTS
from models.protocol.benchmark import origin, save_outcome, splits_card
from models.protocol.card import write_card
from models.protocol.continued import continued
from models.protocol.variants import without_error_bars
from screening.errors import UserError

N = 40
ANYTHING: Any = None
BUDGET = {"cpu_seconds_per_network": 600.0}


@pytest.fixture(scope="module")
def table() -> Any:
    random = np.random.default_rng(0)
    true = np.array([np.diag(random.uniform(2, 9, 3)) for _ in range(N)])
    return SimpleNamespace(
        truth=dict.fromkeys(PARTS, true).__getitem__,
        labelled=dict.fromkeys(PARTS, np.ones(N, dtype=bool)).__getitem__,
        systems=["cubic", "trigonal"] * (N // 2),
        digest="the table",
    )


def predict(table: Any, work: Path, model: str, *splits: int, part: str = "static") -> None:
    """Predictions with errors of their own for each model, part and split."""
    for number in splits:
        rows = np.arange(8 * number, 8 * number + 8)
        random = np.random.default_rng([number, len(model), len(part)])
        found = table.truth(part)[rows] * random.uniform(0.7, 1.4, (8, 1, 1))
        outcome = without_error_bars({part: found}, 10.0 * number, 9.0, {part: {"epochs": number}})
        path = work / model / f"split-{number}-{part}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_outcome(path, rows, outcome, origin(ANYTHING, table))


def made(table: Any, work: Path, reference: str | None = None, **changes: Any) -> dict[str, Any]:
    card = splits_card("painn", ANYTHING, table, work, reference)
    return {**card, "budget": BUDGET, **changes}


def test_what_is_gone_is_as_if_it_were_there(table: Any, tmp_path: Path) -> None:
    work, path = tmp_path / "work", tmp_path / "painn.yaml"
    predict(table, work, "painn", 1, 3)
    write_card(path, made(table, work))
    predict(table, work, "painn", 2, 4)
    whole = made(table, work)["figures"]["static"]
    shutil.rmtree(work)
    predict(table, work, "painn", 2, 4)
    card = continued(made(table, work), path)
    static = card["figures"]["static"]
    assert card["n_splits"] == 4 and static["splits"] == [1, 2, 3, 4]
    assert [run["epochs"] for run in static["runs"]] == [1, 2, 3, 4]
    for key in ("systems", "by_split", "runs"):
        assert static[key] == whole[key]
    for key in ("mean_over_splits", "sd_over_splits"):
        assert static[key] == pytest.approx(whole[key], abs=2e-4)
    assert static["pooled_splits"] == [2, 4]
    write_card(path, card)
    assert continued(made(table, work), path) == card, "and once more"


def test_a_card_that_knows_no_more_than_its_mean_is_of_one_split(
    table: Any, tmp_path: Path
) -> None:
    work, path = tmp_path / "work", tmp_path / "painn.yaml"
    for splits in ((1,), (1, 3)):
        predict(table, work, "painn", *splits)
        old = made(table, work)
        del old["figures"]["static"]["by_split"]
        write_card(path, old)
        shutil.rmtree(work)
        predict(table, work, "painn", 2)
        if splits == (1,):
            assert continued(made(table, work), path)["figures"]["static"]["splits"] == [1, 2]
        else:
            with pytest.raises(UserError, match="its splits, of which 1, 3 would be lost"):
                continued(made(table, work), path)
            predict(table, work, "painn", 1, 3)
            assert continued(made(table, work), path)["figures"]["static"]["splits"] == [1, 2, 3]
        shutil.rmtree(work)


def test_other_parts_and_the_comparison_with_ours_stay(table: Any, tmp_path: Path) -> None:
    work, path = tmp_path / "work", tmp_path / "painn.yaml"
    predict(table, work, "painn", 1, 2)
    predict(table, work, "physics", 1, 2)
    predict(table, work, "painn", 1, part="ionic")
    old = made(table, work, "physics")
    assert old["paired"]["splits"] == {"static": [1, 2]}
    write_card(path, old)
    shutil.rmtree(work)
    predict(table, work, "painn", 3)
    card = continued(made(table, work), path)
    assert card["figures"]["ionic"] == old["figures"]["ionic"]
    assert card["figures"]["static"]["splits"] == [1, 2, 3]
    assert card["paired"] == old["paired"], "ours is not there to compare with"
    predict(table, work, "physics", 3)
    assert continued(made(table, work, "physics"), path)["paired"]["splits"] == {"static": [1, 2]}
    predict(table, work, "painn", 1, 2)
    predict(table, work, "physics", 1, 2)
    more = continued(made(table, work, "physics"), path)["paired"]
    assert more["splits"] == {"static": [1, 2, 3]}
    assert more["static"] != old["paired"]["static"]


@pytest.mark.parametrize("other", [{"budget": {"cpu_seconds_per_network": 60.0}}, {"data": {}}])
def test_another_budget_or_other_data_are_another_card(
    table: Any, tmp_path: Path, other: dict[str, Any]
) -> None:
    work, path = tmp_path / "work", tmp_path / "painn.yaml"
    predict(table, work, "painn", 1)
    write_card(path, made(table, work, **other))
    shutil.rmtree(work)
    predict(table, work, "painn", 2)
    card = made(table, work)
    assert continued(card, path) == card
    assert continued(card, tmp_path / "none.yaml") == card
