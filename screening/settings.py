"""Settings of the sources, the filters and the acquisition: the decisions a person makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Settings(BaseModel):
    """Base of all settings: unknown keys are mistakes, numbers finite, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BuiltinSource(Settings, title="Built-in"):
    """The ABINIT results that come with the software: part known at the start, part hidden."""

    kind: Literal["builtin"] = "builtin"


class TableSource(Settings, title="Table"):
    """A parquet, CSV or JSON-lines table with structures (see ``docs/tables.md``)."""

    kind: Literal["table"] = "table"
    path: Path = Field(description="Table with a column `structure` (JSON of Structure.as_dict()).")
    assumed_band_gap: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Gap in eV for candidates without one; null: they are left out."
    )


class FolderSource(Settings, title="Folder"):
    """A folder of CIF or POSCAR files and a CSV of their band gaps."""

    kind: Literal["folder"] = "folder"
    path: Path = Field(description="Folder of .cif, .vasp and POSCAR* files.")
    band_gaps: Path | None = Field(
        None, description="CSV with the columns `file` (or `material_id`) and `band_gap` (eV)."
    )
    assumed_band_gap: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Gap in eV for materials without one; null: they are left out."
    )


class _ElementSets(Settings):
    """Which elements a material may have."""

    with_elements: tuple[str, ...] = Field((), description="All of these are in the material.")
    without_elements: tuple[str, ...] = Field((), description="None of these is in the material.")
    only_elements: tuple[str, ...] = Field((), description="No other elements are in the material.")

    @field_validator("with_elements", "without_elements", "only_elements")
    @classmethod
    def _symbols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from pymatgen.core import Element

        for symbol in value:
            if not Element.is_valid_symbol(symbol):
                raise ValueError(f"'{symbol}' is no symbol of an element")
        return tuple(sorted(set(value)))


class _MaterialsProject(_ElementSets):
    """What candidates and labels from the Materials Project have in common."""

    kind: Literal["mp"] = "mp"
    include_gnome: bool = Field(
        True, description="Take GNoME's materials too where your account may see them (CC BY-NC)."
    )
    database_version: str | None = Field(
        None,
        pattern=r"^[\w.-]{1,64}$",
        description="Use this version and no other, e.g. 2026.10.01; null: the current one.",
    )
    offline: bool = Field(False, description="Use the local copy, whatever its age.")
    endpoint: str = Field("https://api.materialsproject.org/", description="Base URL of the API.")


class MaterialsProjectSource(_MaterialsProject, title="Materials Project"):
    """Stable non-metals of the Materials Project; windows include their ends."""

    max_energy_above_hull: Annotated[float, Field(ge=0)] = Field(
        0.0, description="eV/atom; 0 takes what lies on the hull."
    )
    min_band_gap: Annotated[float, Field(ge=0)] | None = Field(None, description="eV.")
    max_band_gap: Annotated[float, Field(gt=0)] | None = Field(None, description="eV.")
    min_sites: Annotated[int, Field(ge=1)] | None = Field(None, description="Atoms in the cell.")
    max_sites: Annotated[int, Field(ge=1)] | None = Field(None, description="Atoms in the cell.")

    @model_validator(mode="after")
    def _windows_open(self) -> MaterialsProjectSource:
        for what, low, high in (
            ("band_gap", self.min_band_gap, self.max_band_gap),
            ("sites", self.min_sites, self.max_sites),
        ):
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{what} is above max_{what}, so nothing can match")
        return self


class MaterialsProjectLabels(_MaterialsProject, title="Materials Project"):
    """Dielectric tensors of the Materials Project, turned into the frames of the structures."""


class OptimadeSource(Settings, title="OPTIMADE"):
    """Any database that speaks OPTIMADE."""

    kind: Literal["optimade"] = "optimade"
    provider: str = Field(
        description="alexandria, alexandria-pbesol, oqmd, jarvis, mp, cod, mc3d, nmd, odbx, "
        "or a base URL."
    )
    filter: str = Field(
        description='OPTIMADE filter, e.g. elements HAS ALL "Ti","O" AND nsites<=20.'
    )
    band_gap_property: str | None = Field(
        None, description="The provider's name for the band gap in eV; null: what it is known for."
    )
    band_gaps: Path | None = Field(None, description="CSV (material_id, band_gap) of gaps in eV.")
    assumed_band_gap: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Gap in eV for materials without one; null: they are left out."
    )
    refresh: bool = Field(False, description="Pull again even if there is a local copy.")
    max_materials: Annotated[int, Field(ge=1)] = Field(
        100_000, description="Stop with an error if more match: a guard against a forgotten filter."
    )


class AseSource(Settings, title="ASE database"):
    """An ASE database (.db, .json) or extended XYZ (.xyz, .extxyz)."""

    kind: Literal["ase"] = "ase"
    path: Path = Field(description="The file.")
    band_gaps: Path | None = Field(None, description="CSV (material_id, band_gap) of gaps in eV.")
    assumed_band_gap: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Gap in eV for materials without one; null: they are left out."
    )


KnownSource = Annotated[
    BuiltinSource | TableSource | MaterialsProjectLabels, Field(discriminator="kind")
]
CandidateSource = Annotated[
    BuiltinSource
    | TableSource
    | FolderSource
    | AseSource
    | MaterialsProjectSource
    | OptimadeSource,
    Field(discriminator="kind"),
]


class FilterSettings(Settings):
    """What is left out before anything is predicted."""

    max_sites: Annotated[int, Field(ge=1)] = Field(
        20, description="Largest number of atoms in the cell; DFPT cost grows with its cube."
    )
    min_band_gap: Annotated[float, Field(ge=0)] = Field(
        0.5,
        description="Smallest band gap in eV; below 0.5 eV semilocal DFT often finds a metal.",
    )
    exclude_layered: bool = Field(
        False,
        description="Leave out layered crystals: semilocal DFT without dispersion gets the "
        "distance of the layers, and with it the ionic part across them, wrong.",
    )
    exclude_hydrogen_missing: bool = Field(
        True, description="Leave out structures whose hydrogen atoms are missing."
    )


class AcquisitionSettings(Settings):
    """How the next calculations are chosen."""

    kind: Literal["ucb", "greedy", "random"] = Field(
        "ucb", description="ucb: μ + κσ of the figure of merit; greedy: μ alone; random: chance."
    )
    kappa: Annotated[float, Field(ge=0)] = Field(1.5, description="κ of the upper bound (DTNet).")
