"""What a calculation is doing: for people who watch, not for programs that decide."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from dft.calculation import Calculation, State


@dataclass(frozen=True)
class Activity:
    """Where a calculation is, and since when.

    Attributes
    ----------
    state
        A :class:`~dft.calculation.State`.
    where
        Machine and process, or the cluster's job and its node.
    since
        ISO 8601, UTC: when it began to run, or when it was submitted; empty if neither is known.
    cores
        Cores that it occupies while it runs, where they can be seen on average since then.
    attempt
        Which attempt runs, or ran last; 0 if none has.
    spent_s
        CPU seconds of earlier executions, which left no result.
    note
        Why it waits or was cancelled, where that is known.
    """

    state: State
    where: str = ""
    since: str = ""
    cores: float = 1.0
    attempt: int = 0
    note: str = ""
    spent_s: float = 0.0

    @property
    def running_s(self) -> float:
        """Seconds since it was started; 0 while it waits."""
        if self.state is not State.RUNNING or not self.since:
            return 0.0
        begun = datetime.fromisoformat(self.since)
        begun = begun if begun.tzinfo else begun.replace(tzinfo=UTC)
        return max((datetime.now(UTC) - begun).total_seconds(), 0.0)

    @property
    def core_hours(self) -> float:
        """What it has cost: time by the clock times its cores, and its earlier executions."""
        return (self.running_s * self.cores + self.spent_s) / 3600

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Activity:
        """Inverse of :meth:`to_dict`."""
        return cls(**{**record, "state": State(record["state"])})


def of_directory(calculation: Calculation, state: State, cores: float = 1.0) -> Activity:
    """What the files of a calculation say."""
    handle, spent_s = calculation.handle(), calculation.spent_s()
    note = ""
    if calculation.cancelled_path.exists():
        note = calculation.cancelled_path.read_text().strip() or "cancelled"
    if handle is None:
        return Activity(state, cores=cores, note=note, spent_s=spent_s)
    where = f"{handle.host}, process {handle.pid}" if state is State.RUNNING else handle.host
    return Activity(state, where, handle.started_at, cores, handle.attempt, note, spent_s)
