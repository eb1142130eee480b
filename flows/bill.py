"""What calculations cost before they are made, and what a budget still allows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft.calculation import Calculation, State
from dft.cost import HOUR_S, LEAST_DONE, Cost, bill, hours
from flows.calculations import keys_of, refuse

if TYPE_CHECKING:
    from dft.activity import Activity
    from dft.cost import Took
    from dft.engine import Engine
    from flows.run import CampaignRun
    from results.ledger import Ledger
    from screening.material import Material

SHOWN = 8
"""Calculations that a bill names one by one."""
ROUNDING = 1e-9
ENDS_S = 120.0
"""How long a calculation that was stopped may take to end, on a cluster."""
ENDS_HERE = "budget"
"""Kind of the ledger's event that says which calculation did not fit any more."""
USED_UP = "budget used up"
"""Kind of the ledger's event that says what the budget has stopped."""
WATCH_S = 2.0
"""Between two looks at what running calculations have cost."""


def admitted(run: CampaignRun, number: int, materials: list[Material]) -> list[Material]:
    """The first of ``materials`` that the budget allows, with the bill told.

    Until it is done a calculation counts with the upper end of its error bar; one that another
    campaign has asked for costs nothing.
    """
    budget = run.config.budget
    costs = _costs(run, materials)
    spent = spent_core_hours(run.ledger, run.config.name)
    chosen = 0
    reserved = spent
    for cost in costs:
        reserved += 0.0 if cost is None else cost.high
        if budget is not None and reserved > budget * (1 + ROUNDING):
            break
        chosen += 1
    if any(cost is None or cost.high > 0 for cost in costs):
        of = "" if budget is None else f" of {hours(budget)}"
        text = statement(materials[:chosen], costs[:chosen])
        run.reporter.note(f"Bill of round {number}: {text}; {hours(spent)}{of} spent so far.")
    if chosen < len(costs) and budget is not None:
        first, cost = materials[chosen], costs[chosen]
        high = 0.0 if cost is None else cost.high
        left = budget - (reserved - high)
        text = (
            f"The budget of {hours(budget)} core-hours ends here: {hours(max(0.0, left))} are "
            f"left, and {first.formula} may take {hours(high)}."
        )
        run.reporter.note(text)
        detail = {"budget": budget, "spent": spent, "text": text}
        run.ledger.event(run.config.name, ENDS_HERE, detail, once=f"budget, round {number}")
    return materials[:chosen]


class Limit:
    """The budget, held against what runs: a cost model may be wrong, and ladders climb.

    It counts and stops what the campaign itself has asked for; calculations of others that it
    waits for are theirs. What it stops is in the ledger before it is stopped, so that whoever goes
    on after an interruption knows why nobody runs it, and what it had cost.
    """

    def __init__(self, run: CampaignRun, number: int) -> None:
        self._run = run
        self._budget = run.config.budget
        self._before = 0.0
        self._own: set[str] = set()
        self._done: dict[str, float] = {}
        self._look_at = 0.0
        self._cancelled = False
        self._number = number
        self._stopped: dict[str, dict[str, float]] = {}
        if self._budget is None:
            return
        self._before = spent_core_hours(run.ledger, run.config.name)
        table = run.ledger.selections(run.round(number).id)
        self._own = set(table.loc[~table["shared"], "key"])
        events = run.ledger.events(run.config.name)
        for detail in events.loc[events["kind"] == USED_UP, "detail"]:
            if detail["round"] == number:
                self._stopped = detail["stopped"]

    def hold(self, roots: Mapping[Path, Sequence[str]]) -> None:
        """Cancel what is open and the campaign's own, once the budget is used up.

        Parameters
        ----------
        roots
            Keys of this round's calculations, by root.
        """
        if self._budget is None or self._cancelled or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + WATCH_S
        own = {root: [key for key in keys if key in self._own] for root, keys in roots.items()}
        if not self._stopped:
            under_way = self._under_way(own)
            used = self._before + sum(self._done.values())
            used += sum(activity.core_hours for activity in under_way.values())
            if used <= self._budget or not under_way:
                return
            text = (
                f"The budget of {hours(self._budget)} core-hours is used up: what runs is stopped."
            )
            self._run.reporter.note(text)
            self._stopped = {
                key: {"cpu_s": activity.core_hours * HOUR_S, "wall_s": activity.running_s}
                for key, activity in under_way.items()
            }
            once = f"{USED_UP}, round {self._number}"
            detail = {"round": self._number, "text": text, "stopped": self._stopped}
            self._run.ledger.event(self._run.config.name, USED_UP, detail, once=once)
        for root, keys in own.items():
            self._run.launcher(root).cancel([key for key in keys if key in self._stopped])
        self._cancelled = True

    def refuse(self, roots: Mapping[Path, Sequence[str]], keys: Sequence[str]) -> list[str]:
        """Enter those of ``keys`` that were stopped here as failed; returns the others."""
        why = f"stopped: the budget of {hours(self._budget or 0.0)} core-hours is used up"
        for root, names in roots.items():
            for key in names:
                if key in keys and key in self._stopped:
                    refuse(Calculation(root / key), why, patience_s=ENDS_S, **self._stopped[key])
        return [key for key in keys if key not in self._stopped]

    def _under_way(self, own: Mapping[Path, Sequence[str]]) -> dict[str, Activity]:
        """What is not done; what is done is added to what that has cost."""
        under_way: dict[str, Activity] = {}
        for root, keys in own.items():
            launcher = self._run.launcher(root)
            found = launcher.look([key for key in keys if key not in self._done])
            for key, activity in found.items():
                if activity.state is State.DONE:
                    self._done[key] = _seconds(launcher.fetch(key).to_dict()) / HOUR_S
                else:
                    under_way[key] = activity
        return under_way


def statement(materials: list[Material], costs: list[Cost | None]) -> str:
    """A bill as one sentence, for people."""
    known = [cost for cost in costs if cost is not None]
    if not materials:
        return "nothing"
    if len(known) < len(costs):
        return f"unknown: a campaign learns it from the first {LEAST_DONE} calculations"
    parts = [f"{m.formula} {_bar(c)}" for m, c in zip(materials, known, strict=True)][:SHOWN]
    more = f" and {len(materials) - SHOWN} more" if len(materials) > SHOWN else ""
    return f"{', '.join(parts)}{more}; together {_bar(bill(known))} core-hours"


def announce(engine: Engine, materials: list[Material]) -> str:
    """The bill of calculations outside a campaign."""
    return statement(materials, engine.costs(materials))


def taken(run: CampaignRun) -> list[Took]:
    """What calculations with this engine and these settings took that came to an end."""
    done = run.ledger.finished(run.engine.name, run.engine.settings_hash)
    outputs = [(record.material.structure, record.output or {}) for record in done]
    return [
        (structure, seconds)
        for structure, output in outputs
        if output.get("electronic") is not None and (seconds := _seconds(output)) > 0
    ]


def spent_core_hours(ledger: Ledger, campaign: str) -> float:
    """What the campaign's own calculations took; those of others that it shares cost it nothing."""
    table = ledger.calculations(campaign)
    own = ledger.records(table.loc[~table["shared"], "key"]).values()
    return sum(_seconds(record.output) for record in own if record.output is not None) / HOUR_S


def _costs(run: CampaignRun, materials: list[Material]) -> list[Cost | None]:
    """What each will cost this campaign."""
    keys = keys_of(run, materials)
    theirs = run.ledger.records(keys)
    costs = run.engine.costs(materials, lambda: taken(run))
    free = Cost(0.0, 0.0, 0.0)
    return [free if key in theirs else cost for key, cost in zip(keys, costs, strict=True)]


def _seconds(output: dict[str, Any]) -> float:
    """CPU time of a calculation: of its processes, or of those that a known result once took."""
    cost = (output.get("cost") or {}).get("cpu_s")
    return max(float(output.get("cpu_s") or 0.0), float(cost or 0.0))


def _bar(cost: Cost) -> str:
    if cost.low == cost.high:
        return hours(cost.core_hours)
    return f"{hours(cost.core_hours)} ({hours(cost.low)}–{hours(cost.high)})"
