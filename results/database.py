"""The database under the ledger: where it is, how it is opened, and what can go wrong with it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from results import encoding
from results.failures import explain
from results.migrations import prepare
from results.schema import Base
from screening.errors import UserError
from screening.io import unwritable

BUSY_TIMEOUT_S = 60
"""How long a writer waits for another one; the longest write (a round's predictions) takes 2 s."""

CONNECT_TIMEOUT_S = 10


class Database:
    """A ledger's database with an up-to-date schema.

    Parameters
    ----------
    where
        A path (the file and its directory are created) or a URL: ``sqlite:///path``,
        ``postgresql://user:password@host/database``. SQLite wants a local disk; on a file system
        shared by several machines use PostgreSQL.

    Raises
    ------
    UserError
        No such place, not a ledger, a ledger of a newer version, no permission, no server.
    """

    def __init__(self, where: str | Path) -> None:
        self._url = _parse(where)
        self.label = _label(self._url)
        if self._url.drivername == "sqlite":
            _make_directory(Path(str(self._url.database)))
        # Connections are opened per transaction: nothing is carried across a fork, and a server
        # that was restarted in the meantime is not noticed.
        self._engine = _sqlite(self._url) if self.is_sqlite else _postgresql(self._url)
        with self._explained():
            prepare(self._engine, self.label)
            if self.is_sqlite:
                _use_wal(self._engine)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file."""
        return self._url.drivername == "sqlite"

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one consistent state."""
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._explained(), self._engine.connect().execution_options(**options) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is stored whole at the end of the block, or not at all."""
        engine = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        with self._explained(), engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            message = explain(error, self.label)
            if message is None:
                raise
            raise UserError(message) from error


def sqlite_file(where: str | Path) -> Path | None:
    """The file of a ledger, absolute; None if a server keeps it.

    Raises
    ------
    UserError
        No such place.
    """
    url = _parse(where)
    return Path(str(url.database)) if url.drivername == "sqlite" else None


def insert_missing(
    connection: Connection, table: type[Base], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert the rows whose keys are not there yet."""
    if rows:
        connection.execute(_insertion(connection, table), list(rows))


def insert_once(connection: Connection, table: type[Base], row: Mapping[str, Any]) -> bool:
    """Insert a row unless its key is there; whether it was inserted."""
    statement = _insertion(connection, table).execution_options(preserve_rowcount=True)
    return connection.execute(statement, dict(row)).rowcount == 1


def _insertion(connection: Connection, table: type[Base]) -> Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def _parse(where: str | Path) -> URL:
    given = str(where)
    if "://" not in given:
        path = Path(given).expanduser().absolute()
        return URL.create("sqlite", database=str(path))
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise UserError(
            "The URL of the ledger cannot be read; write a path to a file or "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE (with %40 for an @ in the password)."
        ) from None
    backend = url.drivername.partition("+")[0]
    if backend == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise UserError(
                f"The ledger {given} would live in memory and be lost at the end; "
                "give the path of a file."
            )
        return _parse(str(url.database))
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise UserError(
        f"A ledger cannot be kept in '{backend}'; "
        "give the path of a file (SQLite) or a postgresql:// URL."
    )


def _label(url: URL) -> str:
    """What messages call the ledger; never with its password."""
    if url.drivername == "sqlite":
        return str(url.database)
    public = URL.create("postgresql", url.username, None, url.host, url.port, url.database)
    return public.render_as_string()


def _make_directory(path: Path) -> None:
    try:
        if path.is_dir():
            raise UserError(
                f"The ledger {path} is a directory; give the path of a file, "
                f"for example {path / 'ledger.sqlite'}."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    if not path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(
            f"The ledger {path} cannot be created, its directory is read-only; "
            "get permission to write there or choose another place."
        )


def _sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args={"timeout": BUSY_TIMEOUT_S},
        json_serializer=encoding.dumps,
        json_deserializer=encoding.loads,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        # Python's driver would begin transactions by itself, late and deferred.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that turns into a writer fails at once if another one wrote in the
        # meantime; an immediate one waits its turn.
        statement = connection.get_execution_options().get("begin", "BEGIN")
        if statement:
            connection.exec_driver_sql(statement)

    return engine


def _use_wal(engine: Engine) -> None:
    """Let readers and a writer work at the same time; a property of the file that stays.

    The switch needs the file for itself and does not always honour the busy timeout.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            with engine.connect().execution_options(begin="") as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except OperationalError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            busy = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _postgresql(url: URL) -> Engine:
    arguments: dict[str, Any] = {"client_encoding": "utf8"}
    if "connect_timeout" not in url.query and "PGCONNECT_TIMEOUT" not in os.environ:
        arguments["connect_timeout"] = CONNECT_TIMEOUT_S
    try:
        return create_engine(
            url,
            poolclass=NullPool,
            connect_args=arguments,
            json_serializer=encoding.dumps,
            json_deserializer=encoding.loads,
        )
    except ImportError as error:
        raise UserError(
            f"The ledger {_label(url)} needs the PostgreSQL driver, which is not installed; "
            "run pip install 'psycopg[binary]'."
        ) from error
