"""One worker: ``python -m dft.worker ROOT SLOT TIMEOUT KEY...``

It occupies one slot of ``ROOT`` and runs, one after the other, those of the given calculations
that have no result and that nobody else runs. It depends on no other process: it goes on when
whoever started it is killed, and what it leaves undone when it is killed itself is taken up by the
next worker. ``TIMEOUT`` is the wall time of one calculation in seconds, or ``none``.

Exit status: 0 when there is nothing left to do or the slot is taken; the ``errno`` of the disk's
trouble (28: no space left) when a file could not be written.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import mmap
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from dft.calculation import Calculation
from dft.execution import Attempt, execute, failed, leave, os_errno, preload
from dft.locks import try_lock
from dft.processes import kill_session
from screening.errors import UserError

MAX_RETRIES = 2
"""How often a calculation is started again after it died together with its worker."""

GRACE_S = 2.0
"""A calculation ends itself at its time limit; one that does not is ended this much later."""

SLOTS = ".slots"
"""Directory below the root with one lock and one log per slot."""


_REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""A machine going down or a person asks a process to end so: no fault of the calculation."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """What is made of a calculation that does not come to its end.

    Attributes
    ----------
    retries
        How often it is started again.
    requests
        Signals that end its process without that being its result.
    mortal
        Whether it ends with its worker; otherwise it lives on without it.
    """

    retries: int = MAX_RETRIES
    requests: tuple[int, ...] = _REQUESTS
    mortal: bool = False


LOCAL = Terms()


class StorageError(Exception):
    """A result could not be stored; its argument is the ``errno``."""


def main(arguments: list[str] | None = None) -> int:
    """Work through the calculations named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="dft.worker", description="Run calculations, in order.")
    parser.add_argument("root", type=Path, help="directory of the calculations")
    parser.add_argument("slot", help="name of the slot to occupy")
    parser.add_argument("timeout", type=_seconds, help="seconds per calculation, or 'none'")
    parser.add_argument("keys", nargs="+", metavar="key", help="calculations to run")
    given = parser.parse_args(arguments)
    root = given.root.resolve()
    try:
        (root / SLOTS).mkdir(parents=True, exist_ok=True)
        with try_lock(root / SLOTS / given.slot) as held:
            if held:
                preload()
                for key in given.keys:
                    attend(Calculation(root / key), given.slot, given.timeout)
    except (StorageError, UserError, OSError) as error:
        number = error.args[0] if isinstance(error, StorageError) else os_errno(error)
        _say(f"stopped: {error if number is None else os.strerror(number)}; nothing is lost")
        return number or 1
    return 0


def attend(
    calculation: Calculation, slot: str, timeout_s: float | None, terms: Terms = LOCAL
) -> None:
    """Run the calculation unless it has a result, is being run, or is not to be run.

    Raises
    ------
    StorageError, UserError
        A file could not be written; the calculation has no result then, and stays pending.
    """
    if not calculation.is_ready() or calculation.result() is not None:
        return
    with try_lock(calculation.lock_path) as held:
        # Another worker may have finished it, and a person cancelled it, since the look above.
        if not held or calculation.result_under_lock() is not None or not calculation.is_ready():
            return
        last = calculation.handle()
        if last is not None:
            kill_session(last.pid, inside=calculation.directory)
            calculation.close_execution()
            if last.attempt > terms.retries:
                _say(f"{calculation.key} given up after {last.attempt} attempts")
                error = f"worker died {last.attempt} times"
                output = failed(calculation, error, external=True)
                calculation.write_result(dataclasses.replace(output, cpu_s=calculation.spent_s()))
                return
        number = 1 if last is None else last.attempt + 1
        _run(calculation, Attempt(slot, os.getpid(), number, timeout_s, terms.mortal), terms)


def _run(calculation: Calculation, attempt: Attempt, terms: Terms) -> None:
    _say(f"{calculation.key} starts, attempt {attempt.number}")
    limit_s = None if attempt.timeout_s is None else attempt.timeout_s + GRACE_S
    begun = time.monotonic()
    # Shared memory tells of trouble even where no byte can be written to a file any more.
    with mmap.mmap(-1, 1) as trouble:
        pid = os.fork()
        if pid == 0:
            _child(calculation, attempt, trouble)
        try:
            status, usage = _wait(pid, limit_s)
        finally:
            # Our locks must not be released while anything of the calculation is alive.
            kill_session(pid)
        if trouble[0]:
            # The disk's failure is not an attempt that failed. Removing a file needs no space.
            with contextlib.suppress(OSError):
                calculation.handle_path.unlink(missing_ok=True)
            _say(
                f"{calculation.key} stays pending, its files could not be written: "
                f"{os.strerror(trouble[0])}"
            )
            raise StorageError(trouble[0])
    if calculation.result_under_lock() is not None:
        _say(f"{calculation.key} has a result")
    elif calculation.cancelled_path.exists():
        _say(f"{calculation.key} was cancelled")
    elif status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) in terms.requests:
        _say(f"{calculation.key} {_ending(status)} and stays pending")
    else:
        output = failed(calculation, None if status is None else f"the process {_ending(status)}")
        wall_s = time.monotonic() - begun
        # What its programs used is lost with it: then the clock says what it took.
        cpu_s = max(usage.ru_utime + usage.ru_stime, wall_s) + calculation.spent_s()
        calculation.write_result(dataclasses.replace(output, cpu_s=cpu_s, wall_s=wall_s))
        _say(f"{calculation.key} {_ending(status)}")


def _child(calculation: Calculation, attempt: Attempt, trouble: mmap.mmap) -> NoReturn:
    status = 1
    try:
        execute(calculation, attempt)
        status = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process ends here
        trouble[0] = os_errno(error) or 0
        _say(f"not recorded: {error}")
    finally:
        leave(status)


def _wait(pid: int, limit_s: float | None) -> tuple[int | None, resource.struct_rusage]:
    """Wait for a child; None instead of its status if it had to be ended at the limit."""
    begun = time.monotonic()
    pause = 0.001
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage
        if limit_s is not None and time.monotonic() - begun > limit_s:
            kill_session(pid)
            os.kill(pid, signal.SIGKILL)
            _, _, usage = os.wait4(pid, 0)
            return None, usage
        time.sleep(pause)
        pause = min(pause * 1.3, 0.05)


def _ending(status: int | None) -> str:
    if status is None:
        return "had to be ended at its time limit"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was killed by signal {number} ({signal.strsignal(number)})"
    return f"ended with status {os.WEXITSTATUS(status)} and without a result"


def _seconds(text: str) -> float | None:
    return None if text == "none" else float(text)


def _say(message: str) -> None:
    """One line to the worker's log; a full disk must not stop the worker from saying it ends."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {message}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    # Die at once, as by any other signal, and leave the calculation in peace: an exception on its
    # way up would release locks that the calculation still needs.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
