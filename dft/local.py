"""Calculations as processes on this machine (Linux)."""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import dft
from dft.activity import Activity, of_directory
from dft.calculation import Calculation, State
from dft.engine import CalculationOutput
from dft.locks import is_locked, try_lock
from dft.processes import cpu_seconds, kill_session
from dft.settings import LocalLauncherSettings
from dft.worker import SLOTS
from screening.errors import UserError
from screening.io import unwritable

_STORAGE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
)
_CANCEL_PATIENCE_S = 10.0

_outlived: list[subprocess.Popen[bytes]] = []
"""Workers that are to go on after their launcher is closed; kept so that they can be reaped."""


class LocalLauncher:
    """Up to ``max_parallel`` calculations at a time, by workers that survive this process.

    There are as many slots as calculations may run at the same time. A slot and a calculation are
    each taken by holding a kernel lock, so that any number of launchers over one root, in one
    process or in several, respect the same limit and run nothing twice; the largest
    ``max_parallel`` among them counts.
    """

    def __init__(self, root: Path, settings: LocalLauncherSettings) -> None:
        self.root = Path(root).resolve()
        self.settings = settings
        self.place = f"local:{socket.gethostname()}"
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._done: set[str] = set()
        slots = self.root / SLOTS
        try:
            slots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(slots, error) from error
        # Fails here, with a clear sentence, where files cannot be made or locked.
        with try_lock(slots / ".probe"):
            pass

    def submit(self, keys: Sequence[str]) -> dict[str, str]:
        """See :meth:`dft.launcher.Launcher.submit`."""
        for calculation in map(self._calculation, keys):
            if calculation.result() is None:
                calculation.require_flow()
                calculation.allow()
        self.poll(keys)
        return dict.fromkeys(keys, self.place)

    def poll(self, keys: Sequence[str]) -> dict[str, State]:
        """See :meth:`dft.launcher.Launcher.poll`."""
        self._reap()
        states = {key: self._state(key) for key in keys}
        pending = [key for key, state in states.items() if state is State.PENDING]
        if pending:
            self._staff(pending)
        return states

    def cancel(self, keys: Sequence[str]) -> None:
        """See :meth:`dft.launcher.Launcher.cancel`.

        Raises
        ------
        UserError
            One of them runs on another machine, or does not end.
        """
        calculations = [self._calculation(key) for key in keys]
        unfinished = [c for c in calculations if c.flow_path.exists() and c.result() is None]
        for calculation in unfinished:
            try:
                calculation.cancelled_path.touch()
            except OSError as error:
                raise unwritable(calculation.cancelled_path, error) from error
        for calculation in unfinished:
            _end(calculation)

    def look(self, keys: Sequence[str]) -> dict[str, Activity]:
        """See :meth:`dft.launcher.Launcher.look`."""
        return {key: _look(self._calculation(key), self._state(key)) for key in keys}

    def fetch(self, key: str) -> CalculationOutput:
        """See :meth:`dft.launcher.Launcher.fetch`."""
        return fetched(self._calculation(key))

    def close(self) -> None:
        """See :meth:`dft.launcher.Launcher.close`."""
        _outlived.extend(self._workers.values())
        self._workers.clear()
        _outlived[:] = [worker for worker in _outlived if worker.poll() is None]

    def _calculation(self, key: str) -> Calculation:
        return Calculation(self.root / key)

    def _state(self, key: str) -> State:
        # A result never changes once it is there, so that each is read only once.
        if key in self._done:
            return State.DONE
        state = self._calculation(key).state()
        if state is State.DONE:
            self._done.add(key)
        return state

    def _staff(self, pending: list[str]) -> None:
        """Start workers in free slots, at most one per pending calculation."""
        slots = [str(number) for number in range(self.settings.max_parallel)]
        free = [s for s in slots if s not in self._workers and not is_locked(self._slot(s))]
        for slot in free[: len(pending)]:
            self._workers[slot] = self._spawn(slot, pending)

    def _spawn(self, slot: str, keys: list[str]) -> subprocess.Popen[bytes]:
        timeout = self.settings.timeout_s
        # -P: a file in the current directory must not be taken for one of our modules.
        command = [sys.executable, "-P", "-m", "dft.worker", str(self.root), slot]
        command += ["none" if timeout is None else repr(timeout), *keys]
        log = self._log(slot)
        try:
            with log.open("ab") as output:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self.root,
                    env={**os.environ, "PYTHONPATH": import_path()},
                    start_new_session=True,
                )
        except OSError as error:
            raise unwritable(log, error) from error

    def _reap(self) -> None:
        """Forget workers that have ended.

        Raises
        ------
        UserError
            One of them ended because it could not go on. One that was killed is no such case.
        """
        ended = {s: w.returncode for s, w in self._workers.items() if w.poll() is not None}
        for slot in ended:
            del self._workers[slot]
        for slot, status in ended.items():
            if status in _STORAGE:
                raise unwritable(self.root, OSError(status, os.strerror(status)))
            if status > 0:
                raise UserError(
                    f"The worker that runs calculations ended with status {status} "
                    f"({_last_line(self._log(slot))}); see {self._log(slot)}, "
                    "and run the same command again, everything finished so far is kept."
                )

    def _slot(self, slot: str) -> Path:
        return self.root / SLOTS / slot

    def _log(self, slot: str) -> Path:
        return self.root / SLOTS / f"{slot}.log"


def fetched(calculation: Calculation) -> CalculationOutput:
    """The result of a calculation that is done.

    Raises
    ------
    UserError
        It is not.
    """
    output = calculation.result()
    if output is None:
        raise UserError(
            f"Calculation {calculation.key} has no result (it is {calculation.state()}); "
            f"see {calculation.directory}, and submit it if nothing runs."
        )
    return output


def _look(calculation: Calculation, state: State) -> Activity:
    """What the files of a calculation say, and the kernel about its processes."""
    found = of_directory(calculation, state)
    handle = calculation.handle()
    if state is not State.RUNNING or handle is None or handle.host != socket.gethostname():
        return found
    used = cpu_seconds(handle.pid, inside=calculation.directory)
    # However a program is started, and idle or not: no less than one core is occupied.
    return dataclasses.replace(found, cores=max(used / max(found.running_s, 1.0), 1.0))


def _end(calculation: Calculation) -> None:
    """Kill what runs the calculation, and wait until it is gone."""
    give_up = time.monotonic() + _CANCEL_PATIENCE_S
    while is_locked(calculation.lock_path):
        handle = calculation.handle()
        if handle is not None and handle.host != socket.gethostname():
            raise UserError(
                f"Calculation {calculation.key} runs on {handle.host}; cancel it there."
            )
        # Between taking the lock and writing the handle, the handle is absent or an old one.
        if handle is not None:
            kill_session(handle.pid, inside=calculation.directory)
        if time.monotonic() > give_up:
            raise UserError(
                f"Calculation {calculation.key} does not end; "
                f"look for processes working in {calculation.directory} and end them."
            )
        time.sleep(0.02)


def import_path() -> str:
    """PYTHONPATH for a worker: what this process was given, independent of its directory."""
    ours = str(Path(dft.__file__).resolve().parent.parent)
    given = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return os.pathsep.join([ours, *(str(Path(path).resolve()) for path in given)])


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return "no log"
    return next((line.strip() for line in reversed(lines) if line.strip()), "empty log")
