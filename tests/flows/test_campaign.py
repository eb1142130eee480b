"""Whole campaigns, from the command line to the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from screening.builtin import builtin_hidden, builtin_known
from screening.settings import FilterSettings

Ledgers = Callable[[Path], Any]


@pytest.fixture
def home(finished: Any) -> Path:
    """The directory of the finished campaign."""
    return finished[0] / "campaigns" / "high-k"


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    """What the built-in candidates that the default filter leaves hide, by id."""
    least = FilterSettings().min_band_gap
    hidden = {known.material.material_id: known for known in builtin_hidden()}
    return {name: known for name, known in hidden.items() if known.material.band_gap >= least}


def test_the_files_that_a_user_sees(finished: Any, home: Path, truth: dict[str, Any]) -> None:
    files = {"campaign.yaml", "report.html", "validated.csv", "validated.json"}
    assert all((home / name).stat().st_size for name in files)
    assert (home.parent / "ledger.sqlite").exists()
    rounds = sorted(home.glob("round-*"))
    assert [path.name for path in rounds] == ["round-1", "round-2", "round-3"]
    for path in rounds:
        assert {p.name for p in (path / "model").iterdir()} == {"model.json", "model.safetensors"}
        assert len(pd.read_csv(path / "selected.csv")) == 4
    sizes = [len(pd.read_parquet(path / "predictions.parquet")) for path in rounds]
    pool = len(truth)
    assert sizes == [pool, pool - 4, pool - 8], "every candidate that no earlier round has picked"
    calculations = [p for p in (home / "calculations").iterdir() if len(p.name) == 32]
    assert len(calculations) == 12
    for path in calculations:
        assert {"POSCAR", "calculation.json", "flow.json", "result.json"} <= {
            p.name for p in path.iterdir()
        }
    report = (home / "report.html").read_text()
    assert not [line for line in report.split("<") if line.startswith(("link", "script src"))]
    left = [p for p in home.rglob(".*") if p.is_file() and p.name not in (".lock", ".probe")]
    assert [p for p in left if p.parent.name != ".slots"] == [], "nothing half-written"


def test_what_comes_out_is_what_goes_in(finished: Any, home: Path, truth: dict[str, Any]) -> None:
    """The tensors of the validated materials are the hidden ones, each with its own structure."""
    from pymatgen.core import Structure

    found = json.loads((home / "validated.json").read_text())
    table = pd.read_csv(home / "validated.csv")
    assert [row["material_id"] for row in found] == list(table["material_id"])
    assert len(found) == len(finished[1].json["validated"]) > 0
    merits = [row["figure_of_merit"] for row in found]
    assert merits == sorted(merits, reverse=True)
    for row in found:
        known = truth[row["material_id"]]
        assert Structure.from_dict(row["structure"]) == known.material.structure
        for part in ("electronic", "ionic", "static"):
            assert np.allclose(row[part], getattr(known.tensors, part), atol=1e-6)
        static = known.tensors.static
        assert row["epsilon"] == pytest.approx(np.trace(static) / 3)
        assert row["figure_of_merit"] == pytest.approx(row["band_gap"] * np.trace(static) / 3)


def test_the_numbers_of_a_decision(finished: Any, home: Path, ledger_of: Ledgers) -> None:
    """Acquisition, ranks and picks follow from the members' tensors alone."""
    for number in (1, 2, 3):
        table = pd.read_parquet(home / f"round-{number}" / "predictions.parquet")
        electronic, ionic = (
            np.array(table[f"{part}_members"].map(_nested).tolist())
            for part in ("electronic", "ionic")
        )
        epsilon = np.trace(electronic + ionic, axis1=-2, axis2=-1) / 3
        merit = epsilon * table["band_gap"].to_numpy()[:, None]
        expected = merit.mean(axis=1) + 1.5 * merit.std(axis=1, ddof=1)
        assert np.allclose(table["acquisition"], expected, rtol=1e-4)
        assert np.allclose(table["epsilon_mean"], epsilon.mean(axis=1), rtol=1e-4)
        assert table["acquisition"].is_monotonic_decreasing
        picks = pd.read_csv(home / f"round-{number}" / "selected.csv")
        assert list(picks["material"]) == list(table["material_id"][:4])
    trained_on = [r["trained_on"] for r in finished[1].json["rounds"]]
    accepted = ledger_of(finished[0]).calculations("high-k").groupby("round")["verdict"]
    per_round = list(accepted.apply(lambda verdicts: int((verdicts == "accepted").sum())))
    start = len(builtin_known())
    assert trained_on == [start, start + per_round[0], start + per_round[0] + per_round[1]]


def _nested(value: Any) -> Any:
    return [_nested(part) for part in value] if isinstance(value, np.ndarray | list) else value


@pytest.mark.parametrize("command", ["run --rounds 3 --batch 4", "resume high-k"])
def test_a_finished_campaign_only_shows_its_results(
    finished: Any, home: Path, screen: Any, executed: Any, quick: str, command: str
) -> None:
    place, first = finished
    before = executed(place)
    models = {p: p.stat().st_mtime_ns for p in home.glob("round-*/**/*") if p.is_file()}
    table = (home / "validated.json").read_bytes()
    again = screen(place, f"{command} --json {quick if command.startswith('run') else ''}")
    assert again.status == 0 and again.json == first.json
    assert executed(place) == before and set(map(tuple, before.values())) == {("start", "end")}
    assert models == {p: p.stat().st_mtime_ns for p in home.glob("round-*/**/*") if p.is_file()}
    assert (home / "validated.json").read_bytes() == table


def test_what_a_person_is_shown(
    finished: Any, screen: Any, quick: str, truth: dict[str, Any]
) -> None:
    place, done = finished
    offered, left = len(builtin_hidden()), len(truth)
    said = (
        f"{len(builtin_known())} materials known. Candidates: {offered} offered; "
        f"{offered - left} taken by 'band gap below 0.5 eV'; {left} left."
    )
    assert offered > left, "otherwise the filter is not spoken of"
    assert said in done.err
    assert [f"Round {n} of 3" in done.err for n in (1, 2, 3)] == [True] * 3
    shown = screen(place, "status high-k")
    best = done.json["validated"][0]
    for words in ("Round 1", "Round 3", "DFPT", "verdict", "accepted", best["formula"]):
        assert words in shown.out
    overview = screen(place, "status")
    assert "high-k" in overview.out and "finished" in overview.out
    report = screen(place, "report high-k --output elsewhere.html")
    assert (place / report.out.strip()).samefile(place / "elsewhere.html")
    assert best["formula"] in (place / "elsewhere.html").read_text()


def test_json_is_all_there_is_on_standard_output(finished: Any, screen: Any) -> None:
    place, done = finished
    one, all_of_them = screen(place, "status high-k --json"), screen(place, "status --json")
    assert one.json == {k: v for k, v in done.json.items() if k not in ("directory", "report")}
    assert one.json in all_of_them.json
    assert one.json["calculations"] == sum(one.json["verdicts"].values()) == 12
    assert not one.err and not all_of_them.err


def test_the_schema_describes_the_campaign_file(finished: Any, home: Path, screen: Any) -> None:
    validation = pytest.importorskip("jsonschema")
    schema = screen(finished[0], "schema").json
    values = yaml.safe_load((home / "campaign.yaml").read_text())
    validation.validate(values, schema)
    for wrong in ({"rounds": 0}, {"colour": "blue"}, {"model": {"members": 1}}):
        with pytest.raises(validation.ValidationError):
            validation.validate({**values, **wrong}, schema)


def test_the_campaign_file_runs_the_same_campaign(
    finished: Any, home: Path, screen: Any, executed: Any
) -> None:
    before = executed(finished[0])
    again = screen(finished[0], "run campaigns/high-k/campaign.yaml --json")
    assert again.json == finished[1].json and executed(finished[0]) == before


def test_the_same_seed_picks_the_same(
    finished: Any, tmp_path: Path, own_cache: Path, screen: Any, ledger_of: Ledgers, quick: str
) -> None:
    """Elsewhere, with nothing trained before, and under another name; and another seed does not."""
    command = f"run --rounds 2 --batch 4 {quick}"
    for seed in (0, 1):
        done = screen(tmp_path, f"{command} --name seed-{seed} --seed {seed} --json")
        assert done.status == 0, done.err
    old, new = ledger_of(finished[0]), ledger_of(tmp_path)
    columns = ["round", "rank", "material_id", "acquisition", "merit_std", "electronic"]
    expected = old.calculations("high-k").query("round < 3")[columns]
    pd.testing.assert_frame_equal(new.calculations("seed-0")[columns], expected, check_exact=True)
    first = [book.rounds(name)[0] for book, name in ((old, "high-k"), (new, "seed-1"))]
    assert first[0].training_hash != first[1].training_hash
    tables = [old.predictions(first[0].id), new.predictions(first[1].id)]
    merits = [t.set_index("material_id")["merit_mean"].sort_index() for t in tables]
    assert (merits[0] - merits[1]).abs().min() > 0
    numbers = [r.metrics["static"] for r in first]
    assert numbers[0] != numbers[1], "other splits, other test crystals"


def test_two_campaigns_pay_for_a_calculation_once(
    tmp_path: Path, screen: Any, executed: Any, ledger_of: Ledgers, quick: str,
    interrupted: Any, truth: dict[str, Any],
) -> None:  # fmt: skip
    """The first stops before it calculates what it picked; the second does that for it."""
    interrupted(tmp_path, f"run --name first --rounds 1 --batch 3 {quick}", "calculate")
    pool = len(truth)
    second = screen(tmp_path, f"run --name second --rounds 1 --batch {pool} --json {quick}")
    assert second.status == 0 and second.json["calculations"] == pool
    first = screen(tmp_path, "resume first --json")
    assert first.status == 0 and first.json["calculations"] == 3
    assert len(executed(tmp_path)) == pool
    assert set(map(tuple, executed(tmp_path).values())) == {("start", "end")}
    table = ledger_of(tmp_path).calculations("second")
    assert table["shared"].sum() == 3 and table["verdict"].notna().all()
    assert not ledger_of(tmp_path).calculations("first")["shared"].any()


def test_a_pool_that_is_used_up(
    tmp_path: Path, screen: Any, quick: str, ledger_of: Ledgers, truth: dict[str, Any]
) -> None:
    least = 5.0
    wide = f"--set filters.min_band_gap={least}"
    done = screen(tmp_path, f"run --rounds 9 --batch 6 --json {wide} {quick}")
    assert done.status == 0 and done.json["status"] == "finished"
    assert "Every candidate has been calculated." in done.err
    sizes = ledger_of(tmp_path).calculations("high-k").groupby("round").size()
    pool = sum(known.material.band_gap >= least for known in truth.values())
    assert list(sizes) == [min(6, pool - begun) for begun in range(0, pool, 6)]
    assert len(done.json["rounds"]) == len(sizes) < 9
    again = screen(tmp_path, "resume high-k --json")
    assert again.status == 0 and again.json == done.json


def test_a_failure_is_a_result_and_teaches_nothing(
    tmp_path: Path, screen: Any, quick: str, truth: dict[str, Any], ledger_of: Ledgers
) -> None:
    from dft.verdict import Verdict

    modes = [verdict for verdict in Verdict if verdict is not Verdict.ACCEPTED]
    failures = dict(zip(sorted(truth), map(str, modes), strict=False))
    assert len(failures) == len(modes)
    settings = {"engine": {"failures": failures, "stall_s": 0.1}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    half = (len(truth) + 1) // 2
    done = screen(tmp_path, f"run c.yaml --rounds 2 --batch {half} --json {quick}")
    assert done.status == 0, done.err
    table = ledger_of(tmp_path).calculations("high-k").set_index("material_id")
    assert {m: table["verdict"][m] for m in failures} == failures
    healthy = sorted(set(truth) - set(failures))
    assert set(table["verdict"][healthy]) == {"accepted"}
    counts = dict.fromkeys(failures.values(), 1) | {"accepted": len(healthy)}
    assert done.json["verdicts"] == counts
    learned = int((table["verdict"][table["round"] == 1] == "accepted").sum())
    start = len(builtin_known())
    assert [r["trained_on"] for r in done.json["rounds"]] == [start, start + learned]
    assert {row["material"] for row in done.json["validated"]} == set(healthy)
    shown = screen(tmp_path, "status high-k").out
    for material, verdict in failures.items():
        assert verdict in shown and f"{material}: {table['detail'][material]}" in shown


@pytest.mark.parametrize("kind", ["greedy", "random"])
def test_other_ways_to_choose(
    finished: Any, tmp_path: Path, screen: Any, quick: str, ledger_of: Ledgers, kind: str
) -> None:
    command = f"run --rounds 1 --batch 4 --set acquisition.kind={kind} {quick}"
    done = screen(tmp_path, f"{command} --json")
    assert done.status == 0, done.err
    book = ledger_of(tmp_path)
    table = book.predictions(book.rounds("high-k")[0].id)
    picks = list(book.calculations("high-k")["material_id"])
    by_mean = list(table.sort_values("merit_mean", ascending=False)["material_id"][:4])
    old = ledger_of(finished[0])
    ucb = old.predictions(old.rounds("high-k")[0].id).set_index("material_id")
    predicted = table.set_index("material_id")["merit_mean"]
    assert predicted.to_dict() == ucb["merit_mean"].to_dict(), "only the choice is another one"
    assert (picks == by_mean) == (kind == "greedy")
    if kind == "random":
        assert picks != list(ucb.index[:4])
        assert table["acquisition"].between(0, 1).all()
        other = screen(tmp_path, f"{command} --name again --json")
        assert list(book.calculations("again")["material_id"]) == picks and other.status == 0
