"""What a person may set about a cluster."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dft.settings import _Settings

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d{1,2})(?::(?P<seconds>\d+))?")
_WORD = re.compile(r"[^\s'\"\\$`;|&<>()]+")
"""What can stand in a batch script as it is."""


def _seconds(value: Any) -> Any:
    """Seconds of ``24:00:00`` or ``1-12:00:00``; numbers are left alone."""
    if not isinstance(value, str):
        return value
    match = _TIME.fullmatch(value.strip())
    if match is None:
        raise ValueError("is no time; write HOURS:MINUTES:SECONDS or DAYS-HOURS:MINUTES:SECONDS")
    parts = {name: int(text or 0) for name, text in match.groupdict().items()}
    return ((parts["days"] * 24 + parts["hours"]) * 60 + parts["minutes"]) * 60 + parts["seconds"]


def _plain(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(f"{value!r} is no plain word, as Slurm's names are")
    return value


Seconds = Annotated[int, BeforeValidator(_seconds), Field(ge=1)]
Word = Annotated[str, Field(min_length=1)]


class SshSettings(_Settings):
    """A cluster that is reached from elsewhere."""

    host: Word = Field(description="Name of the login node, as in ~/.ssh/config or in full")
    user: str | None = Field(default=None, description="Name there; null: as ssh has it")
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Port there; null: as ssh has it"
    )
    key_file: Path | None = Field(default=None, description="Private key; null: as ssh has it")
    known_hosts: Path | None = Field(
        default=None, description="Keys of hosts that are trusted; null: ~/.ssh/known_hosts"
    )
    directory: str = Field(description="Scratch directory there, an absolute path")
    python: Word = Field(description="Python there in whose environment this software is installed")
    connect_timeout_s: float = Field(
        default=20.0, gt=0, description="How long to wait for a connection before the next try"
    )
    command_timeout_s: float = Field(
        default=300.0, gt=0, description="A command that takes longer is given up and repeated"
    )

    @field_validator("directory")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not PurePosixPath(value).is_absolute() or not _WORD.fullmatch(value):
            raise ValueError("must be an absolute path without blanks")
        return value


class SlurmLauncherSettings(_Settings):
    """Calculations as jobs of a Slurm cluster."""

    kind: Literal["slurm"] = "slurm"
    nodes: int = Field(default=1, ge=1, description="Nodes of one job")
    cores: int = Field(default=1, ge=1, description="Cores of one job on each of its nodes")
    memory_gb: float | None = Field(
        default=None, gt=0, description="Memory of one job on each node; null: the cluster's usual"
    )
    time: Seconds = Field(
        default=24 * 3600, description="Wall time of one job: 24:00:00, 2-00:00:00, or seconds"
    )
    account: str | None = Field(
        default=None, description="Account that is charged; null: the cluster's usual"
    )
    partition: str | None = Field(default=None, description="Partition; null: the cluster's usual")
    qos: str | None = Field(
        default=None, description="Quality of service; null: the cluster's usual"
    )
    options: tuple[str, ...] = Field(
        default=(), description="Further options of sbatch, e.g. --constraint=skylake"
    )
    modules: tuple[str, ...] = Field(default=(), description="Environment modules to load")
    pre_run: tuple[str, ...] = Field(
        default=(), description="Lines of the batch script before the calculation"
    )
    python: str | None = Field(
        default=None, description="Python on the compute nodes; null: the one that runs this"
    )
    pack: int = Field(default=1, ge=1, le=1000, description="Calculations in one job")
    at_once: int = Field(
        default=1, ge=1, le=1000, description="How many of them run side by side in the job"
    )
    array: int = Field(
        default=1, ge=1, le=1000, description="Jobs submitted together as one job array"
    )
    max_jobs: int = Field(
        default=50, ge=1, description="Jobs in the queue at the same time, waiting or running"
    )
    attempts: int = Field(
        default=4,
        ge=1,
        description="How often a calculation is started before it is given up: after a time-out, "
        "a failed node or a kill it goes on from the engine's files",
    )
    timeout_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Wall time of one calculation after which it is refused; null: it is continued "
        "in further jobs, up to 'attempts'",
    )
    poll_s: float = Field(
        default=15.0, gt=0, allow_inf_nan=False, description="Seconds between looks at the queue"
    )
    settle_s: float = Field(
        default=30.0,
        ge=0,
        allow_inf_nan=False,
        description="How long a job has to be gone before its results are missed: file systems of "
        "clusters show new files late",
    )
    patience_s: float = Field(
        default=3600.0, gt=0, description="How long Slurm or the connection may fail to answer"
    )
    ssh: SshSettings | None = Field(
        default=None, description="Where the cluster is; null: this is its login node"
    )

    @field_validator("account", "partition", "qos", "python")
    @classmethod
    def _names(cls, value: str | None) -> str | None:
        return None if value is None else _plain(value)

    @field_validator("modules", "options")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_plain(word) for word in value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.at_once > self.pack:
            raise ValueError("at_once must not be above pack")
        for option in self.options:
            if not option.startswith("--"):
                raise ValueError(f"options: {option!r} does not begin with --, as sbatch's do")
        return self
