"""A cluster's login node over SSH: qtoolkit's remote host, with checks that it leaves out.

Host keys are checked, connections and commands have time limits, and what goes wrong is either
one sentence for a person or a :class:`ConnectionLostError`, after which the same is tried again.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import fabric
import invoke.exceptions
import paramiko
from qtoolkit.host.remote import RemoteConfig, RemoteHost

from dft.slurm_settings import SshSettings
from screening.errors import UserError

KEEPALIVE_S = 15


class ConnectionLostError(Exception):
    """The connection ended, or could not be made; whether the command was done is not known."""


class Login(RemoteHost):
    """A connection that is made when it is needed, and made again after it was lost."""

    def __init__(self, settings: SshSettings) -> None:
        self.settings = settings
        super().__init__(RemoteConfig(root_dir=settings.directory, host=settings.host))
        self._connection = self._new()

    def ask(self, command: str) -> tuple[str, str, int]:
        """Standard output, standard error and exit status of a command in a login shell.

        Raises
        ------
        UserError
            The host is not whom it claims to be, is not known, or does not let us in.
        ConnectionLostError
            No answer.
        """
        with self._explained():
            out, err, status = self.execute(command)
        if status < 0:
            raise ConnectionLostError(f"{self.settings.host}: the connection ended")
        return str(out), str(err), int(status)

    def write(self, path: str, content: bytes) -> None:
        """Write a file there; it may be cut short where the connection ends.

        Raises
        ------
        UserError
            As :meth:`ask`; also: the file cannot be written.
        ConnectionLostError
            It is not known whether the file was written.
        """
        if not self._put(path, content):
            self._make_directory(str(PurePosixPath(path).parent))
            if not self._put(path, content):
                raise ConnectionLostError(f"{self.settings.host}: {path} disappeared")

    def _put(self, path: str, content: bytes) -> bool:
        """False where the file's directory does not exist."""
        with self._explained():
            try:
                self.connection.put(io.BytesIO(content), path)
            except FileNotFoundError:
                return False
            except PermissionError as error:
                raise self._unwritable(error.strerror or str(error)) from None
        return True

    def _make_directory(self, path: str) -> None:
        _, err, status = self.ask(f"mkdir -p {shlex.quote(path)}")
        if status != 0:
            raise self._unwritable(err.strip().rpartition(": ")[2] or "it cannot be made")

    def _unwritable(self, reason: str) -> UserError:
        return UserError(
            f"Cannot write {self.settings.directory} on {self.settings.host} ({reason}); choose a "
            "directory there that you may write to as launcher.ssh.directory."
        )

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(Exception):
            self._connection.close()

    def _new(self) -> fabric.Connection:
        wanted = self.settings
        keys = {} if wanted.key_file is None else {
            "key_filename": str(wanted.key_file.expanduser()), "allow_agent": False,
            "look_for_keys": False,
        }  # fmt: skip
        limits = {"timeouts": {"command": round(wanted.command_timeout_s)}}
        connection = fabric.Connection(
            wanted.host, user=wanted.user, port=wanted.port, connect_kwargs=keys,
            config=fabric.Config(overrides=limits),
            connect_timeout=max(round(wanted.connect_timeout_s), 1),
        )  # fmt: skip
        # fabric would trust whoever answers.
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        if wanted.known_hosts is None:
            connection.client.load_system_host_keys()
        else:
            connection.client.load_host_keys(str(wanted.known_hosts.expanduser()))
        return connection

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        host = self.settings.host
        try:
            if not self._connection.is_connected:
                self.close()
                self._connection = self._new()
                self._connection.open()
                self._connection.transport.set_keepalive(KEEPALIVE_S)
            yield
        except paramiko.BadHostKeyException:
            raise UserError(
                f"The key of {host} is not the one in {self._trusted}: either somebody pretends to "
                f"be {host}, or it has a new key; ask its administrators, then remove the old one "
                f"with `ssh-keygen -R {host}` and connect once with ssh."
            ) from None
        except paramiko.AuthenticationException as error:
            if "transport shut down" in str(error) or "timeout" in str(error):
                self.close()
                raise ConnectionLostError(
                    f"{host}: the connection ended at its beginning"
                ) from None
            raise UserError(
                f"{host} does not let us in ({error}); `ssh {host}` has to work without a "
                "password: set launcher.ssh.user and launcher.ssh.key_file, or load your key into "
                "an ssh agent."
            ) from None
        except (paramiko.SSHException, EOFError, OSError, invoke.exceptions.Failure) as error:
            self.close()
            if "not found in known_hosts" in str(error):
                raise UserError(
                    f"The key of {host} is not in {self._trusted}; connect once with `ssh {host}`, "
                    "compare its key with what the cluster's pages say, and accept it."
                ) from None
            if isinstance(error, socket.gaierror):
                raise ConnectionLostError(f"there is no host {host}") from None
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConnectionLostError(f"{host}: {text}") from None

    @property
    def _trusted(self) -> Path:
        return self.settings.known_hosts or Path("~/.ssh/known_hosts")
