"""Settings of the sources, the filters and the acquisition: the decisions a person makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of all settings: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BuiltinSource(Settings):
    """The ABINIT results that come with the software: part known at the start, part hidden."""

    kind: Literal["builtin"] = "builtin"


class TableSource(Settings):
    """A parquet, CSV or JSON-lines table with structures (see ``docs/tables.md``)."""

    kind: Literal["table"] = "table"
    path: Path = Field(description="Table with a column `structure` (JSON of Structure.as_dict()).")


class FolderSource(Settings):
    """A folder of CIF or POSCAR files and a CSV of their band gaps."""

    kind: Literal["folder"] = "folder"
    path: Path = Field(description="Folder of .cif, .vasp and POSCAR* files.")
    band_gaps: Path | None = Field(
        None, description="CSV with the columns `file` (or `material_id`) and `band_gap` (eV)."
    )


KnownSource = Annotated[BuiltinSource | TableSource, Field(discriminator="kind")]
CandidateSource = Annotated[BuiltinSource | TableSource | FolderSource, Field(discriminator="kind")]


class FilterSettings(Settings):
    """What is left out before anything is predicted."""

    max_sites: Annotated[int, Field(ge=1)] = Field(
        20, description="Largest number of atoms in the cell; DFPT cost grows with its cube."
    )
    min_band_gap: Annotated[float, Field(ge=0)] = Field(
        0.5,
        description="Smallest band gap in eV; below 0.5 eV semilocal DFT often finds a metal.",
    )


class AcquisitionSettings(Settings):
    """How the next calculations are chosen."""

    kind: Literal["ucb", "greedy", "random"] = Field(
        "ucb", description="ucb: μ + κσ of the figure of merit; greedy: μ alone; random: chance."
    )
    kappa: Annotated[float, Field(ge=0)] = Field(1.5, description="κ of the upper bound (DTNet).")
