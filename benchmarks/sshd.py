"""An SSH server of our own on this machine, whose connections can be cut.

with Sshd(Path("/tmp/somewhere"), {"SLURM_CONF": "..."}) as server:
    settings = server.settings("/tmp/scratch")
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster import PATH, free_ports

CONFIGURATION = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host_key
AuthorizedKeysFile {home}/client_key.pub
PidFile {home}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
MaxStartups 100
Subsystem sftp internal-sftp
SetEnv {environment}
"""


def missing() -> str | None:
    """Why there can be no server here; None if there can."""
    lacking = [name for name in ("sshd", "ssh-keygen") if shutil.which(name, path=PATH) is None]
    if not lacking:
        return None
    return f"no SSH server: {', '.join(lacking)} not found; apt-get install openssh-server"


class Sshd:
    """A server for this user, started on entering and ended on leaving.

    Parameters
    ----------
    home
        Where its files go.
    environment
        What sessions have in their environment.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home.resolve()
        self.port = free_ports(1)[0]
        self._environment = environment
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "client_key", "other_key"):
            self._keygen(name)
        variables = " ".join(f'"{name}={value}"' for name, value in self._environment.items())
        values = {"port": self.port, "home": self.home, "environment": variables}
        (self.home / "config").write_text(CONFIGURATION.format(**values))
        self.known_hosts("host_key", "known_hosts")
        self.known_hosts("other_key", "wrong_hosts")
        (self.home / "no_hosts").write_text("")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop()

    def settings(self, directory: Path | str, **more: Any) -> dict[str, Any]:
        """The section ``launcher.ssh`` of a campaign that goes through this server."""
        return {
            "host": "127.0.0.1", "port": self.port, "user": pwd.getpwuid(os.getuid()).pw_name,
            "key_file": str(self.home / "client_key"), "python": sys.executable,
            "known_hosts": str(self.home / "known_hosts"), "directory": str(directory),
            "connect_timeout_s": 15, **more,
        }  # fmt: skip

    def known_hosts(self, key: str, name: str) -> None:
        """Write a file that says that this server has that key."""
        kind, public, *_ = (self.home / f"{key}.pub").read_text().split()
        (self.home / name).write_text(f"[127.0.0.1]:{self.port} {kind} {public}\n")

    def start(self) -> None:
        """Let connections in."""
        sshd = shutil.which("sshd", path=PATH)
        assert sshd is not None
        with (self.home / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(self.home / "config")], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        give_up = time.monotonic() + 20
        while "listening" not in (self.home / "log").read_text():
            if time.monotonic() > give_up or self._server.poll() is not None:
                raise RuntimeError((self.home / "log").read_text())
            time.sleep(0.05)

    def drop(self) -> int:
        """Cut all connections, in the middle of whatever they do; returns how many processes."""
        assert self._server is not None
        victims = _descendants(self._server.pid)
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(victims)

    def stop(self) -> None:
        """Cut all connections and let no more in."""
        if self._server is not None:
            self.drop()
            self._server.kill()
            self._server.wait()
            (self.home / "log").unlink(missing_ok=True)

    def _keygen(self, name: str) -> None:
        path = self.home / name
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
            subprocess.run(command, check=True)


def _descendants(pid: int) -> list[int]:
    """Processes of the connections: sshd's own children, not what was started through them."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = (entry / "stat").read_text()
            name = stat[stat.index("(") + 1 : stat.rindex(")")]
            if entry.name.isdigit() and int(stat.rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(entry.name))
                found += _descendants(int(entry.name)) if name == "sshd" else []
    return found
