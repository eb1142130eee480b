"""Models side by side: only what was tested on the same splits stands in one table."""

from __future__ import annotations

from typing import Any

from models.protocol.papers_table import system_tables


def card(**by_split: float) -> dict[str, Any]:
    """A card with the error of all systems on some splits."""
    values = list(by_split.values())
    systems = {"all": {"mae_9": values}, "triclinic": {"mae_9": [None, *values[1:]]}}
    splits = [int(name[1:]) for name in by_split]
    return {"figures": {"static": {"splits": splits, "systems": systems}}}


def test_all_models_on_the_splits_they_share_then_those_with_more() -> None:
    cards = {
        "dtnet": card(s1=2.0, s2=4.0),
        "painn": card(s1=1.0),
        "physics": card(s1=1.5, s2=2.5, s3=9.0),
    }
    first, second = (table.splitlines() for table in system_tables(cards, "static", "mae_9"))
    assert first[0] == "| static, MAE(9), split 1 | dtnet | painn | physics |"
    assert first[2:] == ["| all | 2.000 | **1.000** | 1.500 |"]
    assert second[0] == "| static, MAE(9), splits 1, 2 | dtnet | physics |"
    assert second[2] == "| all | 3.000 ± 1.414 | **2.000 ± 0.707** |"
    assert second[3] == "| triclinic | 4.000 | **2.500** |"


def test_a_model_without_a_split_in_common_stands_alone() -> None:
    cards = {"dtnet": card(s1=2.0, s3=2.0), "painn": card(s2=1.0), "physics": card(s1=1.0, s2=1.0)}
    alone, others = system_tables(cards, "static", "mae_9")
    assert alone.startswith("| static, MAE(9), split 2 | painn |")
    assert others.startswith("| static, MAE(9), split 1 | dtnet | physics |")


def test_a_part_that_only_ours_has_is_no_comparison() -> None:
    assert system_tables({"physics": card(s1=1.0)}, "static", "mae_9") == []
    assert system_tables({"dtnet": card(s1=1.0)}, "ionic", "mae_9") == []
