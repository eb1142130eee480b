"""What works on this machine, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft.abinit_settings import AbinitSettings
from dft.vasp_settings import VaspSettings
from screening.errors import UserError

if TYPE_CHECKING:
    from dft.engines import CalculatorSettings

OLDEST_ABINIT = (9, 4)
"""First version with pp_dirpath, pseudos and YAML messages as they are used here."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    subject
        What: an engine or launcher.
    what
        Which part of it.
    works
        Whether it can be used.
    detail
        What was found.
    remedy
        What to do if it does not work.
    """

    subject: str
    what: str
    works: bool
    detail: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def check_engine(settings: CalculatorSettings) -> list[Finding]:
    """All that the engine needs, looked at without calculating anything."""
    check: Callable[[Any], Iterator[Finding]] = (
        _abinit if isinstance(settings, AbinitSettings) else _vasp
    )
    return list(check(settings))


PROGRAMS = ("program", "anaddb", "mpirun")
"""Findings about what only has to be there where it calculates."""


def require(settings: CalculatorSettings, *, programs: bool = True) -> None:
    """Make sure that an engine can be used, before anything is spent on it.

    ``programs`` is False where it calculates elsewhere, on nodes with programs of their own.

    Raises
    ------
    UserError
        Something is missing.
    """
    for finding in check_engine(settings):
        if not finding.works and (programs or finding.what not in PROGRAMS):
            raise UserError(
                f"The engine {finding.subject} cannot be used, {finding.what}: {finding.detail}; "
                f"{finding.remedy}."
            )


def check_local(root: Path) -> list[Finding]:
    """Whether calculations can run as processes on this machine, with their files in ``root``."""
    from dft.locks import try_lock

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    place = root if root.is_dir() else _existing(root)
    try:
        probe = place / ".screen-probe"
        with try_lock(probe) as held:
            works, detail = held, f"{cores} cores; files and locks work in {place}"
        probe.unlink(missing_ok=True)
    except UserError as error:
        works, detail = False, str(error).rstrip(".")
    if not Path("/proc").is_dir():
        works, detail = False, "this is no Linux"
    return [Finding("local", "processes", works, detail, "choose another --directory")]


def check_slurm() -> list[Finding]:
    """Whether jobs can be submitted to Slurm from here."""
    from dft.slurm_queue import state_of_slurm

    program, answer, accounting = state_of_slurm()
    remedy = "run this on the cluster's login node, or name that as launcher.ssh (docs/cluster.md)"
    found = [Finding("slurm", "programs", program is not None, program or "not found", remedy)]
    if program is None:
        return found
    remedy = "ask those who run the cluster, or wait: Slurm's controller does not answer"
    partitions = ", ".join(answer or ())
    detail = f"partitions {partitions}" if answer else "no answer, or no partition to use"
    found.append(Finding("slurm", "queue", bool(answer), detail, remedy))
    detail = "kept (sacct)" if accounting else "none: jobs that left the queue are known by files"
    found.append(Finding("slurm", "accounting", True, detail))
    return found


def check_jobflow_remote() -> list[Finding]:
    """Whether jobflow-remote is here, and which projects it has."""
    subject, remedy = "jobflow-remote", "pip install jobflow-remote"
    try:
        version = importlib.metadata.version("jobflow-remote")
    except importlib.metadata.PackageNotFoundError:
        return [Finding(subject, "package", False, "not installed", remedy)]
    from jobflow_remote.config.manager import ConfigManager

    projects = ", ".join(ConfigManager().projects_data)
    remedy = "`jf project generate NAME`, then `jf project check`"
    return [
        Finding(subject, "package", True, version),
        Finding(subject, "projects", bool(projects), projects or "none", remedy),
    ]


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def _abinit(settings: AbinitSettings) -> Iterator[Finding]:
    from dft.abinit_job import version
    from dft.abinit_run import Programs
    from dft.pseudopotentials import available

    programs = Programs(settings.command, settings.mpi_processes)
    install = "on Debian and Ubuntu: apt install abinit gpaw-data libopenblas0-serial"
    found = version(programs)
    numbers = tuple(int(n) for n in found.split(".")[:2] if n.isdigit())
    if not found:
        detail = f"{shlex.split(settings.command)[-1]} cannot be started"
        yield Finding("abinit", "program", False, detail, install)
    else:
        yield Finding(
            "abinit", "program", numbers >= OLDEST_ABINIT, f"ABINIT {found}",
            "install ABINIT 9.4 or newer",
        )  # fmt: skip
    anaddb = shutil.which(programs.companion("anaddb"))
    yield Finding("abinit", "anaddb", anaddb is not None, anaddb or "not found", install)
    if settings.mpi_processes > 1:
        mpirun = shutil.which("mpirun")
        remedy = "install Open MPI, or set mpi_processes to 1"
        yield Finding("abinit", "mpirun", mpirun is not None, mpirun or "not found", remedy)
    folder = settings.pseudopotentials.expanduser()
    elements = available(folder) if folder.is_dir() else []
    detail = f"{len(elements)} elements in {folder}" if elements else f"none in {folder}"
    remedy = "apt install gpaw-data, or name a folder of PAW-XML or psp8 files (pseudopotentials)"
    yield Finding("abinit", "pseudopotentials", bool(elements), detail, remedy)


def _vasp(settings: VaspSettings) -> Iterator[Finding]:
    atomate2 = importlib.util.find_spec("atomate2") is not None
    remedy = "pip install atomate2"
    detail = "installed" if atomate2 else "not installed"
    yield Finding("vasp", "atomate2", atomate2, detail, remedy)
    words = shlex.split(settings.command)
    name = Path(words[-1]).name if words else ""
    program = shutil.which(words[-1]) if words else None
    yield Finding(
        "vasp", "program", program is not None, program or f"{name or 'nothing'} is not in PATH",
        "load VASP's module, or say how it is started, e.g. --set command='mpirun -n 16 vasp_std' "
        "(VASP needs a licence; the engine abinit needs none)",
    )  # fmt: skip
    # Known from the name, wherever it calculates.
    if "gam" in name:
        yield Finding(
            "vasp", "command", False, f"{name} has no response to electric fields", "use vasp_std"
        )
    if atomate2:
        from dft.vasp_potcars import check_potcars

        works, detail, remedy = check_potcars()
        yield Finding("vasp", "POTCARs", works, detail, remedy)
