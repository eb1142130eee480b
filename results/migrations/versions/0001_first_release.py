"""The schema of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "campaign",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("config_hash", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_campaign"),
        sa.UniqueConstraint("name", name="uq_campaign_name"),
    )
    op.create_table(
        "material",
        sa.Column("structure_hash", sa.Text(), nullable=False),
        sa.Column("material_id", sa.Text(), nullable=False),
        sa.Column("formula", sa.Text(), nullable=False),
        sa.Column("n_sites", sa.Integer(), nullable=False),
        sa.Column("band_gap", sa.Double(), nullable=True),
        sa.Column("energy_above_hull", sa.Double(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("structure", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("structure_hash", name="pk_material"),
    )
    op.create_table(
        "calculation",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("structure_hash", sa.Text(), nullable=False),
        sa.Column("material_id", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("settings_hash", sa.Text(), nullable=False),
        sa.Column("directory", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("handle", sa.Text(), nullable=True),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cpu_s", sa.Double(), nullable=True),
        sa.Column("wall_s", sa.Double(), nullable=True),
        sa.Column("output", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaign.id"], name="fk_calculation_campaign_id"
        ),
        sa.ForeignKeyConstraint(
            ["structure_hash"], ["material.structure_hash"], name="fk_calculation_structure_hash"
        ),
        sa.PrimaryKeyConstraint("key", name="pk_calculation"),
    )
    op.create_index("ix_calculation_structure_hash", "calculation", ["structure_hash"])
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("once", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name="fk_event_campaign_id"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sa.UniqueConstraint("once", name="uq_event_once"),
    )
    op.create_index("ix_event_campaign_id", "event", ["campaign_id"])
    op.create_table(
        "known",
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("material_id", sa.Text(), nullable=False),
        sa.Column("structure_hash", sa.Text(), nullable=False),
        sa.Column("formula", sa.Text(), nullable=False),
        sa.Column("n_sites", sa.Integer(), nullable=False),
        sa.Column("band_gap", sa.Double(), nullable=True),
        sa.Column("functional", sa.Text(), nullable=False),
        sa.Column("electronic", sa.JSON(), nullable=True),
        sa.Column("ionic", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name="fk_known_campaign_id"),
        sa.PrimaryKeyConstraint("campaign_id", "position", name="pk_known"),
    )
    op.create_table(
        "round",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("training_hash", sa.Text(), nullable=True),
        sa.Column("n_training", sa.Integer(), nullable=True),
        sa.Column("model_dir", sa.Text(), nullable=True),
        sa.Column("model_hash", sa.Text(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=True),
        sa.Column("seconds", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name="fk_round_campaign_id"),
        sa.PrimaryKeyConstraint("id", name="pk_round"),
        sa.UniqueConstraint("campaign_id", "number", name="uq_round_campaign_id_number"),
    )
    op.create_table(
        "prediction",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("material_id", sa.Text(), nullable=False),
        sa.Column("structure_hash", sa.Text(), nullable=False),
        sa.Column("formula", sa.Text(), nullable=False),
        sa.Column("n_sites", sa.Integer(), nullable=False),
        sa.Column("band_gap", sa.Double(), nullable=True),
        sa.Column("electronic", sa.JSON(), nullable=True),
        sa.Column("ionic", sa.JSON(), nullable=True),
        sa.Column("epsilon_mean", sa.Double(), nullable=True),
        sa.Column("epsilon_std", sa.Double(), nullable=True),
        sa.Column("merit_mean", sa.Double(), nullable=True),
        sa.Column("merit_std", sa.Double(), nullable=True),
        sa.Column("acquisition", sa.Double(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_prediction_round_id"),
        sa.PrimaryKeyConstraint("round_id", "position", name="pk_prediction"),
    )
    op.create_table(
        "selection",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("calculation_key", sa.Text(), nullable=False),
        sa.Column("material_id", sa.Text(), nullable=False),
        sa.Column("band_gap", sa.Double(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("acquisition", sa.Double(), nullable=True),
        sa.Column("merit_mean", sa.Double(), nullable=True),
        sa.Column("merit_std", sa.Double(), nullable=True),
        sa.Column("epsilon_mean", sa.Double(), nullable=True),
        sa.Column("epsilon_std", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["calculation_key"], ["calculation.key"], name="fk_selection_calculation_key"
        ),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_selection_round_id"),
        sa.PrimaryKeyConstraint("round_id", "calculation_key", name="pk_selection"),
    )
    op.create_index("ix_selection_calculation_key", "selection", ["calculation_key"])
    op.create_table(
        "verdict",
        sa.Column("calculation_key", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("electronic", sa.JSON(), nullable=True),
        sa.Column("ionic", sa.JSON(), nullable=True),
        sa.Column("functional", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["calculation_key"], ["calculation.key"], name="fk_verdict_calculation_key"
        ),
        sa.PrimaryKeyConstraint("calculation_key", name="pk_verdict"),
    )
