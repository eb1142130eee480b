"""Calculations on a cluster that is reached over SSH."""

from __future__ import annotations

import hashlib
import json
import shlex
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dft.activity import Activity, of_directory
from dft.agent import INPUTS, MARK, OUTPUTS, pack, unpack
from dft.allocations import chunks
from dft.calculation import Calculation, State
from dft.engine import CalculationOutput
from dft.local import fetched
from dft.slurm_settings import SlurmLauncherSettings, SshSettings
from dft.ssh import ConnectionLostError, Login
from screening.errors import UserError
from screening.io import atomic_write, unwritable

TOGETHER = 100
"""Calculations in one request."""
TRIES = 3
"""How often a request is repeated before a command of a person is given up."""


class RemoteLauncher:
    """Keeps directories here and has them calculated there, below ``ssh.directory``.

    The far side runs a :class:`~dft.slurm.SlurmLauncher` on directories of the same keys, for each
    request anew (:mod:`dft.agent`). Requests may be repeated, so that a connection may end at any
    moment: what was asked is asked again. All who use one ``ssh.directory`` share its calculations.
    """

    def __init__(self, root: Path, settings: SlurmLauncherSettings) -> None:
        assert settings.ssh is not None
        self.root = Path(root).resolve()
        self.ssh: SshSettings = settings.ssh
        self.place = f"ssh:{self.ssh.host} from {socket.gethostname()}"
        self.settings = settings
        there = settings.model_copy(update={"ssh": None, "python": settings.python})
        self._there = there.model_dump(mode="json")
        self._login = Login(self.ssh)
        self._states: dict[str, State] = {}
        self._staged: set[str] = set()
        self._look_at = 0.0
        self._mute_since: float | None = None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.root, error) from error

    def submit(self, keys: Sequence[str]) -> dict[str, str]:
        """See :meth:`dft.launcher.Launcher.submit`."""
        wanted = []
        for calculation in map(self._calculation, keys):
            if calculation.result() is None:
                calculation.require_flow()
                calculation.allow()
                wanted.append(calculation.key)
        self._stage(wanted, insist=True)
        self._look_at = 0.0
        return dict.fromkeys(keys, self.place)

    def poll(self, keys: Sequence[str]) -> dict[str, State]:
        """See :meth:`dft.launcher.Launcher.poll`; asks every ``poll_s`` seconds only."""
        if time.monotonic() >= self._look_at or not self._states.keys() >= set(keys):
            self._look_at = time.monotonic() + self.settings.poll_s
            self._states |= {key: self._state_here(key) for key in keys}
            undone = [key for key in keys if self._states[key] is State.PENDING]
            try:
                self._stage([key for key in undone if key not in self._staged], insist=False)
                for group in chunks(undone, TOGETHER):
                    self._poll(group)
                self._mute_since = None
            except ConnectionLostError as error:
                self._bear(error)
        return {key: self._states[key] for key in keys}

    def cancel(self, keys: Sequence[str]) -> None:
        """See :meth:`dft.launcher.Launcher.cancel`."""
        wanted = [k for k in keys if self._state_here(k) is State.PENDING]
        for key in wanted:
            atomic_write(self._calculation(key).cancelled_path, "cancelled by hand\n")
        self._insist("cancel", wanted)
        self._look_at = 0.0

    def look(self, keys: Sequence[str]) -> dict[str, Activity]:
        """See :meth:`dft.launcher.Launcher.look`."""
        found = {k: of_directory(self._calculation(k), self._state_here(k)) for k in keys}
        undone = [k for k in keys if found[k].state is State.PENDING]
        answer = self._insist("look", undone)["activities"] if undone else {}
        return found | {key: Activity.from_dict(record) for key, record in answer.items()}

    def fetch(self, key: str) -> CalculationOutput:
        """See :meth:`dft.launcher.Launcher.fetch`."""
        return fetched(self._calculation(key))

    def close(self) -> None:
        """See :meth:`dft.launcher.Launcher.close`."""
        self._login.close()

    def _state_here(self, key: str) -> State:
        calculation = self._calculation(key)
        if calculation.result() is not None:
            return State.DONE
        return State.PENDING if calculation.is_ready() else State.LOST

    def _stage(self, keys: Sequence[str], *, insist: bool) -> None:
        """Send the files of calculations and have them submitted."""
        for group in chunks(keys, TOGETHER):
            files = {key: pack(self.root / key, INPUTS) for key in group}
            if insist:
                self._insist("submit", group, files=files)
            else:
                self._ask("submit", group, files=files)
            self._staged |= set(group)

    def _poll(self, keys: list[str]) -> None:
        states = {k: State(v) for k, v in self._ask("poll", keys)["states"].items()}
        done = [key for key, state in states.items() if state is State.DONE]
        for group in chunks(done, TOGETHER):
            for key, files in self._ask("fetch", group)["files"].items():
                # Damaged on its way, or not there after all: the next look fetches it again.
                if "result.json" in files:
                    unpack(self.root / key, files, OUTPUTS)
                states[key] = self._state_here(key)
        for key in (k for k, state in states.items() if state is State.LOST):
            # Cancelled there: said here too, so that nobody submits it again by itself.
            if self._calculation(key).is_ready():
                note = "cancelled on the cluster"
                atomic_write(self._calculation(key).cancelled_path, f"{note}\n")
        self._states |= states

    def _insist(self, command: str, keys: Sequence[str], **more: Any) -> dict[str, Any]:
        """Ask for a person who waits: a few times, then say that it does not work.

        Raises
        ------
        UserError
            There is no connection.
        """
        for left in reversed(range(TRIES)):
            try:
                return self._ask(command, keys, **more)
            except ConnectionLostError as error:
                if not left:
                    raise UserError(
                        f"The cluster cannot be reached ({error}); check launcher.ssh.host and "
                        "the network, and run the same command again, nothing is lost."
                    ) from None
                time.sleep(1.0)
        raise AssertionError("not reached")

    def _ask(self, command: str, keys: Sequence[str], **more: Any) -> dict[str, Any]:
        """One request and its answer.

        Raises
        ------
        UserError
            The far side says so.
        ConnectionLostError
            No answer; the request may have been done.
        """
        host, python = self.ssh.host, self.ssh.python
        there = f"{self.ssh.directory}/calculations"
        request = {"command": command, "root": there, "keys": list(keys), **more}
        content = json.dumps({**request, "settings": self._there}).encode()
        path = f"{self.ssh.directory}/requests/{hashlib.sha256(content).hexdigest()}.json"
        self._login.write(path, content)
        line = f"{shlex.quote(python)} -P -m dft.agent {shlex.quote(path)}"
        out, err, status = self._login.ask(line)
        answers = [text for text in out.splitlines() if text.startswith(MARK)]
        if not answers:
            words = (err or out).strip().splitlines()[-1:] or [f"exit status {status}"]
            if status in (126, 127) or "No module named" in words[0]:
                raise UserError(
                    f"This software does not run on {host} ({words[0]}); install it there, and "
                    f"name the Python of its environment as launcher.ssh.python (now {python})."
                )
            raise ConnectionLostError(f"{host}: no answer ({words[0]})")
        answer: dict[str, Any] = json.loads(answers[-1].removeprefix(MARK))
        if "error" in answer:
            raise UserError(f"On {host}: {answer['error']}")
        if answer.get("damaged"):
            raise ConnectionLostError(f"{host}: the request was cut short")
        return answer

    def _bear(self, error: ConnectionLostError) -> None:
        """Bear with the connection for a while.

        Raises
        ------
        UserError
            The while is over.
        """
        now = time.monotonic()
        self._mute_since = self._mute_since or now
        if now - self._mute_since > self.settings.patience_s:
            raise UserError(
                f"The cluster has not been reached for {(now - self._mute_since) / 60:.0f} minutes "
                f"({error}); run the same command again when it can be, nothing is lost."
            )

    def _calculation(self, key: str) -> Calculation:
        return Calculation(self.root / key)
