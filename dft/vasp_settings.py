"""What a person may set about the VASP engine."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Preset = Literal["dtnet", "goectp", "mp"]


class VaspSettings(BaseModel, title="VASP"):
    """Density-functional perturbation theory with VASP, through atomate2 and custodian."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["vasp"] = "vasp"
    preset: Preset = Field(
        "dtnet",
        description="Settings of a publication: dtnet (npj Comput. Mater. 2024), goectp (2026), or "
        "mp (the Materials Project, Sci. Data 2017)",
    )
    relax: Literal["none", "cell"] = Field(
        "none",
        description="Relax cell and positions tightly before the response; the tensors then belong "
        "to the relaxed structure, which is part of the result",
    )
    incar: dict[str, Any] = Field(
        default_factory=dict, description="INCAR tags that replace those of the preset"
    )
    command: str = Field(
        "vasp_std", description="How VASP is started, e.g. 'mpirun -n 16 vasp_std'; never vasp_gam"
    )
    max_attempts: int = Field(
        3, ge=1, le=10, description="How often a calculation is tried, each time otherwise"
    )
    max_corrections: int = Field(
        5, ge=1, le=50, description="Errors that custodian may repair within one attempt"
    )

    def decisive(self) -> dict[str, Any]:
        """Those settings that change the answer; how the program is started does not."""
        return self.model_dump(mode="json", exclude={"kind", "command"})
