"""What a job on a cluster runs: ``python -m dft.slurm_task ROOT NAME TASK``

It runs the calculations of one task of the job NAME (see :mod:`dft.allocations`), side by side as
far as the job allows it. What it leaves undone, because its time is over or its node fails, is
taken up by another job, and goes on from what the engine has left in the directory.

Exit status: 0 when nothing is left to do; the ``errno`` of the disk's trouble (28: no space left)
when a file could not be written; 1 for anything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dft.allocations import JOBS, Plan, read_plan
from dft.calculation import Calculation
from dft.execution import os_errno, preload
from dft.locks import is_locked
from dft.processes import die_with, kill_session
from dft.worker import StorageError, Terms, attend
from screening.errors import UserError
from screening.io import atomic_write

WATCH_S = 1.0
"""Between two looks for calculations that a person has cancelled."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one task; returns the exit status."""
    root, name, task = (sys.argv[1:] if arguments is None else arguments)[:3]
    place = Path(root).resolve()
    try:
        plan = read_plan(place, name)
        note = {"host": socket.gethostname(), "job": job_name(), "at": _now()}
        atomic_write(place / JOBS / name / f"started-{task}", json.dumps(note) + "\n")
    except (OSError, UserError) as error:
        return _trouble(error)
    calculations = [Calculation(place / key) for key in plan.tasks[int(task)]]
    preload()
    workers = [
        _fork(calculations, plan, number) for number in range(min(plan.at_once, len(calculations)))
    ]
    return max(_wait(workers, calculations))


def job_name() -> str:
    """This job as Slurm's commands name it, ``17`` or ``17_3``."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    if task is None:
        return os.environ.get("SLURM_JOB_ID", "0")
    return f"{os.environ.get('SLURM_ARRAY_JOB_ID', '0')}_{task}"


def _fork(calculations: Sequence[Calculation], plan: Plan, number: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        # Whatever ends the job ends all of it: another job may take up its calculations.
        die_with(parent)
        status = _work(calculations, plan, f"{job_name()}.{number}")
    finally:
        os._exit(status)


def _work(calculations: Sequence[Calculation], plan: Plan, slot: str) -> int:
    # On a cluster a kill comes from outside, be it by a person, the scheduler or a failing node.
    requests = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
    terms = Terms(plan.attempts - 1, requests, mortal=True)
    for calculation in calculations:
        try:
            attend(calculation, slot, plan.timeout_s, terms)
        except (StorageError, UserError, OSError) as error:
            return _trouble(error)
    return 0


def _wait(workers: Sequence[int], calculations: Sequence[Calculation]) -> list[int]:
    """Exit statuses of the workers; ends what is cancelled while they work."""
    left, statuses = set(workers), []
    looked = time.monotonic()
    while left:
        for pid in list(left):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                left.remove(pid)
                statuses.append(max(os.waitstatus_to_exitcode(status), 0))
        if time.monotonic() - looked > WATCH_S:
            looked = time.monotonic()
            for calculation in calculations:
                _end_cancelled(calculation)
        time.sleep(0.05)
    return statuses


def _end_cancelled(calculation: Calculation) -> None:
    if not calculation.cancelled_path.exists() or not is_locked(calculation.lock_path):
        return
    handle = calculation.handle()
    if handle is not None and handle.host == socket.gethostname():
        kill_session(handle.pid, inside=calculation.directory)


def _trouble(error: Exception) -> int:
    number = error.args[0] if isinstance(error, StorageError) else os_errno(error)
    text = os.strerror(number) if number else str(error)
    with contextlib.suppress(OSError):
        sys.stderr.write(f"stopped: {text}; nothing is lost\n")
        sys.stderr.flush()
    return number or 1


def _now() -> str:
    return datetime.now(UTC).isoformat()


if __name__ == "__main__":
    # Die at once, as by any other signal: an exception might become the calculation's result.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
