"""Calculations as jobs of a Slurm cluster, each executed once whatever happens in between."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from dft.activity import Activity, of_directory
from dft.allocations import Allocation, Allocations, Plan, chunks
from dft.calculation import Calculation, State
from dft.engine import CalculationOutput
from dft.execution import STORAGE_ERRORS, failed
from dft.local import fetched, import_path
from dft.locks import is_locked, try_lock_file
from dft.slurm_queue import (
    NEVER,
    RUNNING,
    TASK_ARGUMENT,
    WAITING,
    Job,
    NotNowError,
    Queue,
    refused,
)
from dft.slurm_settings import SlurmLauncherSettings
from dft.snapshots import Patience, Snapshot, Snapshots
from screening.errors import UserError
from screening.io import atomic_write, unwritable

_LOCK_PATIENCE_S = 150.0
"""For what must be done; longer than any command of Slurm is waited for."""
_BUSY_S = 0.5
"""After which to look again where another launcher was at work."""
_FRUITLESS = 3
"""Jobs that end before they have started a calculation, until that is no chance any more."""
_NOT_ITS_FAULT = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "REVOKED", "TIMEOUT")


class SlurmLauncher:
    """Submits jobs for calculations below ``root``, which the compute nodes see under this name.

    Launchers may come and go, and several may work on one root; who changes something holds the
    lock of :class:`~dft.allocations.Allocations`. Results are trusted over the queue.
    """

    def __init__(self, root: Path, settings: SlurmLauncherSettings) -> None:
        self.root = Path(root).resolve()
        self.settings = settings
        self.allocations = Allocations(self.root)
        self.queue = Queue(settings)
        self.place = f"slurm:{socket.gethostname()}"
        self._snapshots = Snapshots(self.allocations.home, self.queue, settings)
        self._patience = Patience(settings.patience_s)
        self._crowded = Patience(settings.settle_s)
        self._states: dict[str, State] = {}
        self._done: set[str] = set()
        self._over: dict[tuple[str, int], float] = {}
        self._look_at = 0.0

    def submit(self, keys: Sequence[str]) -> dict[str, str]:
        """See :meth:`dft.launcher.Launcher.submit`."""
        for calculation in map(self._calculation, keys):
            if calculation.result() is None:
                calculation.require_flow()
                calculation.allow()
        self._look_at = 0.0
        self.poll(keys)
        return dict.fromkeys(keys, self.place)

    def poll(self, keys: Sequence[str]) -> dict[str, State]:
        """See :meth:`dft.launcher.Launcher.poll`; looks every ``poll_s`` seconds only."""
        if time.monotonic() >= self._look_at or not self._states.keys() >= set(keys):
            with try_lock_file(self.allocations.lock_path) as lock:
                pause = self.settings.poll_s if lock is not None else _BUSY_S
                self._look_at = time.monotonic() + pause
                if lock is not None:
                    self._advance(keys, lock)
            self._states |= self._view(keys)
        return {key: self._states[key] for key in keys}

    def cancel(self, keys: Sequence[str]) -> None:
        """See :meth:`dft.launcher.Launcher.cancel`."""
        wanted = {
            key for key in keys if self._calculation(key).is_ready() and not self._is_done(key)
        }
        for key in wanted:
            self._mark(key, "cancelled by hand")
        with try_lock_file(self.allocations.lock_path, _LOCK_PATIENCE_S) as lock:
            if lock is None:
                raise UserError(f"Another process holds {self.allocations.lock_path}; try again.")
            try:
                names = [a.name for a in self.allocations.open()]
                snapshot = Snapshot(0.0, self.queue.jobs(names) if names else [])
                self.queue.cancel(self._jobs_without_work(wanted, snapshot))
            except NotNowError as error:
                raise UserError(
                    f"Slurm does not answer ({error}); what waits or runs is cancelled no sooner "
                    "than it does: repeat the command then."
                ) from None
        self._look_at = 0.0

    def fetch(self, key: str) -> CalculationOutput:
        """See :meth:`dft.launcher.Launcher.fetch`."""
        return fetched(self._calculation(key))

    def close(self) -> None:
        """See :meth:`dft.launcher.Launcher.close`."""

    def look(self, keys: Sequence[str]) -> dict[str, Activity]:
        """See :meth:`dft.launcher.Launcher.look`."""
        snapshot = self._snapshots.last()
        states = self._view(keys)
        share = self.settings.nodes * self.settings.cores / self.settings.at_once
        found = {k: of_directory(self._calculation(k), states[k], share) for k in keys}
        for allocation in self.allocations.open():
            for key, task in allocation.held.items():
                if key in found and states[key] in (State.RUNNING, State.PENDING):
                    job = _job(allocation, task, snapshot)
                    found[key] = _of_job(found[key], allocation, task, job)
        return found

    # What follows is for who holds the lock.

    def _advance(self, keys: Sequence[str], lock: int) -> None:
        opened = self.allocations.open()
        unsent = any(a.job_id is None for a in opened)
        snapshot = self._snapshots.take([a.name for a in opened], fresh=unsent)
        if snapshot is None:
            return
        troubles: list[UserError] = []
        for allocation in opened:
            try:
                self._settle(allocation, snapshot, lock, troubles)
            except NotNowError as error:
                self._patience.bear(error)
        if troubles:
            raise troubles[0]
        self._send(keys, lock)

    def _settle(
        self, allocation: Allocation, snapshot: Snapshot, lock: int, troubles: list[UserError]
    ) -> None:
        """Bring a job's record up to date; close it when nothing more can come of it."""
        if allocation.job_id is None:
            known = self._find(allocation, snapshot)
            if known is None:
                if any(self._is_free(key) for key in allocation.held):
                    self._sbatch(allocation, lock)
                else:
                    self.allocations.withdraw(allocation)
                return
            allocation = self.allocations.submitted(allocation, known)
        live = False
        released = []
        for number, keys in enumerate(allocation.tasks):
            left = [key for key in keys if not self._is_done(key)]
            if number in allocation.released or not left:
                continue
            job = _job(allocation, number, snapshot)
            if job is not None and job.state in WAITING and job.reason in NEVER:
                self.queue.cancel([allocation.job_id or ""])
                self.allocations.withdraw(allocation)
                troubles.append(refused(job.reason, _asked(job.reason), self.settings))
                return
            if not self._is_over(allocation, number, left, job, snapshot):
                live = True
                continue
            released.append(number)
            if (trouble := self._dispose(allocation, number, left, job)) is not None:
                troubles.append(trouble)
        if released:
            allocation = replace(allocation, released=(*allocation.released, *released))
        if not live:
            self.allocations.close(allocation)
        elif released:
            self.allocations.save(allocation)

    def _find(self, allocation: Allocation, snapshot: Snapshot) -> str | None:
        """The number of a job whose submission was interrupted, where Slurm has it."""
        name = allocation.name
        found = {job.job_id for job in snapshot.jobs if job.name == name}
        if not found:
            since = datetime.fromisoformat(allocation.created_at)
            found = {job.job_id for job in self.queue.history(name, since) or ()}
        numbers = sorted(found, key=int)
        # A submission that was thought to be lost and came late: one of the two is enough.
        self.queue.cancel(numbers[1:])
        return numbers[0] if numbers else None

    def _is_over(
        self, allocation: Allocation, task: int, left: Sequence[str], job: Job | None,
        snapshot: Snapshot,
    ) -> bool:  # fmt: skip
        """Whether nothing more can come of a task, and its files have had the time to appear."""
        submitted = datetime.fromisoformat(allocation.submitted_at or allocation.created_at)
        gone = job.is_over if job is not None else snapshot.taken_at > submitted.timestamp()
        where = (allocation.name, task)
        if not gone or any(is_locked(self._calculation(key).lock_path) for key in left):
            self._over.pop(where, None)
            return False
        return time.monotonic() - self._over.setdefault(where, time.monotonic()) >= (
            self.settings.settle_s
        )

    def _dispose(
        self, allocation: Allocation, task: int, left: Sequence[str], job: Job | None
    ) -> UserError | None:
        """Decide what becomes of the open calculations of a task that is over."""
        if job is None:
            since = datetime.fromisoformat(allocation.created_at)
            history = self.queue.history(allocation.name, since, allocation.job_id) or ()
            job = next((j for j in reversed(history) if j.task == task), None)
        number = allocation.name_of(task)
        state = "" if job is None else job.state
        begun = self.allocations.has_started(allocation.name, task)
        if job is not None and state == "CANCELLED" and (begun or not job.was_turned_away):
            for key in left:
                self._mark(key, f"job {number} was cancelled in the queue")
            return None
        handles = {key: self._calculation(key).handle() for key in left}
        ours = [k for k, h in handles.items() if h is not None and h.slot.startswith(f"{number}.")]
        ended = f"job {number} ended{f' as {state}' if state else ''}"
        for key in ours:
            handle = handles[key]
            assert handle is not None
            if state == "OUT_OF_MEMORY":
                self._give_up(key, f"out of memory: {ended}; raise launcher.memory_gb", False)
            elif handle.attempt >= self.settings.attempts:
                text = f"{ended}, after {handle.attempt} attempts"
                self._give_up(key, text, state == "TIMEOUT")
        status = None if job is None or state != "FAILED" else self.queue.exit_status(job)
        if status in STORAGE_ERRORS:
            return unwritable(self.root, OSError(status, os.strerror(status or 0)))
        if ours or state in _NOT_ITS_FAULT or any(
            self._is_done(key) for key in allocation.tasks[task]
        ):  # fmt: skip
            return None
        tries = max(
            self.allocations.submissions(key) - (h.attempt if (h := handles[key]) else 0)
            for key in left
        )
        if status or tries >= _FRUITLESS:
            output = self.allocations.output(allocation.name, task, len(allocation.tasks))
            return UserError(
                f"Job {number} ended{f' as {state}' if state else ''} before it could start a "
                f"calculation ({_last_words(output)}); see {output}, and correct what the campaign "
                "says in launcher.modules, launcher.pre_run or launcher.python."
            )
        return None

    def _send(self, keys: Sequence[str], lock: int) -> None:
        """Submit what is in no job, as far as the limit on jobs allows."""
        opened = self.allocations.open()
        taken = {key for allocation in opened for key in allocation.held}
        free = [key for key in keys if key not in taken and self._is_free(key)]
        under_way = sum(
            any(not self._is_done(key) for key in keys)
            for allocation in opened
            for number, keys in enumerate(allocation.tasks)
            if number not in allocation.released
        )
        room = max(self.settings.max_jobs - under_way, 0)
        tasks = chunks(free, self.settings.pack)[:room]
        for group in chunks(tasks, self.settings.array):
            wanted = self.settings
            plan = Plan(group, wanted.at_once, wanted.attempts, wanted.timeout_s)
            allocation = self.allocations.create(group, wanted.nodes * wanted.cores, plan)
            try:
                self._sbatch(allocation, lock)
            except NotNowError as error:
                # Slurm counts our jobs a little longer than they last.
                (self._crowded if error.full and not under_way else self._patience).bear(error)
                return
            under_way += len(group)

    def _sbatch(self, allocation: Allocation, lock: int) -> None:
        """Hand a job over.

        Raises
        ------
        NotNowError
            It may have been taken; the next look finds out.
        UserError
            Slurm refuses it; nothing was taken.
        """
        name = allocation.name
        python = self.settings.python or sys.executable
        command = ["exec", "env", f"PYTHONPATH={import_path()}", python, "-P", "-m"]
        command += ["dft.slurm_task", str(self.root), name, TASK_ARGUMENT]
        try:
            number = self.queue.submit(
                self.allocations.directory(name), name, command, len(allocation.tasks), lock
            )
        except NotNowError as error:
            if error.full:
                self.allocations.withdraw(allocation)
            raise
        except UserError:
            self.allocations.withdraw(allocation)
            raise
        self.allocations.submitted(allocation, number)
        self._patience.renew()
        self._crowded.renew()

    def _jobs_without_work(self, keys: set[str], snapshot: Snapshot) -> Iterator[str]:
        """Jobs and tasks all of whose open calculations are among ``keys``."""
        for allocation in self.allocations.open():
            job_id = allocation.job_id or self._find(allocation, snapshot)
            for number, task in enumerate(allocation.tasks):
                left = {key for key in task if not self._is_done(key)}
                known = replace(allocation, job_id=job_id)
                if left and left <= keys and _job(known, number, snapshot) is not None:
                    yield known.name_of(number)

    # Looking needs no lock.

    def _view(self, keys: Sequence[str]) -> dict[str, State]:
        snapshot = self._snapshots.last()
        states = {}
        running = {
            key
            for allocation in self.allocations.open()
            for key, task in allocation.held.items()
            if (job := _job(allocation, task, snapshot)) is not None and job.state in RUNNING
        }
        for key in keys:
            if self._is_done(key):
                states[key] = State.DONE
            elif not self._calculation(key).is_ready():
                states[key] = State.LOST
            else:
                states[key] = State.RUNNING if key in running else State.PENDING
        return states

    def _is_done(self, key: str) -> bool:
        # A result never changes once it is there, so that each is read only once.
        if key not in self._done and self._calculation(key).result() is not None:
            self._done.add(key)
        return key in self._done

    def _is_free(self, key: str) -> bool:
        calculation = self._calculation(key)
        return (
            calculation.is_ready()
            and not self._is_done(key)
            and not is_locked(calculation.lock_path)
        )

    def _give_up(self, key: str, reason: str, timed_out: bool) -> None:
        calculation = self._calculation(key)
        calculation.conclude(failed(calculation, None if timed_out else reason, external=True))

    def _mark(self, key: str, why: str) -> None:
        path = self._calculation(key).cancelled_path
        if not path.exists():
            atomic_write(path, f"{why}\n")

    def _calculation(self, key: str) -> Calculation:
        return Calculation(self.root / key)


def _job(allocation: Allocation, task: int, snapshot: Snapshot) -> Job | None:
    job = snapshot.by_number.get((allocation.job_id or "", task))
    # A controller that lost its last jobs in a crash gives their numbers to others.
    return job if job is not None and job.name == allocation.name else None


def _of_job(files: Activity, allocation: Allocation, task: int, job: Job | None) -> Activity:
    """What files say, and what Slurm says beside it."""
    if allocation.job_id is None:
        return replace(files, where="on its way to Slurm", since=allocation.created_at)
    where = f"job {allocation.name_of(task)}"
    if files.state is State.RUNNING:
        return replace(files, where=f"{where} on {job.nodes}" if job and job.nodes else where)
    since = allocation.submitted_at or allocation.created_at
    return replace(files, where=where, since=since, note=job.reason if job else "")


def _asked(reason: str) -> str:
    """Which settings asked for too much."""
    words = {"Time": "time", "Wall": "time", "Account": "account", "InvalidQOS": "qos"}
    return next((field for word, field in words.items() if word in reason), "time, nodes, cores")


def _last_words(output: Path) -> str:
    try:
        lines = output.read_text(errors="replace").splitlines()
    except OSError:
        return "it printed nothing"
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no output")
