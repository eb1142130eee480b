"""What a person may set about engines, launchers and the gate."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dft.verdict import Verdict


def _refusal(verdict: Verdict) -> Verdict:
    if verdict is Verdict.ACCEPTED:
        raise ValueError("'accepted' is not a failure; leave the material out instead")
    return verdict


FailureMode = Annotated[Verdict, AfterValidator(_refusal)]
"""A way for a replayed calculation to fail: any verdict other than ``accepted``."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReplaySettings(_Settings):
    """The engine that answers from a table of known results."""

    kind: Literal["replay"] = "replay"
    delay_s: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Time each calculation pretends to take"
    )
    stall_s: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a calculation told to end in 'timeout' hangs; it reports itself as "
        "timed out after that if the launcher has no shorter limit",
    )
    failures: dict[str, FailureMode] = Field(
        default_factory=dict,
        description="Material id -> the verdict its calculation is made to earn",
    )


class LocalLauncherSettings(_Settings):
    """Calculations as processes on this machine."""

    kind: Literal["local"] = "local"
    max_parallel: int = Field(default=2, ge=1, le=1000, description="Calculations at the same time")
    timeout_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Wall time one calculation may take; no limit if null",
    )


class JobflowRemoteSettings(_Settings):
    """Calculations handed over to jobflow-remote, which its user has set up and keeps running."""

    kind: Literal["jobflow-remote"] = "jobflow-remote"
    project: str | None = Field(default=None, description="Its project; its own default if null")
    worker: str | None = Field(
        default=None, description="The worker in that project; the first one if null"
    )
    exec_config: str | None = Field(
        default=None, description="Modules and lines before a job, by their name in the project"
    )
    resources: dict[str, str | int | float] | None = Field(
        default=None, description="What a job asks its queue for; the worker's if null"
    )
    priority: int = Field(default=0, description="The higher, the sooner")
    cores: int = Field(default=1, ge=1, description="Cores that a job has, for what it has cost")
    poll_s: float = Field(
        default=15.0, ge=0, allow_inf_nan=False, description="Seconds between looks at its database"
    )


class GateThresholds(_Settings):
    """Limits between an accepted and a refused calculation.

    Lengths of tensors are spectral norms and eigenvalues, so that no limit depends on the frame
    a calculation happened to be done in. Deviations are relative to the largest eigenvalue of the
    tensor, but to at least 1: the permittivity of the vacuum is the natural unit, and the ionic
    part of a non-polar crystal is nothing but noise around 0.
    """

    metallic_gap: float = Field(
        default=0.05,
        ge=0,
        description="eV. At or below it the run has no gap: thermal smearing of 0.05 eV, the usual "
        "width, fills the conduction band and DFPT with fixed occupations no longer holds",
    )
    metallic_electronic: float = Field(
        default=100.0,
        gt=1,
        description="Largest eigenvalue of ε∞ that an insulator may have. Semiconductors of the "
        "smallest gaps reach 30 to 90 (PbTe, Bi2Te3); the papers leave out what is above 100, and "
        "the tables hold 100 to 10,000 only where the gap closed in the run, as in magnets "
        "calculated without spin",
    )
    identity_distance: float = Field(
        default=1e-3,
        ge=0,
        description="Largest distance from the identity that still means 'no response was "
        "computed'. Failed runs print the identity exactly; the smallest ε∞ of a real solid, solid "
        "helium or hydrogen, is above 1.01",
    )
    imaginary_thz: float = Field(
        default=-0.05,
        le=0,
        description="THz, negative = imaginary. Below it a mode is imaginary. Γ frequencies carry "
        "a noise of about 0.05 THz (1.7 cm⁻¹) after the acoustic sum rule is imposed; "
        "instabilities lie beyond it",
    )
    soft_thz: float = Field(
        default=0.3,
        ge=0,
        description="THz. Below it the lowest optical mode is soft. The ionic part goes as 1/ω², "
        "so that the same noise of 0.05 THz changes the contribution of a mode at 0.3 THz by a "
        "third; the tables of known tensors draw the line at the same place. 0 lets every real "
        "mode pass",
    )
    max_skew: float = Field(
        default=0.05,
        ge=0,
        description="Largest relative deviation from T = Tᵀ that counts as noise. Finite meshes "
        "leave 1e-4 to 1e-2; more than 0.05 would move the anisotropy ratio by as much, and "
        "misread blocks are off by 0.1 to 1",
    )
    max_point_group_deviation: float = Field(
        default=0.05,
        ge=0,
        description="Largest relative deviation from invariance under the point group that counts "
        "as noise. Reasons as for max_skew; a tensor in a wrong frame is off by 0.1 to 1",
    )
    electronic_slack: float = Field(
        default=1e-3,
        ge=0,
        description="How far an eigenvalue of ε∞ may lie below 1, the vacuum: the accuracy to "
        "which codes print it. Electrons only screen, so nothing below 1 is physical",
    )
    ionic_slack: float = Field(
        default=0.02,
        ge=0,
        description="How far an eigenvalue of the ionic part may lie below 0. It is a difference "
        "of two tensors converged to about 1e-2; without imaginary modes it cannot be negative",
    )
    born_charge_sum: float = Field(
        default=0.1,
        ge=0,
        description="e per atom. Born charges add up to 0 in an exact calculation; converged DFPT "
        "leaves a few 0.01 e per atom, and 0.1 e is already 3-5 % of a typical charge, 6-10 % of "
        "the ionic part",
    )

    second_look_sigmas: float = Field(
        default=3.0,
        gt=0,
        description="Standard deviations of the model between predicted and calculated mean "
        "permittivity beyond which an accepted result is flagged for a second look. They are "
        "calibrated, so that 1 in 370 would lie beyond 3 if errors were Gaussian",
    )
    second_look_ratio: float = Field(
        default=2.0,
        gt=1,
        description="Ratio of calculated and predicted mean permittivity below which nothing is "
        "flagged, however sure the model is: a tenth of all correct predictions are off by 1.5, "
        "and every flag costs a person's time",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.imaginary_thz > self.soft_thz:
            raise ValueError("imaginary_thz must not be above soft_thz")
        return self
