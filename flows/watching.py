"""What runs where, since when, and what it has cost: the data behind ``screen jobs``."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft.activity import Activity
from dft.calculation import State
from dft.launcher import Launcher, make_launcher
from flows.bill import spent_core_hours
from flows.config import Campaign, recorded_campaign
from flows.limits import at_once_at_most
from screening.errors import UserError

if TYPE_CHECKING:
    from results.ledger import Ledger
    from results.records import CalculationRecord

LEAST_LEFT = 0.1
"""Share of the usual time that a calculation is taken to need still, however long it has run."""


@dataclass(frozen=True)
class Watched:
    """An open calculation and what it is doing."""

    record: CalculationRecord
    activity: Activity

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; costs in core hours."""
        activity = self.activity
        return {
            "key": self.record.key,
            "material_id": self.record.material.material_id,
            "formula": self.record.material.formula,
            "state": "cancelled" if activity.state is State.LOST else str(activity.state),
            "where": activity.where,
            "since": activity.since or None,
            "attempt": activity.attempt,
            "core_hours": activity.core_hours,
            "note": activity.note,
        }


class Watch:
    """The open calculations of one campaign.

    Raises
    ------
    UserError
        There is no such campaign.
    """

    def __init__(self, ledger: Ledger, name: str) -> None:
        self.ledger = ledger
        self.name = name
        record = ledger.campaign(name)
        if record is None:
            raise UserError(f"There is no campaign '{name}' in the ledger.")
        self.config: Campaign = recorded_campaign(name, record.config)
        self.roots: dict[Path, list[CalculationRecord]] = {}
        for pending in ledger.pending(name):
            self.roots.setdefault(Path(pending.directory).parent, []).append(pending)
        self._launchers: dict[Path, Launcher] = {}

    def launcher(self, root: Path) -> Launcher:
        """What runs the calculations below ``root``."""
        if root not in self._launchers:
            self._launchers[root] = make_launcher(self.config.launcher, root)
        return self._launchers[root]

    def calculations(self) -> list[Watched]:
        """All open calculations, in the order of the ledger."""
        found = []
        for root, records in self.roots.items():
            if not root.is_dir():
                found += [Watched(r, _elsewhere(r)) for r in records]
                continue
            activities = self.launcher(root).look([r.key for r in records])
            found += [Watched(r, activities[r.key]) for r in records]
        return found

    def summary(self) -> dict[str, Any]:
        """Plain JSON: what is open, what all of it has cost, and when the round may end."""
        watched = self.calculations()
        table = self.ledger.calculations(self.name)
        finished = table[table["wall_s"].notna() & ~table["shared"]]
        spent = spent_core_hours(self.ledger, self.name)
        own = [w for w in watched if w.record.campaign == self.name]
        usual = [float(s) for s in finished["wall_s"] if s > 0]
        left = None if not usual else self._left(watched, statistics.median(usual))
        return {
            "campaign": self.name,
            "open": [w.to_dict() for w in watched],
            "finished": len(finished),
            "core_hours": spent + sum(w.activity.core_hours for w in own),
            "seconds_left": left,
        }

    def _left(self, watched: list[Watched], usual_s: float) -> float:
        """Seconds until all are done, if each takes the usual time and as many run as may."""
        needs = [
            max(usual_s - w.activity.running_s, LEAST_LEFT * usual_s)
            for w in watched
            if w.activity.state is not State.LOST
        ]
        if not needs:
            return 0.0
        at_once = min(at_once_at_most(self.config), len(needs))
        return float(max(sum(needs) / at_once, max(needs)))


def _elsewhere(record: CalculationRecord) -> Activity:
    since = "" if record.submitted_at is None else record.submitted_at.isoformat()
    return Activity(State.PENDING, f"elsewhere ({record.handle or 'nobody has it'})", since)
