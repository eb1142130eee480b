"""Running ABINIT step by step, so that an interrupted calculation goes on where it was.

Each step has a directory of its own. Its file ``done`` is written last; a step that has it is never
run again, one that has not is started over. The longest step, the response, keeps the perturbations
that it had finished.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from screening.io import atomic_write, disk_is_full

DONE = "done"
LOG = "log"
GREETING = ".Version"
"""Among the first words of ABINIT, whatever becomes of it."""

_BULKY = (
    "*WFK*", "*1WF*", "*_DEN*", "*_POT*", "*_EVK.nc", "*DDB.nc", "*_OUT.nc", "*.agr",
    "*_PHBST*", "*_anaddb.nc", "PHBST_partial_DOS", "stdin",
)  # fmt: skip
_PERTURBATION = re.compile(r"^ Perturbation : ", re.MULTILINE)
_UNCONVERGED = re.compile(
    r"^--- !(Scf|Nscf|Relax)ConvergenceWarning|was not enough (SCF )?cycles to converge",
    re.MULTILINE,
)


class AbinitError(Exception):
    """A program of ABINIT ended without having done its work.

    Attributes
    ----------
    step
        Where it happened.
    reason
        What the program said.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class NotStartedError(AbinitError):
    """A program did not even begin: it is not there, or something that it needs is not."""


@dataclass(frozen=True)
class StepRecord:
    """A step that was run to its end.

    Attributes
    ----------
    converged
        Whether it reached its tolerance.
    cpu_s, wall_s
        What it took, of the last run only where it was interrupted before.
    restarts
        How often an interrupted run of it was taken up.
    """

    converged: bool
    cpu_s: float
    wall_s: float
    restarts: int = 0


@dataclass(frozen=True)
class Programs:
    """How ABINIT and its companions are started."""

    command: str = "abinit"
    mpi_processes: int = 1

    def abinit(self) -> list[str]:
        """The main program, under mpirun if asked for."""
        words = shlex.split(self.command)
        if self.mpi_processes == 1:
            return words
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        return ["mpirun", *root, "--bind-to", "none", "-n", str(self.mpi_processes), *words]

    def companion(self, name: str) -> str:
        """Path of another program of the suite: beside the main one, or wherever it is found."""
        main = shutil.which(shlex.split(self.command)[-1])
        beside = None if main is None else shutil.which(name, path=str(Path(main).parent))
        return beside or shutil.which(name) or name


class Steps:
    """The steps of one attempt, below ``directory``."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self.directory = directory
        self.programs = programs

    def record(self, name: str) -> StepRecord | None:
        """What is known of a finished step; None if it is not finished."""
        try:
            return StepRecord(**json.loads((self.directory / name / DONE).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def restartable(self, name: str) -> bool:
        """Whether an interrupted run of this step left perturbations that are finished."""
        return _finished_perturbations(self.directory / name) > 0 or bool(
            [*(self.directory / name).glob("in_1WF*.kept")]
        )

    def run(self, name: str, text: str, links: Mapping[str, Path]) -> StepRecord:
        """Run ABINIT on ``text`` in the step's directory, unless that is done.

        Parameters
        ----------
        name
            Name of the step and its directory.
        text
            The input file.
        links
            Name in the step's directory → file of an earlier step.

        Raises
        ------
        AbinitError
            The program failed.
        NotStartedError
            It did not begin.
        OSError
            No space is left.
        """
        known = self.record(name)
        if known is not None:
            return known
        where = self.directory / name
        restarts = _clear(where)
        for link, target in links.items():
            (where / link).symlink_to(os.path.relpath(target, where))
        for kept in where.glob("in_1WF*.kept"):
            shutil.copyfile(kept, kept.with_suffix(""))
        (where / "run.abi").write_text(text, encoding="utf-8")
        cpu_s, wall_s, status = self._execute([*self.programs.abinit(), "run.abi"], where, None)
        log = _text(where / LOG)
        if status != 0 or "Calculation completed." not in _text(where / "run.abo"):
            _check_space(where)
            # It greets before it reads its input.
            began = GREETING in log or (where / "run.abo").exists()
            failure = AbinitError if began else NotStartedError
            raise failure(name, _complaint(log, status))
        record = StepRecord(_UNCONVERGED.search(log) is None, cpu_s, wall_s, restarts)
        if record.converged:
            (where / LOG).unlink()
        atomic_write(where / DONE, json.dumps(asdict(record)) + "\n")
        print(f"{name}: {'done' if record.converged else 'not converged'}, {cpu_s:.1f} CPU s")  # noqa: T201 - goes to run.log
        return record

    def analyse(self, name: str, text: str, database: Path) -> Path:
        """Run anaddb in ``name``; returns the prefix of its output files.

        Raises
        ------
        AbinitError
            The program failed.
        """
        where = self.directory / name
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        (where / "run.abi").write_text(text, encoding="utf-8")
        # The list of files on standard input, which every version understands.
        relative = os.path.relpath(database, where)
        files = "\n".join(["run.abi", "run.abo", relative, "none", "none", "none", "none"])
        command = [self.programs.companion("anaddb")]
        _, _, status = self._execute(command, where, files + "\n")
        if status != 0 or not (where / "run_anaddb.nc").exists():
            _check_space(where)
            raise AbinitError(name, _complaint(_text(where / LOG), status))
        return where / "run"

    def discard_bulk(self) -> None:
        """Remove orbitals, densities and potentials: nothing needs them any more."""
        for step in self.directory.iterdir():
            for pattern in _BULKY if step.is_dir() else ():
                for path in step.glob(pattern):
                    path.unlink(missing_ok=True)

    def _execute(
        self, command: list[str], where: Path, stdin: str | None
    ) -> tuple[float, float, int]:
        """CPU time, wall time and exit status of a program; its output goes to ``log``."""
        one = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        begun = time.monotonic()
        source = where / "stdin"
        if stdin is not None:
            source.write_text(stdin, encoding="utf-8")
        try:
            with (
                (where / LOG).open("wb") as log,
                (source if stdin is not None else Path(os.devnull)).open("rb") as given,
            ):
                process = subprocess.Popen(
                    command, cwd=where, stdin=given, stdout=log, stderr=subprocess.STDOUT,
                    env={**os.environ, **dict.fromkeys(one, "1")},
                )  # fmt: skip
        except (FileNotFoundError, PermissionError) as error:
            reason = f"{command[0]} cannot be started ({error})"
            raise NotStartedError(where.name, reason) from None
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if -process.returncode in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # A scheduler at its time limit, or a machine going down, means us too: no failure.
            os.kill(os.getpid(), -process.returncode)
        cpu_s = usage.ru_utime + usage.ru_stime
        return cpu_s, time.monotonic() - begun, process.returncode


def perturbations(step: Path) -> int:
    """Irreducible perturbations that a response step calculated."""
    return len(_PERTURBATION.findall(_text(step / "run.abo")))


def _finished_perturbations(where: Path) -> int:
    """Perturbations whose orbitals are certainly whole on disk.

    The heading of a perturbation is printed before its work begins, so that all but the last one
    are finished. The output is buffered, which errs on the safe side.
    """
    return max(0, perturbations(where) - 1)


def _clear(where: Path) -> int:
    """Empty a step's directory, but keep finished perturbations; returns how often that was."""
    if not where.exists():
        where.mkdir(parents=True)
        return 0
    written = sorted(where.glob("runo_1WF*"), key=lambda path: path.stat().st_mtime_ns)
    for path in written[: _finished_perturbations(where)]:
        path.rename(where / f"in_{path.name.removeprefix('runo_')}.kept")
    counter = where / "restarts"
    try:
        restarts = int(counter.read_text()) + 1
    except (OSError, ValueError):
        restarts = 1
    for path in where.iterdir():
        if path.suffix != ".kept":
            path.unlink()
    counter.write_text(f"{restarts}\n")
    return restarts


def _complaint(log: str, status: int) -> str:
    """What ABINIT gives as the reason, or how it ended."""
    messages = re.findall(r"^--- !(?:ERROR|BUG)\n(.*?)^\.\.\.", log, re.MULTILINE | re.DOTALL)
    if messages:
        _, _, text = messages[-1].partition("message: |")
        return " ".join(text.split())[:300]
    if status < 0:
        return f"the program was killed by signal {-status}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"the program ended with status {status} ({lines[-1][:120] if lines else 'no output'})"


def _check_space(where: Path) -> None:
    if disk_is_full(where):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
