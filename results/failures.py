"""What a database's complaint means for the person at the keyboard."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

_KEPT = "everything recorded so far is kept"

_SQLITE = {
    sqlite3.SQLITE_NOTADB: "{label} is not a ledger (not an SQLite database); "
    "move it away or give the path of another file.",
    sqlite3.SQLITE_CORRUPT: "The ledger {label} is damaged ({reason}); "
    "restore it from a backup, or move it away and start a new one.",
    sqlite3.SQLITE_READONLY: "The ledger {label} is read-only ({reason}); "
    "get permission to write the file and its directory, or use another ledger.",
    sqlite3.SQLITE_CANTOPEN: "The ledger {label} cannot be opened ({reason}); "
    "get permission to write the file and its directory, or use another ledger.",
    sqlite3.SQLITE_PERM: "The ledger {label} cannot be opened ({reason}); "
    "get permission to write the file and its directory, or use another ledger.",
    sqlite3.SQLITE_FULL: "The disk is full: the ledger {label} could not be written; "
    f"free some space and run the same command again, {_KEPT}.",
    sqlite3.SQLITE_IOERR: "The ledger {label} could not be read or written ({reason}); "
    f"check the disk and its quota, then run the same command again, {_KEPT}.",
    sqlite3.SQLITE_PROTOCOL: "The file system of the ledger {label} does not lock files reliably; "
    "put the ledger on a local disk, or use PostgreSQL.",
    sqlite3.SQLITE_BUSY: "The ledger {label} has been held by another process for a minute; "
    f"end that process or wait, then run the same command again, {_KEPT}.",
}

_REJECTED = (
    "The server refused the user or the password for the ledger {label}; "
    "check both in the URL (or PGPASSWORD, ~/.pgpass)."
)
_LOST = (
    "The connection to the ledger {label} was lost ({reason}); "
    f"when the server is back run the same command again, {_KEPT}."
)

_OTHER = (
    "The server of the ledger {label} reports a problem ({reason}); "
    f"when that is solved run the same command again, {_KEPT}."
)

_POSTGRESQL = {
    "28": _REJECTED,
    "3D000": "There is no such database on the server: {label}; create it (createdb) or "
    "correct the URL.",
    "3F000": "The schema for the ledger {label} does not exist ({reason}); "
    "create it or correct the search path.",
    "42501": "The ledger {label} may not be written by this user ({reason}); "
    "ask for the right to create and write tables there.",
    "25006": "The ledger {label} is read-only (a standby server or a read-only user); "
    "use one that can be written.",
    "53100": "The disk of the server is full: the ledger {label} could not be written; "
    f"free some space and run the same command again, {_KEPT}.",
    "53300": "The server has no connection left for the ledger {label}; "
    "close some or raise max_connections, then run the same command again.",
    "08": _LOST,
    "57P": _LOST,
}

_UNREACHABLE = (
    "The database server of the ledger {label} cannot be reached ({reason}); "
    "check that it runs and that host, port and database name are right."
)


def explain(error: DBAPIError, label: str) -> str | None:
    """One sentence for an error of the environment; None for a mistake in our own statements.

    Parameters
    ----------
    label
        What to call the ledger, without its password.
    """
    origin = error.orig
    if isinstance(origin, sqlite3.Error):
        return _explain_sqlite(origin, label)
    state = getattr(origin, "sqlstate", None) or ""
    reason = _first_line(origin)
    for prefix in (state, state[:3], state[:2]):
        if prefix in _POSTGRESQL:
            return _POSTGRESQL[prefix].format(label=label, reason=reason)
    if isinstance(error, IntegrityError | ProgrammingError | DataError):
        return None
    if state:
        return _OTHER.format(label=label, reason=reason)
    if error.statement is None:
        return _explain_connection(str(origin), label)
    return _LOST.format(label=label, reason=reason)


def _explain_sqlite(origin: sqlite3.Error, label: str) -> str | None:
    code = getattr(origin, "sqlite_errorcode", None)
    template = None if code is None else _SQLITE.get(code & 0xFF)
    return None if template is None else template.format(label=label, reason=origin)


def _explain_connection(message: str, label: str) -> str:
    """A connection that never came about; libpq gives no code, only words."""
    if "authentication failed" in message or "no password supplied" in message:
        return _REJECTED.format(label=label)
    if 'database "' in message and "does not exist" in message:
        return _POSTGRESQL["3D000"].format(label=label)
    if "too many" in message:
        return _POSTGRESQL["53300"].format(label=label)
    return _UNREACHABLE.format(label=label, reason=_first_line(message))


def _first_line(reason: object) -> str:
    return str(reason).strip().partition("\n")[0].rstrip(".")
