"""Running one calculation to its end, in a process made for it.

The process outlives the worker that made it, and writes the result itself, so that a calculation
is not lost with its worker. It inherits the worker's locks, so that nobody takes the calculation
or the slot while it lives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dft import attempts
from dft.calculation import Calculation, Handle
from dft.engine import CalculationOutput
from dft.processes import adopt_orphans, die_with, kill_session, reap
from screening.errors import UserError

if TYPE_CHECKING:
    from jobflow.core.flow import Flow
    from jobflow.core.store import JobStore

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Troubles of the disk, not of the calculation: they must never be recorded as its result."""

_LONGEST_ERROR = 500


@dataclass(frozen=True)
class Attempt:
    """The circumstances of one execution, as its worker sets them."""

    slot: str
    worker_pid: int
    number: int
    timeout_s: float | None
    mortal: bool = False


class _TimeLimit(BaseException):
    """Raised where the flow happens to be when its time is over.

    Not an ``Exception``: a flow that catches those must not swallow it.
    """


def preload() -> None:
    """Import what every flow needs, once, before the processes that need it are forked."""
    import jobflow.utils.graph  # noqa: F401
    import networkx  # noqa: F401


def execute(calculation: Calculation, attempt: Attempt) -> None:
    """Run the flow in this process and write its result; whatever the flow does becomes a result.

    Raises
    ------
    UserError, OSError
        A file could not be written. There is no result then.
    """
    os.setsid()
    adopt_orphans()
    if attempt.mortal:
        die_with(attempt.worker_pid)
    _redirect(calculation.log_path)
    os.chdir(calculation.directory)
    calculation.sweep()
    calculation.write_handle(
        Handle(
            host=socket.gethostname(),
            pid=os.getpid(),
            worker_pid=attempt.worker_pid,
            slot=attempt.slot,
            attempt=attempt.number,
            started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
    )
    begun = time.monotonic()
    output = _guarded(calculation, attempt.timeout_s)
    # Whatever the flow left running would hold files, memory and a share of the machine.
    kill_session(os.getpid())
    reap()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    calculation.write_result(
        dataclasses.replace(
            output,
            cpu_s=sum(part.ru_utime + part.ru_stime for part in usage) + calculation.spent_s(),
            wall_s=time.monotonic() - begun,
        )
    )


def os_errno(error: BaseException | None) -> int | None:
    """The ``errno`` of the system's refusal that is the cause of ``error``, or None."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        error = error.__cause__
    return None


def failed(
    calculation: Calculation, error: str | None, *, external: bool = False
) -> CalculationOutput:
    """The result of a calculation that failed with ``error``, or ran out of time without one.

    With the attempts that it had made. ``external`` as in :class:`~dft.engine.CalculationOutput`.
    """
    description = calculation.description() or {}
    made = attempts.recorded(calculation.directory)
    engine = str(description.get("engine", ""))
    return dataclasses.replace(
        CalculationOutput.failure(engine, error=error, external=external),
        attempts=made,
        cost={"cpu_s": round(sum(attempt["cpu_s"] for attempt in made), 2)} if made else {},
    )


def _redirect(log_path: Path) -> None:
    """Send what this process and its programs print to ``log_path``, line by line."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115


def _guarded(calculation: Calculation, timeout_s: float | None) -> CalculationOutput:
    try:
        with _time_limit(timeout_s):
            return _run_flow(calculation)
    except _TimeLimit:
        sys.stdout.write(f"stopped at the time limit of {timeout_s:g} s\n")
        return failed(calculation, None)
    except BaseException as error:
        if os_errno(error) in STORAGE_ERRORS:
            raise
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())
        # What a person can put right is no property of the crystal.
        external = isinstance(error, UserError)
        return failed(calculation, text[:_LONGEST_ERROR], external=external)


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TimeLimit

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _run_flow(calculation: Calculation) -> CalculationOutput:
    from jobflow.core.store import JobStore
    from jobflow.managers.local import run_locally
    from maggma.stores import MemoryStore
    from monty.json import MontyDecoder

    # jobflow itself calls something deprecated; nobody who reads run.log can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"jobflow\.managers")
    flow = json.loads(calculation.flow_path.read_bytes(), cls=MontyDecoder)
    store = JobStore(MemoryStore())
    run_locally(flow, store=store, create_folders=False, raise_immediately=True)
    return resolved(flow, store)


def resolved(flow: Flow, store: JobStore) -> CalculationOutput:
    """The answer that a flow has left in its store.

    Raises
    ------
    ValueError
        There is none.
    """
    record = flow.output.resolve(store)
    # jobflow revives what looks like an object; the record is plain JSON.
    relaxed: Any = record.get("relaxed_structure") if isinstance(record, dict) else None
    if hasattr(relaxed, "as_dict"):
        record = {**record, "relaxed_structure": json.loads(json.dumps(relaxed.as_dict()))}
    return CalculationOutput.from_dict(record)


def leave(status: int) -> NoReturn:
    """End this process at once, without the clean-up that belongs to the worker it came from."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
