"""The bill before calculations, and budgets that hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.bill import spent_core_hours, taken
from flows.config import build_campaign
from flows.notifications import BUDGET_NEARLY_SPENT, news
from flows.watching import Watch
from results.view import CampaignView
from screening.errors import UserError

Ledgers = Callable[[Path], Any]
RECORDED_H = 0.02


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Some built-in candidates, each recorded to have taken 0.02 core-hours."""
    return recorded(tmp_path, RECORDED_H * 3600)


@pytest.fixture
def cheap_answers(tmp_path: Path) -> Path:
    """The same, each recorded to have taken 0.3 s."""
    return recorded(tmp_path, 0.3)


def recorded(directory: Path, cpu_s: float) -> Path:
    """A table of answers that took so long."""
    from screening.builtin import builtin_hidden

    rows = [
        {
            "material_id": known.material.material_id,
            "structure": known.material.structure.as_dict(),
            "band_gap": known.material.band_gap,
            "functional": known.functional,
            "eps_electronic": known.tensors.electronic.tolist(),
            "eps_ionic": known.tensors.ionic.tolist(),
            "cpu_s": cpu_s,
        }
        for known in builtin_hidden()[:12]
        if known.tensors.electronic is not None and known.tensors.ionic is not None
    ]
    path = directory / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_a_budget_ends_a_campaign_before_it_is_exceeded(
    tmp_path: Path, screen: Any, quick: str, answers: Path, ledger_of: Ledgers
) -> None:
    data = f"--candidates {answers.name} --replay {answers.name} --batch 3 --rounds 4"
    done = screen(tmp_path, f"run {data} --budget 0.1 --json {quick}")
    assert done.status == 0, done.err
    assert done.json["calculations"] == 5 and done.json["status"] == "finished"
    assert "Bill of round 1: " in done.err
    assert "together 0.06 core-hours; 0 of 0.1 spent so far." in done.err
    assert "together 0.04 core-hours; 0.06 of 0.1 spent so far." in done.err
    end = "The budget of 0.1 core-hours ends here: "
    lines = [line for line in done.err.splitlines() if end in line]
    assert lines and all("may take 0.02." in line for line in lines)
    ledger = ledger_of(tmp_path)
    assert spent_core_hours(ledger, "high-k") == pytest.approx(5 * RECORDED_H)
    # What is watched and what the budget counts are the same.
    assert Watch(ledger, "high-k").summary()["core_hours"] == pytest.approx(5 * RECORDED_H)
    records = ledger.records(ledger.calculations("high-k")["key"]).values()
    (settings,) = {record.settings_hash for record in records}
    engine = SimpleNamespace(name="replay", settings_hash=settings)
    took = taken(SimpleNamespace(ledger=ledger, engine=engine))
    assert [seconds for _, seconds in took] == pytest.approx([RECORDED_H * 3600] * 5)
    assert ledger.finished("vasp", settings) == []
    events = ledger.events("high-k")
    assert "budget" in set(events["kind"])
    view = CampaignView.from_ledger(ledger, "high-k")
    told = [dict(news(view, 1, spent)).get(BUDGET_NEARLY_SPENT) for spent in (0.06, 0.09)]
    assert told == [None, "'high-k' has spent 0.09 of its 0.1 core-hours."]
    assert BUDGET_NEARLY_SPENT in dict(news(view, 1, 0.06, ended=True))
    again = screen(tmp_path, "resume high-k --json")
    assert again.json == done.json


def test_what_runs_beyond_the_budget_is_stopped(
    tmp_path: Path, screen: Any, quick: str, cheap_answers: Path, executed: Any, ledger_of: Ledgers
) -> None:
    """Each is recorded to take a third of a second, and takes half a minute."""
    data = f"--candidates {cheap_answers.name} --replay {cheap_answers.name} --batch 3 --rounds 4"
    parallel = "--set launcher.max_parallel=2 --set engine.delay_s=30"
    done = screen(tmp_path, f"run {data} --budget 0.001 {parallel} --json {quick}")
    assert done.status == 0, done.err
    assert "The budget of 0.001 core-hours is used up: what runs is stopped." in done.err
    assert done.json["verdicts"] == {"engine error": 3}, "two were stopped, one never began"
    assert sorted(executed(tmp_path).values()) == [["start"], ["start"]]
    details = ledger_of(tmp_path).calculations("high-k")["detail"]
    assert details.str.contains("the budget of 0.001 core-hours is used up").all()


def test_what_another_campaign_has_paid_for_is_free(
    tmp_path: Path, screen: Any, quick: str, answers: Path, ledger_of: Ledgers
) -> None:
    data = f"--candidates {answers.name} --replay {answers.name} --batch 3 --rounds 2"
    assert screen(tmp_path, f"run {data} --name first {quick}").status == 0
    done = screen(tmp_path, f"run {data} --name second --budget 0.01 --json {quick}")
    assert done.status == 0, done.err
    ledger = ledger_of(tmp_path)
    table = ledger.calculations("second")
    assert len(table) == 6 and table["shared"].all()
    assert (table["verdict"] == "accepted").all()
    assert spent_core_hours(ledger, "second") == 0.0


def test_a_budget_stops_nothing_of_another_campaign(
    tmp_path: Path, screen: Any, quick: str, cheap_answers: Path, executed: Any, ledger_of: Ledgers,
    interrupted: Any,
) -> None:  # fmt: skip
    """The first leaves its calculations under way; the second waits for them."""
    data = f"--candidates {cheap_answers.name} --replay {cheap_answers.name} --rounds 1 {quick}"
    slow = "--set engine.delay_s=6"
    interrupted(tmp_path, f"run {data} --name first --batch 2 {slow}", "calculate")
    # Three of its own would fit; each runs for longer than it is recorded to.
    slow = "--set engine.delay_s=6 --set launcher.max_parallel=5"
    done = screen(tmp_path, f"run {data} --name second --batch 4 --budget 0.0005 {slow} --json")
    assert done.status == 0, done.err
    table = ledger_of(tmp_path).calculations("second")
    shared = table[table["shared"]]
    assert len(shared) == 2 and (shared["verdict"] == "accepted").all()
    assert table.loc[~table["shared"], "detail"].str.contains("is used up").all()
    assert all(executed(tmp_path)[key] == ["start", "end"] for key in shared["key"])


def test_what_the_budget_stopped_is_known_after_an_interruption(
    tmp_path: Path, screen: Any, quick: str, cheap_answers: Path, ledger_of: Ledgers,
    interrupted: Any,
) -> None:  # fmt: skip
    """Killed between stopping what runs and entering it as refused."""
    import flows.bill

    data = f"--candidates {cheap_answers.name} --replay {cheap_answers.name} --batch 3 --rounds 1"
    slow = "--set launcher.max_parallel=2 --set engine.delay_s=30"
    interrupted(tmp_path, f"run {data} --budget 0.001 {slow} {quick}", "refuse", flows.bill)
    done = screen(tmp_path, "resume high-k --json")
    assert done.status == 0, done.err
    assert done.json["verdicts"] == {"engine error": 3}
    ledger = ledger_of(tmp_path)
    details = ledger.calculations("high-k")["detail"]
    assert details.str.contains("the budget of 0.001 core-hours is used up").all()
    (event,) = (e for e in ledger.events("high-k")["detail"] if "stopped" in e)
    cost = sum(stopped["cpu_s"] for stopped in event["stopped"].values())
    assert spent_core_hours(ledger, "high-k") == pytest.approx(cost / 3600) and cost > 3.6


@pytest.mark.parametrize("limit", ["--budget 0.001", "--set launcher.timeout_s=1"])
def test_what_was_only_stopped_is_calculated_by_the_next_campaign(
    tmp_path: Path, screen: Any, quick: str, cheap_answers: Path, ledger_of: Ledgers, limit: str
) -> None:
    given = f"--candidates {cheap_answers.name} --replay {cheap_answers.name}"
    data = f"{given} --batch 2 --rounds 1 {quick}"
    slow = f"{limit} --set engine.delay_s=30"
    first = screen(tmp_path, f"run {data} --name first {slow} --json")
    assert first.status == 0 and "accepted" not in first.json["verdicts"], first.err
    before = ledger_of(tmp_path).calculations("first")
    for name, shared in (("second", False), ("third", True)):
        done = screen(tmp_path, f"run {data} --name {name} --budget 1 --json")
        assert done.json["verdicts"] == {"accepted": 2}, done.err
        table = ledger_of(tmp_path).calculations(name)
        assert (table["shared"] == shared).all() and not set(table["key"]) & set(before["key"])
    again = screen(tmp_path, "resume first --json")
    assert again.json == first.json
    assert ledger_of(tmp_path).calculations("first").equals(before)


def test_what_was_spent_counts_after_an_interruption(
    tmp_path: Path, screen: Any, quick: str, answers: Path, ledger_of: Ledgers,
    interrupted: Any,
) -> None:  # fmt: skip
    data = f"--candidates {answers.name} --replay {answers.name} --batch 3 --rounds 4"
    interrupted(tmp_path, f"run {data} --budget 0.07 {quick}", "record")
    assert spent_core_hours(ledger_of(tmp_path), "high-k") == pytest.approx(3 * RECORDED_H)
    second = screen(tmp_path, "resume high-k --json")
    assert second.status == 0 and second.json["calculations"] == 3
    assert "0.01 are left" in second.err


def test_a_budget_too_small_for_anything_is_said_to_be(
    tmp_path: Path, screen: Any, quick: str, answers: Path
) -> None:
    data = f"--candidates {answers.name} --replay {answers.name}"
    done = screen(tmp_path, f"run {data} --budget 0.01 --json {quick}")
    assert done.status == 0 and done.json["calculations"] == 0
    assert "The budget of 0.01 core-hours ends here: 0.01 are left" in done.err


def test_a_budget_in_a_file_and_wrong_ones(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("budget: 2.5\n")
    assert build_campaign(file, {}).budget == 2.5
    assert build_campaign(file, {"budget": 3}).budget == 3
    with pytest.raises(UserError, match="'budget' in the campaign is 0"):
        build_campaign(None, {"budget": 0})
    assert build_campaign(file, {"engine": {"kind": "vasp"}}).budget == 2.5
