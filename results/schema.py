"""Tables of the ledger.

The tables are the single source of truth for the state of every campaign. A change here needs a
new revision in :mod:`results.migrations`; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    MetaData,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

ACCEPTED = "accepted"
"""The one verdict of the gate that lets a calculation into the training data."""

Matrix = list[list[float]]
"""A 3×3 tensor as nested lists."""


class RoundStatus(StrEnum):
    """How far a round has come; the order of the members is the order of the steps."""

    STARTED = "started"
    TRAINED = "trained"
    PREDICTED = "predicted"
    SELECTED = "selected"
    FINISHED = "finished"


class CalculationStatus(StrEnum):
    """How far a calculation has come."""

    PLANNED = "planned"
    SUBMITTED = "submitted"
    FINISHED = "finished"


class PlainText(TypeDecorator[str]):
    """Text that every database can hold.

    PostgreSQL refuses NUL characters and no database holds lone surrogates, yet both occur in what
    a crashing engine prints; they become U+FFFD.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        if value is None:
            return None
        text = str.__str__(value).replace("\0", "\ufffd")
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, stored in UTC and read back with its time zone (SQLite would drop it)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Common types and the names of constraints, which migrations need to refer to."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: PlainText(),
        float: Double(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(none_as_null=True),
        Matrix: JSON(none_as_null=True),
    }


class Campaign(Base):
    """One campaign, with its whole configuration as it was when it started."""

    __tablename__ = "campaign"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    config: Mapped[dict[str, Any]]
    config_hash: Mapped[str]
    task: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    versions: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Known(Base):
    """A material whose tensors were known before the campaign began."""

    __tablename__ = "known"

    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    material_id: Mapped[str]
    structure_hash: Mapped[str]
    formula: Mapped[str]
    n_sites: Mapped[int]
    band_gap: Mapped[float | None]
    functional: Mapped[str]
    electronic: Mapped[Matrix | None]
    ionic: Mapped[Matrix | None]


class Round(Base):
    """One turn of the loop."""

    __tablename__ = "round"
    __table_args__ = (UniqueConstraint("campaign_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"))
    number: Mapped[int]
    status: Mapped[str]
    training_hash: Mapped[str | None]
    n_training: Mapped[int | None]
    model_dir: Mapped[str | None]
    model_hash: Mapped[str | None]
    metrics: Mapped[dict[str, Any] | None]
    seconds: Mapped[dict[str, Any]]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Prediction(Base):
    """What the ensemble says about one candidate; tensors are means over the members."""

    __tablename__ = "prediction"

    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    material_id: Mapped[str]
    structure_hash: Mapped[str]
    formula: Mapped[str]
    n_sites: Mapped[int]
    band_gap: Mapped[float | None]
    electronic: Mapped[Matrix | None]
    ionic: Mapped[Matrix | None]
    epsilon_mean: Mapped[float | None]
    epsilon_std: Mapped[float | None]
    merit_mean: Mapped[float | None]
    merit_std: Mapped[float | None]
    acquisition: Mapped[float | None]
    rank: Mapped[int]


class Material(Base):
    """A structure that was selected at least once, in any campaign."""

    __tablename__ = "material"

    structure_hash: Mapped[str] = mapped_column(primary_key=True)
    material_id: Mapped[str]
    formula: Mapped[str]
    n_sites: Mapped[int]
    band_gap: Mapped[float | None]
    energy_above_hull: Mapped[float | None]
    source: Mapped[str]
    structure: Mapped[dict[str, Any]]


class Calculation(Base):
    """One engine run on one structure with one set of settings, shared by all campaigns.

    ``campaign_id`` is the campaign that planned it first and pays for it.
    """

    __tablename__ = "calculation"

    key: Mapped[str] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"))
    structure_hash: Mapped[str] = mapped_column(ForeignKey("material.structure_hash"), index=True)
    material_id: Mapped[str]
    engine: Mapped[str]
    settings: Mapped[dict[str, Any]]
    settings_hash: Mapped[str]
    directory: Mapped[str]
    status: Mapped[str]
    handle: Mapped[str | None]
    planned_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cpu_s: Mapped[float | None]
    wall_s: Mapped[float | None]
    output: Mapped[dict[str, Any] | None]


class Verdict(Base):
    """What the gate said about a finished calculation, and the tensors it let through."""

    __tablename__ = "verdict"

    calculation_key: Mapped[str] = mapped_column(ForeignKey("calculation.key"), primary_key=True)
    verdict: Mapped[str]
    detail: Mapped[str]
    judged_at: Mapped[datetime]
    electronic: Mapped[Matrix | None]
    ionic: Mapped[Matrix | None]
    functional: Mapped[str | None]


class Selection(Base):
    """A round's decision to spend a calculation on a candidate, and what was expected of it.

    ``material_id`` and ``band_gap`` are those of the campaign's own source; the shared row in
    ``material`` may have come from another one.
    """

    __tablename__ = "selection"

    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"), primary_key=True)
    calculation_key: Mapped[str] = mapped_column(
        ForeignKey("calculation.key"), primary_key=True, index=True
    )
    material_id: Mapped[str]
    band_gap: Mapped[float | None]
    rank: Mapped[int]
    acquisition: Mapped[float | None]
    merit_mean: Mapped[float | None]
    merit_std: Mapped[float | None]
    epsilon_mean: Mapped[float | None]
    epsilon_std: Mapped[float | None]


class Event(Base):
    """Something that happened, for provenance. ``once`` is set on events that happen only once."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaign.id"), index=True)
    at: Mapped[datetime]
    kind: Mapped[str]
    detail: Mapped[dict[str, Any]]
    once: Mapped[str | None] = mapped_column(unique=True)
