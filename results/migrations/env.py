"""Alembic's entry point: run the revisions over the connection in ``config.attributes``."""

from __future__ import annotations

from alembic import context

from results.migrations import VERSION_TABLE
from results.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # SQLite alters a table by copying it.
    render_as_batch=True,
)
context.run_migrations()
