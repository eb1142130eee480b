"""A real one-node Slurm of our own, for tests and measurements: everything below one directory.

Debian's packages ``slurm-wlm`` and ``munge`` are enough; no service of the machine is touched. It
works without systemd and without control groups (``proctrack/linuxproc``), as root or as a user.
With ``accounts`` it keeps accounts and their limits (``slurmdbd``, ``mariadb-server-core`` and
``mariadb-client-core``), as clusters do.

    with Cluster(Path("/tmp/somewhere")) as cluster:
        subprocess.run(["sinfo"], env=cluster.environment)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
PATIENCE_S = 30.0
TEND_S = 5.0

CONFIGURATION = """\
ClusterName=screen
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmdSpoolDir={home}/spool
StateSaveLocation={home}/state
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0,defer
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
BatchStartTimeout=1
KillWait=1
UnkillableStepTimeout=900
OverTimeLimit=0
InactiveLimit=0
MinJobAge={min_job_age}
MessageTimeout=2
SlurmctldTimeout=60
SlurmdTimeout=60
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=normal Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes={host} MaxTime=1 State=UP
PartitionName=closed Nodes={host} State=INACTIVE
{extra}
"""

WITHOUT_ACCOUNTS = "AccountingStorageType=accounting_storage/none"
WITH_ACCOUNTS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={home}/munge.socket
AccountingStorageEnforce=associations,limits
"""
ACCOUNTS = """\
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={ports[2]}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[3]}
StorageUser=slurm
StorageLoc=accounts
LogFile={home}/slurmdbd.log
PidFile={home}/slurmdbd.pid
"""
DATABASE = """\
CREATE USER IF NOT EXISTS 'slurm'@'%';
GRANT ALL ON accounts.* TO 'slurm'@'%';
"""


def missing(*, accounts: bool = False) -> str | None:
    """Why there can be no Slurm here; None if there can."""
    wanted = [*PROGRAMS, *(("slurmdbd", "mariadbd", "mariadb-install-db") if accounts else ())]
    lacking = [name for name in wanted if shutil.which(name, path=PATH) is None]
    if not lacking:
        return None
    packages = "slurm-wlm munge" + " slurmdbd mariadb-server-core mariadb-client-core" * accounts
    return f"no Slurm: {', '.join(lacking)} not found; apt-get install {packages}"


class Cluster:
    """Slurm on this machine, started on entering and ended on leaving.

    Parameters
    ----------
    home
        Where its files go; short, because a socket is among them.
    cpus
        What the node claims to have; more than there are is allowed.
    min_job_age
        Seconds after which a job that is over leaves the queue.
    accounts
        Keep accounts in a database; see :meth:`account`.
    """

    def __init__(
        self, home: Path, cpus: int = 8, min_job_age: int = 300, extra: Sequence[str] = (), *,
        accounts: bool = False,
    ) -> None:  # fmt: skip
        self.home = home.resolve()
        self.host = socket.gethostname().split(".")[0]
        ports = free_ports(4)
        self._values = {
            "host": self.host, "user": pwd.getpwuid(os.getuid()).pw_name, "home": self.home,
            "ports": ports, "cpus": cpus, "min_job_age": min_job_age,
        }  # fmt: skip
        kept = WITH_ACCOUNTS.format(port=ports[2], home=self.home) if accounts else WITHOUT_ACCOUNTS
        self._values["extra"] = "\n".join([kept, *extra])
        self._accounts = accounts
        self._tended = 0.0
        self.configuration = self.home / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to use this Slurm."""
        return {**os.environ, "PATH": PATH, "SLURM_CONF": str(self.configuration)}

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        # munged wants nobody else to be able to write here.
        self.home.chmod(0o755)
        for name in ("spool", "state"):
            (self.home / name).mkdir(exist_ok=True)
        key = self.home / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.configuration.write_text(CONFIGURATION.format(**self._values))
        (self.home / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        try:
            self._munge()
            if self._accounts:
                self._database()
            self.start("slurmctld")
            self.start("slurmd")
            self.wait(lambda: "idle" in self.ask("sinfo -h -o %t"))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with contextlib.suppress(RuntimeError):
            self.ask("scancel -u $(id -u) -f --signal=KILL")
        self.stop()

    def start(self, daemon: str, *options: str) -> None:
        """Start slurmctld or slurmd; ``-c`` lets the controller begin without a memory."""
        self._run([daemon, "-f", str(self.configuration), *options])
        if daemon == "slurmctld":
            self.wait(lambda: "UP" in self.ask("scontrol ping", check=False))

    def end(self, daemon: str, number: int = signal.SIGTERM) -> None:
        """End slurmctld or slurmd, and wait until it is gone."""
        path = self.home / f"{daemon}.pid"
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            os.kill(pid, number)
            self.wait(lambda: not _alive(pid))
            path.unlink(missing_ok=True)

    def account(self, name: str, limits: str = "") -> None:
        """An account that this user may charge; ``limits`` as sacctmgr takes them."""
        user = self._values["user"]
        self.ask(f"sacctmgr -i add account {name} {limits}")
        self.ask(f"sacctmgr -i add user {user} account={name}")
        self.wait(lambda: name in self.ask("scontrol show assoc_mgr flags=assoc", check=False))

    def fail_node(self) -> None:
        """Have the node fail under its jobs, and come back at once."""
        self.ask(f"scontrol update nodename={self.host} state=down reason=test")
        resume = f"scontrol update nodename={self.host} state=idle"
        self.wait(lambda: self.ask(resume, check=False) is not None and self._is_up())

    def tend(self) -> None:
        """What the administrator, and Slurm itself every few minutes, do for a node.

        A controller that was killed may give the number of a running job to another one, and sets
        the node aside for it: this has it work again. And it may believe in jobs that the node
        does not have, until the node reports what it runs (every 20th ping, 400 s with our
        settings): this has it report when a job lasts longer than a minute.

        To be called often: it does something every few seconds.
        """
        if time.monotonic() - self._tended < TEND_S:
            return
        self._tended = time.monotonic()
        if self.ask("sinfo -h -o %t", check=False).startswith("dr"):
            self.ask(f"scontrol update nodename={self.host} state=resume", check=False)
        lasted = self.ask("squeue -h -t R -o %M", check=False).split()
        if any(not text.startswith("0:") for text in lasted):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self.home / "slurmd.pid").read_text()), signal.SIGHUP)

    def _is_up(self) -> bool:
        return self.ask("sinfo -h -o %t").split()[0] in ("idle", "mix", "alloc")

    def stop(self) -> None:
        """End everything that was started."""
        for daemon in ("slurmd", "slurmctld", "slurmdbd", "mariadbd"):
            with contextlib.suppress(RuntimeError):
                self.end(daemon)
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.home / "munge.pid").read_text()), signal.SIGTERM)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """For who restarts something, while several processes use this cluster."""
        with (self.home / "exclusive").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def ask(self, command: str, check: bool = True) -> str:
        """What a command of Slurm's prints."""
        done = subprocess.run(
            ["/bin/sh", "-c", command], env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stderr.strip()}")
        return done.stdout

    def wait(self, condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        """Wait until something is true.

        Raises
        ------
        RuntimeError
            It does not become true.
        """
        give_up = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > give_up:
                logs = [path.read_text()[-1500:] for path in sorted(self.home.glob("*.log"))]
                logs += [self.ask("squeue -a -t all", check=False), self.ask("sinfo", check=False)]
                raise RuntimeError("waited in vain for Slurm:\n" + "\n".join(logs))
            time.sleep(0.1)

    def _munge(self) -> None:
        names = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid",
                 "log-file": "munge.log", "seed-file": "munge.seed"}  # fmt: skip
        paths = [f"--{option}={self.home / name}" for option, name in names.items()]
        self._run(["munged", "--force", *paths])

    def _database(self) -> None:
        """MariaDB and slurmdbd, and this cluster among those that it keeps accounts of."""
        user, place = self._values["user"], self.home / "database"
        common = ["--no-defaults", f"--datadir={place}", f"--user={user}"]
        self._run(
            ["mariadb-install-db", *common, "--basedir=/usr", "--skip-test-db",
             "--auth-root-authentication-method=normal"]
        )  # fmt: skip
        (self.home / "users.sql").write_text(DATABASE)
        log = self.home / "mariadbd.log"
        subprocess.Popen(
            ["mariadbd", *common, f"--socket={self.home}/mariadbd.socket",
             f"--pid-file={self.home}/mariadbd.pid", f"--log-error={log}",
             "--bind-address=127.0.0.1", f"--port={self._values['ports'][3]}",
             f"--init-file={self.home}/users.sql", "--innodb-buffer-pool-size=32M"],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.wait(lambda: (self.home / "mariadbd.pid").exists())
        settings = self.home / "slurmdbd.conf"
        settings.write_text(ACCOUNTS.format(**self._values))
        settings.chmod(0o600)
        self._run(["slurmdbd"])
        known = "sacctmgr -i add cluster screen; sacctmgr -n -P show cluster format=cluster"
        self.wait(lambda: "screen" in self.ask(known, check=False).splitlines())

    def _run(self, command: Sequence[str]) -> None:
        # Daemons keep what they inherit open: pipes would never end.
        log = (self.home / "daemons.out").open("ab")
        with log:
            done = subprocess.run(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                check=False, start_new_session=True,
            )  # fmt: skip
        if done.returncode:
            text = (self.home / "daemons.out").read_text()[-600:]
            raise RuntimeError(f"{command[0]} does not start: {text}")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
