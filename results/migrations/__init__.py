"""The schema of the ledger, revision by revision, and bringing a database up to date.

The revisions run inside the product, without an ``alembic.ini``. A new one is a file in
``versions`` that goes on from :data:`HEAD`; never change one that was released.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, column, inspect, select, table, text

from results.schema import Base
from screening.errors import UserError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0001"
"""The revision that :mod:`results.schema` describes."""

VERSION_TABLE = "ledger_version"
"""Not alembic's own name, so that a ledger can share a PostgreSQL database with, say, Prefect."""

_LOCK_KEY = 0x6C65646765720001
"""Of the PostgreSQL advisory lock that lets one process at a time migrate ("ledger", 1)."""

_alembic = threading.Lock()
"""Alembic keeps the migration under way in module globals."""


def config(connection: Connection) -> Config:
    """Alembic's configuration for migrating over an open connection."""
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", "results:migrations")
    configuration.set_main_option("path_separator", "os")
    configuration.attributes["connection"] = connection
    return configuration


def revision(connection: Connection) -> str | None:
    """The revision a database is at; None where there is no ledger in it."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version = table(VERSION_TABLE, column("version_num"))
    return connection.execute(select(version.c.version_num)).scalar_one_or_none()


def prepare(engine: Engine, label: str) -> None:
    """Create the schema or bring it up to date, in one transaction.

    Processes that start at the same moment take turns; the second finds the work done.

    Raises
    ------
    UserError
        The ledger is of a newer version of the software, or the database is something else.
    """
    with engine.connect() as connection:
        if revision(connection) == HEAD:
            return
    with _alembic, engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        current = revision(connection)
        if current == HEAD:
            return
        _check(connection, current, label)
        from alembic import command

        command.upgrade(config(connection), "head")


def _check(connection: Connection, current: str | None, label: str) -> None:
    """Refuse to touch what is not a ledger, or not one that this version understands."""
    if current is None:
        tables = set(inspect(connection).get_table_names())
        if connection.dialect.name == "postgresql":
            tables &= Base.metadata.tables.keys()
        if tables:
            raise UserError(
                f"{label} is a database but not a ledger (it has the table "
                f"'{min(tables)}'); use another one for the ledger."
            )
        return
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(config(connection))
    known = {step.revision for step in script.walk_revisions()}
    if current not in known:
        raise UserError(
            f"The ledger {label} was written by a newer version of the software (schema revision "
            f"{current}, this version knows {HEAD}); upgrade the software or use another ledger."
        )
