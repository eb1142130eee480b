"""Plain values that go into the ledger and come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from results.schema import ACCEPTED, CalculationStatus, RoundStatus
from screening.material import Material
from screening.tensors import DielectricTensors


@dataclass(frozen=True)
class CampaignRecord:
    """A campaign as it stands; times are in UTC."""

    name: str
    config: dict[str, Any]
    config_hash: str
    task: str
    seed: int
    status: str
    versions: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class RoundRecord:
    """A round as it stands.

    Attributes
    ----------
    seconds
        What each step took: ``{"train": {"wall_s": 12.0, "cpu_s": 23.5}}``.
    """

    id: int
    campaign: str
    number: int
    status: RoundStatus
    training_hash: str | None
    n_training: int | None
    model_dir: str | None
    model_hash: str | None
    metrics: dict[str, Any] | None
    seconds: dict[str, dict[str, float]]
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Selection:
    """A candidate picked for calculation, and what was expected of it.

    ``epsilon`` is the mean static permittivity (trace/3), ``merit`` the task's figure of merit,
    each with mean and standard deviation over the ensemble.
    """

    calculation_key: str
    rank: int
    acquisition: float
    merit_mean: float
    merit_std: float
    epsilon_mean: float
    epsilon_std: float


@dataclass(frozen=True)
class PlannedCalculation:
    """A calculation to be done: ``key`` stands for (structure hash, settings hash)."""

    key: str
    structure_hash: str
    material_id: str
    engine: str
    settings: dict[str, Any]
    settings_hash: str
    directory: str


@dataclass(frozen=True)
class CalculationRecord:
    """A calculation as it stands, with the structure it is (to be) done on.

    Attributes
    ----------
    campaign
        The campaign that planned it first; others may share it.
    tensors
        What the gate let through, in the frame of the structure that was calculated.
    relaxed
        ``material`` with the structure that was calculated, where the run relaxed it first.
    """

    key: str
    campaign: str
    material: Material
    engine: str
    settings: dict[str, Any]
    settings_hash: str
    directory: str
    status: CalculationStatus
    handle: str | None
    planned_at: datetime
    submitted_at: datetime | None
    finished_at: datetime | None
    cpu_s: float | None
    wall_s: float | None
    output: dict[str, Any] | None
    verdict: str | None
    detail: str | None
    tensors: DielectricTensors
    functional: str | None
    relaxed: Material | None = None

    @property
    def accepted(self) -> bool:
        """Whether the gate accepted the result."""
        return self.verdict == ACCEPTED
