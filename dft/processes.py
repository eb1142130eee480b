"""Finding and ending all processes of one calculation.

Every calculation runs in a session of its own, whose number is the process id of its leader. What
an engine starts stays in that session even where it makes process groups of its own, as ``mpirun``
does, and even when the leader is dead.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TIMES = slice(11, 15)
"""Behind the name in ``/proc/PID/stat``: own user and system time, and those of ended children."""


def session_members(session: int, *, inside: Path | None = None) -> list[int]:
    """Process ids in ``session``, only those working in or below ``inside`` if it is given.

    The second condition guards against a number that was given to a stranger since.
    """
    found = []
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdigit() and _belongs(int(entry.name), session, inside):
            found.append(int(entry.name))
    return found


def kill_session(
    session: int, *, inside: Path | None = None, number: int = signal.SIGKILL
) -> list[int]:
    """Send a signal to the other processes in ``session``; returns whom it was sent to."""
    members = [pid for pid in session_members(session, inside=inside) if pid != os.getpid()]
    for pid in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return members


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, which made it, dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Have descendants whose parent dies become children of this process, which can count them."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap(patience_s: float = 1.0) -> None:
    """Wait for children that were killed: only then is what they took known to the kernel."""
    give_up = time.monotonic() + patience_s
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < give_up:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)


def cpu_seconds(session: int, *, inside: Path) -> float:
    """Processor time that the processes of a session have used so far."""
    ticks = 0
    for pid in session_members(session, inside=inside):
        with contextlib.suppress(OSError):
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[_TIMES]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _belongs(pid: int, session: int, inside: Path | None) -> bool:
    try:
        if os.getsid(pid) != session:
            return False
        return inside is None or (_PROC / str(pid) / "cwd").readlink().is_relative_to(inside)
    except OSError:
        return False
