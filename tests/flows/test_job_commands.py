"""``screen jobs`` and ``screen cancel`` where calculations run on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dft.calculation import State
from dft.local import LocalLauncher
from flows.limits import at_once_at_most
from flows.watching import Watch, Watched

Ledgers = Callable[[Path], Any]
PICKS = 17
"""More than there are hexadecimal digits: two keys begin alike."""


@pytest.fixture
def place(tmp_path: Path, interrupted: Any, quick: str) -> Path:
    """A campaign whose calculations are picked and prepared, and none of which has begun."""
    command = f"run --rounds 1 --batch {PICKS} {quick}"
    interrupted(tmp_path, command, "submit", LocalLauncher)
    return tmp_path


def states(place: Path, screen: Any) -> dict[str, str]:
    shown = screen(place, "jobs high-k --json").json
    return {job["key"]: job["state"] for job in shown["open"]}


def test_cancelled_and_allowed_again(place: Path, screen: Any, executed: Any) -> None:
    before = states(place, screen)
    assert len(before) == PICKS and set(before.values()) == {"pending"}
    digits = [key[0] for key in before]
    (digit, *_) = [d for d in digits if digits.count(d) > 1]
    wrong = {
        digit: f"{digits.count(digit)} open calculations of 'high-k' begin with {digit}",
        "xyz": "no open calculation of 'high-k' begin with xyz",
        "--undo --refuse": "--undo, --refuse and --release exclude each other",
    }
    for words, message in wrong.items():
        refused = screen(place, f"cancel high-k {words}")
        assert refused.status == 2 and message in refused.message
    assert states(place, screen) == before
    one, two = sorted(before)[:2]
    done = screen(place, f"cancel high-k {one[:12]} {two[:12]}")
    assert done.out.startswith("2 calculations of 'high-k' stopped")
    after = states(place, screen)
    assert {key for key in after if after[key] == "cancelled"} == {one, two}
    assert screen(place, "jobs").out.count(" cancelled ") == 2
    undone = screen(place, f"cancel high-k {one[:12]} --undo")
    assert undone.out.startswith("1 calculations of 'high-k' allowed again")
    assert [states(place, screen)[key] for key in (one, two)] == ["pending", "cancelled"]
    assert screen(place, f"cancel high-k {two[:12]} --refuse").status == 0
    done = screen(place, "resume high-k --json")
    assert done.status == 0 and done.json["verdicts"]["engine error"] == 1
    assert two not in executed(place) and executed(place)[one] == ["start", "end"]
    assert len(executed(place)) == PICKS - 1
    assert "No campaign is open." in screen(place, "jobs").out


def test_a_machine_that_is_gone_for_good(place: Path, screen: Any, executed: Any) -> None:
    calculations = place / "campaigns" / "high-k" / "calculations"
    calculations.rename(place / "gone")
    refused = screen(place, "cancel high-k")
    assert refused.status == 2 and "are on another machine; cancel them there" in refused.message
    released = screen(place, "cancel high-k --release")
    assert released.out.startswith(f"{PICKS} calculations of 'high-k' released")
    done = screen(place, "resume high-k --json")
    assert done.status == 0 and done.json["calculations"] == PICKS
    assert set(map(tuple, executed(place).values())) == {("start", "end")}


def test_the_end_of_a_round_is_foretold(place: Path, ledger_of: Ledgers) -> None:
    """By what a calculation usually takes, what has passed of it, and how many run at once."""
    watch = Watch(ledger_of(place), "high-k")
    assert watch.summary()["seconds_left"] is None, "nothing has been calculated yet"
    at_once = at_once_at_most(watch.config)

    def left(*running_s: float, state: State = State.RUNNING) -> float:
        jobs = [SimpleNamespace(state=state, running_s=s) for s in running_s]
        return watch._left([Watched(cast("Any", None), cast("Any", job)) for job in jobs], 100.0)

    assert left(30.0) == pytest.approx(70.0)
    assert left(1000.0) == pytest.approx(10.0), "however long it has run"
    assert left(*[0.0] * 4 * at_once) == pytest.approx(400.0)
    assert left(0.0, *[1000.0] * at_once) == pytest.approx(100.0), "not before the last"
    assert left(0.0, state=State.LOST) == 0.0, "what is cancelled is not waited for"
