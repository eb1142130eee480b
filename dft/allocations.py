"""Jobs of a cluster as files: what was asked of Slurm, written before it is asked.

Below the root of the calculations:

==========================  ======================================================================
``.jobs/lock``              held by whoever changes anything here, sbatch included
``.jobs/open/NAME.json``    a job that is not settled: its tasks, and its number once that is known
``.jobs/NAME/tasks.json``   what the job is to do, read by :mod:`dft.slurm_task`
``.jobs/NAME/job.sh``       the batch script, and ``job.out``, what it printed
``.jobs/NAME/started-N``    where and when its task N began
``.jobs/NAME/job.json``     the record again, once the job is settled
``.jobs/queue.json``        Slurm's last answer, for all who work here
``KEY/job.json``            the job that a calculation belongs to, and how many it has had
==========================  ======================================================================
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from screening.io import atomic_write, stable_hash, unwritable

JOBS = ".jobs"
CLAIM = "job.json"
SCRIPT = "job.sh"
OUTPUT = "job.out"
PREFIX = "screen-"
"""How the names of our jobs begin."""


@dataclass(frozen=True)
class Allocation:
    """One submission: a job, or an array of them, and the calculations it is for.

    Attributes
    ----------
    name
        Name of the job, unique to this submission of these calculations.
    tasks
        Keys of the calculations, by task of the array (one where there is no array).
    cores
        Cores that each task occupies, of all its nodes.
    created_at, submitted_at
        ISO 8601, UTC; the latter null, like ``job_id``, until it is known that Slurm took it.
    released
        Tasks that are over and whose open calculations may go into another job.
    """

    name: str
    tasks: list[list[str]]
    cores: int
    created_at: str
    job_id: str | None = None
    submitted_at: str | None = None
    released: tuple[int, ...] = ()

    @property
    def held(self) -> dict[str, int]:
        """Task by key, of the calculations that must not go into another job."""
        tasks = [(n, keys) for n, keys in enumerate(self.tasks) if n not in self.released]
        return {key: number for number, keys in tasks for key in keys}

    def name_of(self, task: int) -> str:
        """A task as Slurm's commands name it, ``17`` or ``17_3``."""
        return f"{self.job_id}_{task}" if len(self.tasks) > 1 else f"{self.job_id}"


@dataclass(frozen=True)
class Plan:
    """What a job is to do; see the settings of the same names."""

    tasks: list[list[str]]
    at_once: int
    attempts: int
    timeout_s: float | None


class Allocations:
    """The files of all jobs below one root; changes are for who holds :attr:`lock_path`.

    Raises
    ------
    UserError
        From every method: nothing can be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / JOBS
        self.lock_path = self.home / "lock"
        self._open = self.home / "open"
        try:
            self._open.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self._open, error) from error

    def directory(self, name: str) -> Path:
        """Where the files of a job are."""
        return self.home / name

    def open(self) -> list[Allocation]:
        """Jobs that are not settled, oldest first."""
        records = [_read(path) for path in self._open.glob(f"{PREFIX}*.json")]
        found = [_allocation(record) for record in records if record is not None]
        return sorted(found, key=lambda a: (a.created_at, a.name))

    def create(self, tasks: list[list[str]], cores: int, plan: Plan) -> Allocation:
        """Enter a job that is about to be submitted, under a name that says for what."""
        keys = [key for task in tasks for key in task]
        numbers = {key: self.submissions(key) + 1 for key in keys}
        identity = stable_hash([str(self.root), [[key, numbers[key]] for key in keys]])
        allocation = Allocation(f"{PREFIX}{identity[:16]}", tasks, cores, _now())
        atomic_write(self.directory(allocation.name) / "tasks.json", _text(asdict(plan)))
        self.save(allocation)
        for number, task in enumerate(tasks):
            for key in task:
                self._claim(key, allocation.name, number, numbers[key])
        return allocation

    def save(self, allocation: Allocation) -> None:
        """Replace the record of an open job."""
        atomic_write(self._open / f"{allocation.name}.json", _text(asdict(allocation)))

    def submitted(self, allocation: Allocation, job_id: str) -> Allocation:
        """Note the number that Slurm gave."""
        noted = replace(allocation, job_id=job_id, submitted_at=_now())
        self.save(noted)
        return noted

    def withdraw(self, allocation: Allocation) -> None:
        """Forget a job that Slurm did not take."""
        for number, task in enumerate(allocation.tasks):
            for key in task:
                self._claim(key, allocation.name, number, max(self.submissions(key) - 1, 0))
        (self._open / f"{allocation.name}.json").unlink(missing_ok=True)

    def close(self, allocation: Allocation) -> None:
        """Put a settled job aside."""
        with contextlib.suppress(FileNotFoundError):
            (self._open / f"{allocation.name}.json").replace(
                self.directory(allocation.name) / "job.json"
            )

    def submissions(self, key: str) -> int:
        """How many jobs a calculation has been put into."""
        return int((_read(self.root / key / CLAIM) or {}).get("submissions", 0))

    def has_started(self, name: str, task: int) -> bool:
        """Whether a task of a job has begun to run."""
        return (self.directory(name) / f"started-{task}").exists()

    def output(self, name: str, task: int, tasks: int) -> Path:
        """What a task of a job has printed."""
        return self.directory(name) / (OUTPUT if tasks == 1 else f"{OUTPUT}.{task}")

    def find(self, name: str) -> Allocation | None:
        """A job, settled or not."""
        for path in (self._open / f"{name}.json", self.directory(name) / "job.json"):
            if (record := _read(path)) is not None:
                return _allocation(record)
        return None

    def claim_of(self, key: str) -> tuple[str, int] | None:
        """Name and task of the job that a calculation is in, or was in last."""
        record = _read(self.root / key / CLAIM)
        return None if record is None else (str(record["job"]), int(record["task"]))

    def _claim(self, key: str, name: str, task: int, submissions: int) -> None:
        claim = {"job": name, "task": task, "submissions": submissions}
        atomic_write(self.root / key / CLAIM, json.dumps(claim) + "\n")


def read_plan(root: Path, name: str) -> Plan:
    """What a job is to do."""
    return Plan(**json.loads((root / JOBS / name / "tasks.json").read_bytes()))


def chunks(items: Sequence[Any], size: int) -> list[list[Any]]:
    """Consecutive groups of at most ``size``."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def _allocation(record: dict[str, Any]) -> Allocation:
    return Allocation(**{**record, "released": tuple(record["released"])})


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=1) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat()
