"""Models side by side: only what was tested on the same splits stands in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.protocol.card import write_card
from models.protocol.papers_table import (
    facts_table,
    is_study,
    refractive_table,
    study_table,
    system_tables,
    tables,
    tail_table,
)


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


def test_the_extremes_merit_by_merit_with_ours_last() -> None:
    figures = {"n_left_out": 86, "recall_top_2": 0.5, "recall_top_5": 0.75, "log_error": 1.0}
    cards = [
        {"merit": merit, "variant": name, "figures": {**figures, "rank_correlation": -0.1}}
        for name in ("physics", "goectp-icom+pretrained", "dtnet")
        for merit in ("mean", "anisotropy")
    ]
    rows = [row.split(" | ")[0] for row in tail_table(cards).splitlines()[2:]]
    assert rows == [
        f"| {merit}: {name}"
        for merit in ("anisotropy", "mean")
        for name in ("dtnet", "goectp-icom+pretrained", "physics")
    ]
    assert tail_table(cards[:1]).endswith("| 86 | 0.50 | 0.75 | -0.10 | 1.00 |")


def test_refractive_indices_of_as_many_folds_as_there_are() -> None:
    def folds(*errors: float) -> dict[int, dict[str, float]]:
        return {i: {"mae": e, "rmse": 2 * e, "max_error": 10 * e} for i, e in enumerate(errors)}

    limited, unlimited = {"cpu_seconds_per_network": 240.0}, {"cpu_seconds_per_network": None}
    models = {
        "physics": {"budget": unlimited, "folds": folds(0.1, 0.3), "mae": 0.2, "sd": 0.1414},
        "dtnet": {"budget": limited, "folds": folds(0.4), "mae": 0.4, "sd": None},
    }
    assert refractive_table(models).splitlines()[2:] == [
        "| dtnet | 240 | 0.400 | 0.800 | 4.0 | 1 |",
        "| physics | – | 0.200 ± 0.141 | 0.400 | 3.0 | 2 |",
    ]


def run(**by_split: float) -> dict[str, Any]:
    """The same with what the table of layers tells."""
    made = card(**by_split)
    static = made["figures"]["static"]
    static["systems"]["all"]["mae_6"] = [2 * e for e in by_split.values()]
    static["runs"] = [{"cpu_seconds": 600.4, "epochs": 63}]
    return made


def test_layers_are_compared_on_the_splits_that_a_family_shares() -> None:
    cards = {
        "dtnet": run(s1=2.0, s2=8.0),
        "dtnet+layer-0": run(s1=3.0),
        "dtnet+random": run(s1=4.0),
        "goectp-icom": run(s1=5.0),
        "goectp-icom+pretrained": run(s1=6.0),
        "goectp-icom+1-layer": run(s1=7.0),
        "physics": {"figures": {}},
    }
    assert [name for name in cards if is_study(name, cards)] == [
        "dtnet+layer-0", "dtnet+random", "goectp-icom+1-layer"
    ]  # fmt: skip
    assert study_table(cards).splitlines()[2:] == [
        "| dtnet | 2.000 | 4.000 | 600 | 63 | 1 |",
        "| dtnet+layer-0 | 3.000 | 6.000 | 600 | 63 | 1 |",
        "| dtnet+random | 4.000 | 8.000 | 600 | 63 | 1 |",
        "| goectp-icom | 5.000 | 10.000 | 600 | 63 | 1 |",
        "| goectp-icom+1-layer | 7.000 | 14.000 | 600 | 63 | 1 |",
    ]
    assert not is_study("goectp+1-layer", cards), "nothing to compare it with"


def test_layers_without_the_static_part_or_without_a_split_in_common() -> None:
    cards = {
        "dtnet": run(s1=2.0),
        "dtnet+layer-0": run(s2=3.0),
        "dtnet+layer-1": {"figures": {"ionic": {}}},
        "goectp": {"figures": {"ionic": {}}},
        "goectp+1-layer": run(s3=5.0),
    }
    assert study_table(cards).splitlines()[2:] == [
        "| dtnet | 2.000 | 4.000 | 600 | 63 | 1 |",
        "| dtnet+layer-0 | 3.000 | 6.000 | 600 | 63 | 2 |",
        "| goectp+1-layer | 5.000 | 10.000 | 600 | 63 | 3 |",
    ]
    del cards["goectp+1-layer"], cards["dtnet+layer-0"]
    assert study_table(cards) == ""


def facts(**rate: float) -> dict[str, Any]:
    """A card with what the table of facts tells."""
    violations = {key: [0.0, 0.0] for key in ("rotation", "cell", "point_group")}
    own = {"parameters": 9, "cpu_seconds": 60.0, "epochs": 3, "violations": violations, **rate}
    return {"figures": {"static": {"runs": [own]}}, "hardware": "A; B"}


def test_throughputs_of_crystals_whose_features_lay_on_disk_are_marked() -> None:
    old = facts(materials_per_cpu_second=385.2)
    cards = {"dtnet+layer-0": old, "painn": old, "dtnet": facts(screened_per_cpu_second=5.31)}
    table, note = facts_table(cards).split("\n\n")
    assert [row.split(" | ")[4] for row in table.splitlines()[2:]] == ["385 †", "385", "5.31"]
    assert note.startswith("† With the encoder's features on disk")
    assert "†" not in facts_table({"painn": old})


def test_budgets_are_called_the_same_only_where_they_are(tmp_path: Path) -> None:
    def write(name: str, seconds: float | None) -> str:
        own = {"variant": name, "budget": {"cpu_seconds_per_network": seconds}, **facts(**rate)}
        del own["figures"]["static"]
        write_card(tmp_path / f"{name}.yaml", own)
        return tables(tmp_path).splitlines()[0]

    rate = {"screened_per_cpu_second": 1.0}
    assert write("physics", None).startswith("| model |"), "there is no published network"
    assert write("dtnet", 600.0) == (
        "Budget of each published network: 600 CPU seconds, all threads together (A; B), the same "
        "for all."
    )
    assert write("painn", None) == (
        "Budgets of the published networks differ, so that their errors cannot be compared, in CPU "
        "seconds, all threads together (A; B): 600 for dtnet; unlimited for painn."
    )
