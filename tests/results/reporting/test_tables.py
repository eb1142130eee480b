"""Tables and exports say what the view says, and the view what the ledger says."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure

from results.ledger import Ledger
from results.tables import export_validated, round_table, validated_table
from results.view import CampaignView
from screening.errors import UserError
from screening.tasks import get_task


@pytest.mark.parametrize("task", ["high-k", "anisotropy"])
def test_derived_numbers_follow_from_the_tensors(example: Any, task: str) -> None:
    view = example.view(task)
    rows = view.validated
    assert len(rows) > 5
    static = np.array(rows["electronic"].tolist()) + np.array(rows["ionic"].tolist())
    merit = get_task(task).figure_of_merit(rows["band_gap"].to_numpy(), static)
    assert np.allclose(rows["merit"], merit)
    assert np.allclose(rows["epsilon"], np.trace(static, axis1=1, axis2=2) / 3)
    assert np.allclose(rows[["lambda_1", "lambda_2", "lambda_3"]], np.linalg.eigvalsh(static))
    electronic = np.trace(np.array(rows["electronic"].tolist()), axis1=1, axis2=2) / 3
    assert np.allclose(rows["refractive_index"] ** 2, electronic)
    assert rows["merit"].is_monotonic_decreasing


def test_each_calculation_is_validated_refused_or_waiting(example: Any) -> None:
    calculations = example.calculations("high-k", 3, 8, 5)
    waiting = calculations["rank"] == 3
    calculations.loc[waiting, ["verdict", "detail", "electronic", "ionic"]] = None
    view = example.view(calculations=calculations)
    keys = [set(table["key"]) for table in (view.validated, view.refused, view.waiting)]
    assert sum(map(len, keys)) == len(set.union(*keys)) == 24
    assert len(view.waiting) == 3


def test_tensors_of_a_refused_calculation_are_no_result(example: Any) -> None:
    calculations = example.calculations("high-k", 1, 2, 5)
    calculations["verdict"] = ["accepted", "electronic tensor is the identity"]
    calculations["electronic"] = [np.eye(3).tolist()] * 2
    calculations["ionic"] = [(1000 * np.eye(3)).tolist()] * 2
    view = example.view(rounds=1, calculations=calculations)
    assert len(view.validated) == 1
    assert view.refused["epsilon"].isna().all()
    assert view.refused["merit"].isna().all()


def test_best_known_needs_both_parts_of_the_tensor(example: Any) -> None:
    known = example.table(20, seed=1)
    full = example.view(known=known)
    best = full.best_known
    assert best["merit"] == full.known["merit"].max()
    known.loc[known["material_id"] == best["material_id"], "ionic"] = None
    second = example.view(known=known).best_known
    assert second["merit"] == full.known["merit"].nlargest(2).iloc[1]
    known["ionic"] = None
    assert example.view(known=known).best_known is None


def test_a_campaign_without_anything_is_a_view(example: Any) -> None:
    nothing = pd.DataFrame()
    view = example.view(
        known=nothing, rounds=0, candidates=nothing, calculations=nothing, candidates_round=None
    )
    assert view.round_numbers == []
    assert view.best_known is None
    assert view.best_validated is None
    assert validated_table(view).empty


def test_round_table_has_every_pick_of_the_round(example: Any) -> None:
    view = example.view()
    table = round_table(view, 2)
    rows = view.calculations[view.calculations["round"] == 2].reset_index(drop=True)
    assert table["rank"].tolist() == list(range(1, 9))
    assert table["material"].tolist() == rows["material_id"].tolist()
    assert table["ε̄ predicted"].tolist() == rows["epsilon_mean"].tolist()
    assert table["E_g·ε̄ (eV) predicted"].tolist() == rows["merit_mean"].tolist()
    refused = table["verdict"] != "accepted"
    assert 0 < refused.sum() < 8
    assert table["ε̄ DFPT"].isna().tolist() == refused.tolist()
    assert table["E_g·ε̄ (eV) DFPT"].isna().tolist() == refused.tolist()
    assert table.loc[refused, "detail"].str.len().gt(0).all()


def test_round_table_shows_how_far_an_open_calculation_is(example: Any) -> None:
    calculations = example.calculations("high-k", 1, 4, 5)
    calculations[["verdict", "detail", "electronic", "ionic"]] = None
    calculations["status"] = ["planned", "submitted", "submitted", "planned"]
    table = round_table(example.view(rounds=1, calculations=calculations), 1)
    assert table["verdict"].tolist() == ["planned", "submitted", "submitted", "planned"]


def test_round_table_of_no_round_is_empty(example: Any) -> None:
    view = example.view()
    assert round_table(view, 9).empty
    assert list(round_table(view, 9)) == list(round_table(view, 1))


def test_validated_table_is_sorted_and_complete(example: Any) -> None:
    view = example.view("anisotropy")
    table = validated_table(view)
    assert table["λmax/λmin"].is_monotonic_decreasing
    assert np.allclose(table["λ3"] / table["λ1"], table["λmax/λmin"])
    assert np.allclose((table["λ1"] + table["λ2"] + table["λ3"]) / 3, table["ε̄"])
    accepted = view.calculations.query("verdict == 'accepted'")
    assert set(table["material"]) == set(accepted["material_id"])


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_export_can_be_read_back(example: Any, tmp_path: Path) -> None:
    view = example.view()
    materials = {known.material.material_id: known for known in example.materials(view)}
    files = export_validated(view, list(materials.values()), tmp_path / "new" / "directory")
    table, records, columns = files
    names = ["validated.csv", "validated.json", "validated.parquet"]
    assert [path.name for path in files] == names
    assert sorted(path.name for path in table.parent.iterdir()) == [path.name for path in files]
    objects = json.loads(records.read_text(), parse_constant=refuse)
    assert [entry["material_id"] for entry in objects] == view.validated["material_id"].tolist()
    for entry, (_, row) in zip(objects, view.validated.iterrows(), strict=True):
        known = materials[entry["material_id"]]
        assert Structure.from_dict(entry["structure"]) == known.material.structure
        assert entry["electronic"] == known.tensors.electronic.tolist()
        assert np.allclose(entry["static"], known.tensors.static)
        assert np.allclose(entry["eigenvalues"]["static"], np.linalg.eigvalsh(known.tensors.static))
        assert entry["refractive_index"] == pytest.approx(
            np.trace(entry["electronic"]) ** 0.5 / 3**0.5
        )
        assert entry["figure_of_merit"] == pytest.approx(entry["band_gap"] * entry["epsilon"])
        assert (entry["round"], entry["functional"]) == (row["round"], row["functional"])
        assert entry["n_sites"] == len(entry["structure"]["sites"])
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for entry, row in zip(objects, rows, strict=True):
        assert row["material_id"] == entry["material_id"]
        assert float(row["figure_of_merit"]) == entry["figure_of_merit"]
        assert float(row["lambda_3"]) == entry["lambda_3"]
        assert row["n_sites"] == str(entry["n_sites"])
    frame = pd.read_parquet(columns)
    for entry, row in zip(objects, frame.to_dict("records"), strict=True):
        assert json.loads(row["structure"]) == entry["structure"]
        for part in ("electronic", "ionic", "static"):
            assert np.array(row[f"eps_{part}"].tolist()).tolist() == entry[part]


def test_export_twice_writes_the_same_bytes(example: Any, tmp_path: Path) -> None:
    view = example.view()
    first = [p.read_bytes() for p in export_validated(view, example.materials(view), tmp_path)]
    second = [p.read_bytes() for p in export_validated(view, example.materials(view), tmp_path)]
    assert first == second


def test_export_of_nothing_and_of_unknown_gaps(example: Any, tmp_path: Path) -> None:
    empty = example.view(calculations=pd.DataFrame())
    table, records, _ = export_validated(empty, [], tmp_path)
    assert json.loads(records.read_text()) == []
    assert "figure_of_merit" in table.read_text()
    calculations = example.calculations("anisotropy", 1, 3, 5).assign(band_gap=None)
    view = example.view("anisotropy", rounds=1, calculations=calculations)
    _, records, _ = export_validated(view, example.materials(view), tmp_path)
    objects = json.loads(records.read_text(), parse_constant=refuse)
    assert objects
    assert all(entry["band_gap"] is None and entry["figure_of_merit"] > 1 for entry in objects)


def test_export_says_what_is_wrong(example: Any, tmp_path: Path) -> None:
    view = example.view()
    with pytest.raises(ValueError, match=view.validated["material_id"].iloc[0]):
        export_validated(view, [], tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Cannot write"):
        export_validated(view, example.materials(view), tmp_path / "file")


def test_view_of_a_ledger(samples: Any, tmp_path: Path) -> None:
    url = str(tmp_path / "ledger.sqlite")
    samples.run(url, "alpha", n_rounds=2, n_picks=3, n_candidates=20)
    ledger = Ledger(url)
    view = CampaignView.from_ledger(ledger, "alpha")
    assert (view.name, view.task.name, view.seed, view.status) == ("alpha", "high-k", 7, "finished")
    assert view.config == {"task": "high-k", "rounds": 2}
    assert view.versions == {"screen": "0.1"}
    assert view.round_numbers == [1, 2]
    assert view.metrics == {1: {"mae": 0.1}, 2: {"mae": 0.1}}
    assert view.seconds[2] == {"train": {"wall_s": 2.0, "cpu_s": 1.0}}
    assert (len(view.candidates), view.candidates_round) == (20, 2)
    assert (len(view.known), view.known["epsilon"].notna().sum()) == (4, 2)
    assert (len(view.validated), len(view.refused), len(view.waiting)) == (4, 2, 0)
    expected = ledger.calculations("alpha").set_index("key")
    for _, row in view.validated.iterrows():
        static = np.add(expected.at[row["key"], "electronic"], expected.at[row["key"], "ionic"])
        assert row["epsilon"] == pytest.approx(np.trace(static) / 3)
    _, records, _ = export_validated(view, ledger, tmp_path)
    objects = json.loads(records.read_text(), parse_constant=refuse)
    assert [entry["material_id"] for entry in objects] == view.validated["material_id"].tolist()
    hashes = {samples.material(i).material_id: samples.material(i).structure_hash for i in range(6)}
    assert all(entry["structure_hash"] == hashes[entry["material_id"]] for entry in objects)


def test_view_at_every_step_of_a_campaign(samples: Any, tmp_path: Path) -> None:
    url = str(tmp_path / "ledger.sqlite")
    opened: list[Ledger] = []
    sizes = {"n_rounds": 1, "n_picks": 2, "n_candidates": 3}
    for i, step in enumerate(samples.steps(opened, url, "alpha", **sizes)):
        step()
        if i > 0:
            view = CampaignView.from_ledger(Ledger(url), "alpha")
            export_validated(view, Ledger(url), tmp_path)
            judged = len(view.validated) + len(view.refused) + len(view.waiting)
            assert judged == len(view.calculations)
    assert len(view.validated) == 1


def test_no_such_campaign(samples: Any, tmp_path: Path) -> None:
    samples.run(str(tmp_path / "ledger.sqlite"), "alpha", n_rounds=1)
    with pytest.raises(UserError, match="beta"):
        CampaignView.from_ledger(Ledger(str(tmp_path / "ledger.sqlite")), "beta")
