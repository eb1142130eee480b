"""Slurm's last answer, shared by all launchers over one root, so that it is asked rarely."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from dft.slurm_queue import Job, NotNowError, Queue
from dft.slurm_settings import SlurmLauncherSettings
from screening.errors import UserError
from screening.io import atomic_write


@dataclass(frozen=True)
class Snapshot:
    """The queue as it was.

    Attributes
    ----------
    taken_at
        Seconds since 1970, just before Slurm was asked.
    """

    taken_at: float
    jobs: Sequence[Job] = ()

    @cached_property
    def by_number(self) -> dict[tuple[str, int], Job]:
        """Jobs by number and task."""
        return {(job.job_id, job.task): job for job in self.jobs}


class Snapshots:
    """The last snapshot below ``home``; taking one is for who holds the lock there."""

    def __init__(self, home: Path, queue: Queue, settings: SlurmLauncherSettings) -> None:
        self._path = home / "queue.json"
        self._queue = queue
        self._settings = settings
        self._patience = Patience(settings.patience_s)

    def last(self) -> Snapshot:
        """What somebody saw last; empty if nobody has looked yet."""
        try:
            record = json.loads(self._path.read_bytes())
            return Snapshot(record["taken_at"], [Job(**job) for job in record["jobs"]])
        except (OSError, ValueError, TypeError, KeyError):
            return Snapshot(0.0)

    def take(self, names: Sequence[str], *, fresh: bool) -> Snapshot | None:
        """A snapshot at most ``poll_s`` old, or one just taken; None if Slurm does not answer.

        Parameters
        ----------
        names
            Of the jobs that matter.

        Raises
        ------
        UserError
            It has not answered for too long, or there is no Slurm here.
        """
        last = self.last()
        # Half the interval: launchers that look in turn share what each of them sees.
        if not fresh and 0 <= time.time() - last.taken_at < self._settings.poll_s / 2:
            return last
        begun = time.time()
        try:
            snapshot = Snapshot(begun, self._queue.jobs(names) if names else [])
        except NotNowError as error:
            self._patience.bear(error)
            return None
        self._patience.renew()
        record = {"taken_at": begun, "jobs": [asdict(job) for job in snapshot.jobs]}
        atomic_write(self._path, json.dumps(record) + "\n")
        return snapshot


class Patience:
    """Bears with what may pass by itself, for a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def renew(self) -> None:
        """It has passed."""
        self._since = None

    def bear(self, error: NotNowError) -> None:
        """Once more.

        Raises
        ------
        UserError
            The while is over.
        """
        now = time.monotonic()
        self._since = self._since or now
        waited = now - self._since
        if waited <= self._seconds:
            return
        self._since = None
        if error.full:
            raise UserError(
                f"Slurm takes no further job ({error}): the limit of the account or the user is "
                "reached; wait for other jobs to end, lower launcher.max_jobs or set another "
                "launcher.account or launcher.qos, then run the same command again."
            )
        raise UserError(
            f"Slurm has not answered for {waited / 60:.0f} minutes ({error}); run the same command "
            "again when it does, nothing is lost."
        )
