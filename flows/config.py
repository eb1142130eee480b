"""A campaign: one YAML file, one model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from dft.abinit_settings import AbinitSettings
from dft.settings import (
    GateThresholds,
    JobflowRemoteSettings,
    LocalLauncherSettings,
    ReplaySettings,
)
from dft.slurm_settings import SlurmLauncherSettings
from dft.vasp_settings import VaspSettings
from models.settings import Functional, ModelSettings
from screening.errors import UserError
from screening.settings import (
    AcquisitionSettings,
    BuiltinSource,
    CandidateSource,
    FilterSettings,
    KnownSource,
    Settings,
)
from screening.tasks import get_task, task_names

BUILTIN_BATCH = 4
"""Calculations per round on the built-in data, which hold few candidates."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Names of campaigns, which are also names of folders."""

SOURCE_KINDS = (
    "builtin", "table", "folder", "ase", "mp", "optimade", "replay", "abinit", "vasp", "local",
    "slurm", "jobflow-remote",
)  # fmt: skip
"""Names that pydantic puts into the place of a mistake, and a user's file does not have."""
LONGEST_VALUE = 60
"""Characters of a wrong value that a message repeats."""


class ReplayEngineSettings(ReplaySettings, title="Replay"):
    """The engine that answers from a table of known results, here with the table."""

    answers: KnownSource = Field(
        default=BuiltinSource(), description="Where the answers are taken from."
    )


def _engine_kind(value: Any) -> Any:
    """Which engine is meant; replay where nothing is said."""
    if isinstance(value, Mapping):
        return value.get("kind", "replay")
    return getattr(value, "kind", None)


EngineSettings = Annotated[
    Annotated[ReplayEngineSettings, Tag("replay")]
    | Annotated[AbinitSettings, Tag("abinit")]
    | Annotated[VaspSettings, Tag("vasp")],
    Discriminator(
        _engine_kind,
        custom_error_type="engine_kind",
        custom_error_message="there is no such engine; choose replay, abinit or vasp",
    ),
]


def _launcher_kind(value: Any) -> Any:
    """Which launcher is meant; this machine where nothing is said."""
    if isinstance(value, Mapping):
        return value.get("kind", "local")
    return getattr(value, "kind", None)


LauncherSettings = Annotated[
    Annotated[LocalLauncherSettings, Tag("local")]
    | Annotated[SlurmLauncherSettings, Tag("slurm")]
    | Annotated[JobflowRemoteSettings, Tag("jobflow-remote")],
    Discriminator(
        _launcher_kind,
        custom_error_type="launcher_kind",
        custom_error_message="there is no such launcher; choose local, slurm or jobflow-remote",
    ),
]


class Campaign(Settings):
    """Everything that decides what a campaign does; where it is kept is not part of it."""

    name: Annotated[str, Field(pattern=NAME)] = Field(
        description="Letters, digits, '.', '_' and '-'; also the name of its directory."
    )
    task: str = Field(
        "high-k",
        description="high-k (E_g·ε̄) or anisotropy (λmax/λmin).",
        json_schema_extra=lambda schema: schema.update(enum=list(task_names())),
    )
    rounds: Annotated[int, Field(ge=1)] = Field(3, description="Rounds of the loop.")
    batch: Annotated[int, Field(ge=1)] = Field(20, description="Calculations per round.")
    budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="Core-hours that all calculations together may take; no limit if null. A "
        "calculation that does not fit with the upper end of its error bar is not started, where "
        "that is known, and what runs is stopped once it is used up.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Fixes all chance.")
    functional: Functional = Field(
        "PBE", description="What candidates are predicted as: PBE or PBEsol, as the engine's."
    )
    follows: str | None = Field(
        None,
        description="Finished campaign to build on: what it validated is known here, and what it "
        "calculated is not picked again. A schedule sets it.",
    )
    known: KnownSource = Field(BuiltinSource(), description="Tensors known at the start.")
    candidates: CandidateSource = Field(BuiltinSource(), description="Where to look.")
    filters: FilterSettings = Field(default=FilterSettings(), title="Filters")
    acquisition: AcquisitionSettings = Field(default=AcquisitionSettings(), title="Acquisition")
    model: ModelSettings = Field(default=ModelSettings(), title="Model")
    engine: EngineSettings = Field(
        default=ReplayEngineSettings(),
        description="What calculates: replay (known answers), abinit or vasp.",
    )
    launcher: LauncherSettings = Field(
        default=LocalLauncherSettings(),
        description="Where it calculates: local (this machine), slurm (a cluster) or "
        "jobflow-remote (a project of that program).",
    )
    gate: GateThresholds = Field(default=GateThresholds(), title="Gate")

    @field_validator("task")
    @classmethod
    def _task_exists(cls, value: str) -> str:
        if value not in task_names():
            raise ValueError(
                f"there is no task '{value}'; choose one of: {', '.join(task_names())}"
            )
        return value

    @model_validator(mode="after")
    def _follows_another(self) -> Campaign:
        if self.follows == self.name:
            raise ValueError(f"campaign '{self.name}' cannot follow itself")
        return self

    @model_validator(mode="after")
    def _engine_fits(self) -> Campaign:
        if not isinstance(self.engine, ReplayEngineSettings):
            if self.functional != "PBE":
                raise ValueError(
                    f"the engine {self.engine.kind} calculates with PBE; set functional to PBE"
                )
            return self
        builtin = isinstance(self.engine.answers, BuiltinSource)
        if builtin and not isinstance(self.candidates, BuiltinSource):
            raise ValueError(
                "these candidates cannot be answered from the built-in results; name a table "
                "with their tensors as engine.answers (--replay), or let them be calculated "
                "(--engine abinit)"
            )
        return self


def build_campaign(file: Path | None, overrides: Mapping[str, Any]) -> Campaign:
    """A campaign from a YAML file, with single values overridden.

    Parameters
    ----------
    file
        YAML with the fields of :class:`Campaign`; paths in it are relative to the file.
    overrides
        Dotted field → value, for example ``{"model.epochs": 30}``; paths are relative to the
        current directory. A group with the ``kind`` that the file has keeps the file's other
        values.

    Raises
    ------
    UserError
        Unreadable YAML, an unknown field, a wrong type or an impossible value.
    """
    values: dict[str, Any] = _read_yaml(file) if file is not None else {}
    for dotted, value in overrides.items():
        _set(values, dotted.split("."), value, dotted)
    _resolve_paths(values, Path.cwd())
    values.setdefault("task", "high-k")
    # A task that does not exist is to be named as such, not as a name that is no good.
    values.setdefault("name", values["task"] if values["task"] in task_names() else "campaign")
    if "batch" not in values and _kind(values.get("candidates")) == "builtin":
        values["batch"] = BUILTIN_BATCH
    try:
        campaign = Campaign.model_validate(values)
    except ValidationError as error:
        where = f"in {file}" if file is not None else "in the campaign"
        raise UserError(_sentence(error, where)) from None
    get_task(campaign.task)
    return campaign


def recorded_campaign(name: str, values: Mapping[str, Any]) -> Campaign:
    """A campaign as the ledger has it.

    Raises
    ------
    UserError
        It has settings that this version of the software does not understand.
    """
    try:
        return Campaign.model_validate(values)
    except ValidationError as error:
        where = f"in the campaign '{name}' that another version of the software began"
        raise UserError(_sentence(error, where)) from None


def _kind(source: Any) -> Literal["builtin"] | str | None:
    return (
        source.get("kind") if isinstance(source, dict) else ("builtin" if source is None else None)
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no campaign file {file}; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"The campaign file {file} cannot be read ({reason}).") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark is not None else ""
        raise UserError(
            f"{file} is no valid YAML{line}; see `screen schema` for the fields."
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{file} holds no fields; see `screen schema` for what a campaign has.")
    _resolve_paths(values, file.resolve().parent)
    return values


def _resolve_paths(values: dict[str, Any], base: Path) -> None:
    """Make paths absolute, in place; those that are stay as they are."""
    for group in (("known",), ("candidates",), ("engine",), ("engine", "answers")):
        node: Any = values
        for key in group:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict):
            for key in ("path", "band_gaps", "pseudopotentials"):
                if isinstance(node.get(key), str):
                    node[key] = str(base / node[key])


def _set(values: dict[str, Any], keys: list[str], value: Any, dotted: str) -> None:
    node = values
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise UserError(f"{dotted} cannot be set: '{key}' is a value, not a group of values.")
    there = node.get(keys[-1])
    if isinstance(value, dict) and isinstance(there, dict) and _same_kind(there, value):
        value = {**there, **value}
    node[keys[-1]] = value


def _same_kind(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return "kind" in other and one.get("kind") == other["kind"]


def _sentence(error: ValidationError, where: str) -> str:
    """The first thing that is wrong, as one sentence."""
    first = error.errors()[0]
    names = [str(part) for part in first["loc"] if part not in SOURCE_KINDS]
    field = ".".join(names)
    given = repr(first.get("input"))
    given = given if len(given) <= LONGEST_VALUE else f"{given[: LONGEST_VALUE - 1]}…"
    match first["type"]:
        case "extra_forbidden":
            text = f"'{field}' {where} is not a field that exists"
        case "missing":
            text = f"'{field}' is missing {where}"
        case "value_error":
            problem = str(first["ctx"]["error"])
            text = f"{f'{chr(39)}{field}{chr(39)} ' if field else ''}{where}: {problem}"
            text = text[0].upper() + text[1:]
        case "string_pattern_mismatch" if field == "name":
            text = (
                f"'name' {where} is {given}, but a name has at most 64 letters, digits, '.', '_' "
                "and '-', of which the first is a letter or a digit"
            )
        case _:
            text = f"'{field}' {where} is {given}, but: {first['msg'][0].lower()}{first['msg'][1:]}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{text}{more}; `screen schema` lists all fields."
