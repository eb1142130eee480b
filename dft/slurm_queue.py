"""Slurm's commands, through qtoolkit: submit, look, cancel; and what their complaints mean."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from qtoolkit.core.data_objects import SubmissionStatus
from qtoolkit.host.base import BaseHost
from qtoolkit.io.slurm import SlurmIO
from qtoolkit.manager import QueueManager

from dft.allocations import OUTPUT, PREFIX, SCRIPT
from dft.slurm_settings import SlurmLauncherSettings
from screening.errors import UserError
from screening.io import atomic_write

COMMAND_TIMEOUT_S = 120.0

WAITING = frozenset(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"))
RUNNING = frozenset(
    ("RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED")
)
NEVER = frozenset(
    ("PartitionTimeLimit", "PartitionNodeLimit", "PartitionConfig", "BadConstraints",
     "InvalidAccount", "InvalidQOS", "AssocMaxWallDurationPerJobLimit",
     "AssocMaxCpuPerJobLimit", "AssocMaxNodePerJobLimit", "QOSMaxWallDurationPerJobLimit",
     "QOSMaxCpuPerJobLimit", "QOSMaxNodePerJobLimit", "AssociationJobLimit")
)  # fmt: skip
"""Why a job waits that will wait for ever: it asks for more than it may have."""

_NOT_NOW = re.compile(
    r"unable to contact|connect failure|socket timed out|connection refused|temporarily|"
    r"zero bytes|standby|authentication|munge|transport endpoint|communications? connection",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"submit limit|SubmitJob\w*Limit|job count|limit reached", re.IGNORECASE)
_FIELDS = (
    (r"account/partition", "account, partition"),
    (r"partition", "partition"),
    (r"account", "account"),
    (r"qos", "qos"),
    (r"time", "time"),
    (r"node|memory|cpu|task", "nodes, cores, memory_gb"),
    (r"feature|constraint|option|license|generic", "options"),
)
_FORMAT = "%i|%j|%T|%r|%M|%N"
_MOST_NAMES = 3000


class NotNowError(Exception):
    """Slurm does not answer or takes no more jobs at the moment; ask again later.

    Attributes
    ----------
    full
        Whether it answered, and said that there are enough of our jobs.
    """

    def __init__(self, reason: str, *, full: bool = False) -> None:
        super().__init__(reason)
        self.full = full


@dataclass(frozen=True)
class Job:
    """A job, or one task of a job array, as Slurm sees it.

    Attributes
    ----------
    job_id
        Number, of the whole array where it is one.
    task
        Number of the task; 0 where there is no array.
    state
        In Slurm's words, without additions.
    reason
        Why it waits, or how it failed.
    elapsed
        As Slurm prints it, ``[days-][hours:]minutes:seconds``.
    """

    job_id: str
    task: int
    name: str
    state: str
    reason: str = ""
    elapsed: str = ""
    nodes: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it will not run any more."""
        return self.state not in WAITING and self.state not in RUNNING

    @property
    def was_turned_away(self) -> bool:
        """Whether its node did not take it, and Slurm cancelled it in the same second.

        That happens after a controller has been killed and has given a number twice.
        """
        placed = self.nodes not in ("", "(null)", "None assigned")
        return self.state == "CANCELLED" and placed and self.elapsed in ("0:00", "00:00:00")


class Queue:
    """The jobs of this user on this cluster.

    Parameters
    ----------
    settings
        What jobs are to ask for.
    """

    def __init__(self, settings: SlurmLauncherSettings) -> None:
        self._settings = settings
        self._host = _Host()
        self._manager = QueueManager(SlurmIO(), self._host)
        self._accounting = True
        self.calls = 0

    def submit(
        self, directory: Path, name: str, command: Sequence[str], tasks: int, lock: int
    ) -> str:
        """Write the batch script into ``directory`` and submit it; returns the job's number.

        ``lock`` is a file that sbatch holds open as long as it runs: should this process be killed
        now, nobody else takes the lock before sbatch has done what it does.

        Raises
        ------
        UserError
            Slurm refuses such a job.
        NotNowError
            It is not known whether the job was taken, or Slurm takes no more at the moment.
        """
        atomic_write(directory / SCRIPT, self.script(directory, name, command, tasks))
        submit = self._manager.scheduler_io.get_submit_cmd(directory / SCRIPT)
        out, err, status = self._execute(submit, lock=lock, where=directory)
        result = self._manager.scheduler_io.parse_submit_output(status, out, err)
        if result.status == SubmissionStatus.SUCCESSFUL and result.job_id is not None:
            return str(result.job_id)
        if status == 0:
            raise NotNowError(f"sbatch did not say which job it made ({_last(out, err)})")
        raise self._refusal(_last(out, err))

    def script(self, directory: Path, name: str, command: Sequence[str], tasks: int) -> str:
        """The batch script that runs ``command`` as a job of this name."""
        wanted = self._settings
        # What a failing node takes along is submitted anew by the launcher, which counts attempts.
        verbatim = ["#SBATCH --no-requeue", *(f"#SBATCH {option}" for option in wanted.options)]
        output = directory / (OUTPUT if tasks == 1 else f"{OUTPUT}.%a")
        options: dict[str, object] = {
            "job_name": name,
            "nodes": wanted.nodes,
            "ntasks_per_node": wanted.cores,
            "time": _duration(wanted.time),
            "qout_path": output,
            "qerr_path": output,
        }
        if tasks > 1:
            options["array"] = f"0-{tasks - 1}"
        else:
            # Slurm itself then never runs two of this name at the same time. The tasks of an array
            # have one name, and would run one after the other.
            verbatim.append("#SBATCH --dependency=singleton")
        if wanted.memory_gb is not None:
            options["mem"] = f"{round(wanted.memory_gb * 1024)}M"
        for field in ("account", "partition", "qos"):
            if (value := getattr(wanted, field)) is not None:
                options[field] = value
        # Output of a job that Slurm starts again, because the site wants it so, is kept.
        verbatim.append("#SBATCH --open-mode=append")
        options["qverbatim"] = "\n".join(verbatim)
        environment = {"modules": list(wanted.modules)} if wanted.modules else None
        script = self._manager.get_submission_script(
            commands=shlex.join(command).replace("'${SLURM_ARRAY_TASK_ID:-0}'", _TASK),
            options=options,
            work_dir=shlex.quote(str(directory)),
            pre_run=list(wanted.pre_run),
            environment=environment,
        )
        return f"{script}\n"

    def jobs(self, names: Sequence[str]) -> list[Job]:
        """Jobs of these names that Slurm still knows, those that have ended lately among them.

        Raises
        ------
        NotNowError
            Slurm does not answer.
        UserError
            There is no Slurm here.
        """
        self.calls += 1
        # By name, for a colleague's campaign may have submitted them; a command has its length.
        whose = f"--name={','.join(names)}" if len(names) <= _MOST_NAMES else f"-u {os.getuid()}"
        # -r: one line per task; --states=all: also those that are over.
        command = f"squeue -h -r --states=all {whose} -o '{_FORMAT}'"
        out, err, status = self._execute(command)
        if status != 0:
            raise NotNowError(_last(out, err))
        return list(_parsed(out.splitlines()))

    def history(self, name: str, since: datetime, job_id: str | None = None) -> list[Job] | None:
        """Jobs of this name as the accounting has them; None where there is none.

        A job that was cancelled before it might have begun is found by its number only.

        Raises
        ------
        NotNowError
            Accounts are kept, and cannot be seen at the moment.
        """
        if not self._accounting:
            return None
        start = since.astimezone().strftime("%Y-%m-%dT%H:%M:%S")
        # -D: also jobs whose number another one has got since.
        which = f"-S {start} --name={name}" if job_id is None else f"-D -j {job_id}"
        columns = "JobID,JobName,State,ExitCode,Elapsed,NodeList"
        out, err, status = self._execute(f"sacct -n -P -X {which} -o {columns}")
        if status != 0:
            if "disabled" not in err:
                raise NotNowError(_last(out, err))
            self._accounting = False
            return None
        if job_id is not None:
            # What the accounting calls a job whose end it heard of before its beginning.
            out = out.replace("|allocation|", f"|{name}|")
        return [job for job in _parsed(out.splitlines()) if job.name == name]

    def exit_status(self, job: Job) -> int | None:
        """Exit status of a job that is over and still known; None if it is not."""
        out, _, status = self._execute(f"scontrol show job -o {job.job_id}")
        for line in out.splitlines() if status == 0 else ():
            task = re.search(r"\bArrayTaskId=(\d+)\b", line)
            found = re.search(r"\bExitCode=(\d+):", line)
            if found and (task is None or int(task[1]) == job.task):
                return int(found[1])
        return None

    def cancel(self, jobs: Iterable[str]) -> None:
        """Cancel jobs, given as ``17`` or ``17_3``; those that are over do no harm.

        Raises
        ------
        NotNowError
            Slurm does not answer.
        """
        wanted = sorted(set(jobs))
        if not wanted:
            return
        out, err, status = self._execute(f"scancel {' '.join(wanted)}")
        if status != 0 and "already completing" not in err and "Invalid job id" not in err:
            raise NotNowError(_last(out, err))

    def _execute(
        self, command: str, lock: int | None = None, where: Path | None = None
    ) -> tuple[str, str, int]:
        self._host.lock = lock
        try:
            out, err, status = self._manager.execute_cmd(command, where)
        finally:
            self._host.lock = None
        if status == 127:
            raise no_slurm(command.split()[0])
        return out, err, status

    def _refusal(self, reason: str) -> Exception:
        if _LIMIT.search(reason):
            return NotNowError(reason, full=True)
        if _NOT_NOW.search(reason):
            return NotNowError(reason)
        fields = next((f for p, f in _FIELDS if re.search(p, reason, re.IGNORECASE)), "options")
        return refused(reason, fields, self._settings)


def refused(reason: str, fields: str, settings: SlurmLauncherSettings) -> UserError:
    """The sentence for a job that Slurm does not take, or never starts."""
    given = ", ".join(
        f"{name}: {getattr(settings, name)}"
        for name in fields.split(", ")
        if getattr(settings, name) not in (None, ())
    )
    return UserError(
        f"Slurm refuses the job ({reason}); correct launcher.{fields.replace(', ', ', launcher.')}"
        f"{f' (now {given})' if given else ''} in the campaign, `sinfo` and `sacctmgr show assoc` "
        "say what there is."
    )


def no_slurm(program: str) -> UserError:
    """The sentence for a machine without Slurm."""
    return UserError(
        f"There is no Slurm on this machine ({program} is not in PATH); run this on the cluster's "
        "login node, name that as launcher.ssh, or use --launcher local."
    )


def state_of_slurm() -> tuple[str | None, list[str] | None, bool]:
    """Version of Slurm, partitions where it answers, and whether it keeps accounts."""
    host = _Host()
    out, _, status = host.execute("sbatch --version")
    if status != 0:
        return None, None, False
    partitions, _, answered = host.execute("sinfo -h -o %R")
    _, _, accounts = host.execute("sacct -n -X -S now")
    return out.strip(), partitions.split() if answered == 0 else None, accounts == 0


_TASK = '"${SLURM_ARRAY_TASK_ID:-0}"'
TASK_ARGUMENT = "${SLURM_ARRAY_TASK_ID:-0}"
"""Stands in a command for the number of the task; 0 where there is no array."""


class _Host(BaseHost):
    """This machine; as qtoolkit's, but it never changes the process's directory, nor hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.lock: int | None = None

    def execute(
        self, command: str | list[str], workdir: str | Path | None = None
    ) -> tuple[str, str, int]:
        """Standard output, standard error and exit status of a shell command."""
        text = command if isinstance(command, str) else shlex.join(command)
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", text], cwd=workdir, capture_output=True, check=False,
                stdin=subprocess.DEVNULL, timeout=COMMAND_TIMEOUT_S,
                pass_fds=() if self.lock is None else (self.lock,),
                # Ctrl-C is for the flow, not for a submission under way.
                start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "", f"socket timed out: {text.split()[0]} gave no answer", 1
        return (
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
            (done.returncode),
        )

    def mkdir(self, directory: str | Path, recursive: bool = True, exist_ok: bool = True) -> bool:
        """Make a directory."""
        Path(directory).mkdir(parents=recursive, exist_ok=exist_ok)
        return True

    def write_text_file(self, filepath: str | Path, content: str) -> None:
        """Write a file."""
        Path(filepath).write_text(content)


def _parsed(lines: Iterable[str]) -> Iterable[Job]:
    for line in lines:
        fields = line.split("|")
        if len(fields) != 6 or not fields[1].startswith(PREFIX):
            continue
        number, name, words, reason, elapsed, nodes = fields
        job_id, _, task = number.partition("_")
        state = words.split()[0].rstrip("+") if words else ""
        if task and not task.isdigit():
            continue  # sacct's line for all tasks that have not begun
        yield Job(job_id, int(task or 0), name, state, reason, elapsed, nodes)


def _duration(seconds: int) -> str:
    return str(SlurmIO._convert_time_to_str(seconds))


def _last(out: str, err: str) -> str:
    lines = [line.strip() for line in (err or out).splitlines() if line.strip()]
    text = lines[-1] if lines else "no message"
    return re.sub(r"^(sbatch|squeue|scancel): (error: )?(Batch job submission failed: )?", "", text)
