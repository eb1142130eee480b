"""A campaign out of one ledger and into another, with everything that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, inspect, select, update

from results import encoding
from results import schema as t
from results.database import Database, insert_missing, insert_once
from results.ledger import Ledger
from results.schema import CalculationStatus
from screening.errors import UserError
from screening.io import stable_hash

OUTCOME = ("status", "directory", "finished_at", "cpu_s", "wall_s", "output")
"""What the end of a calculation settles."""

Row = dict[str, Any]
Rows = dict[str, list[Row]]
Move = Callable[[str, Row], Row]


def dump_campaign(ledger: Ledger, name: str) -> str:
    """All rows of a campaign as JSON, read in one transaction.

    Raises
    ------
    UserError
        No such campaign.
    """
    with _database(ledger).reading() as connection:
        owner = ledger._campaign_id(connection, name)
        rounds = select(t.Round.id).where(t.Round.campaign_id == owner)
        keys = select(t.Selection.calculation_key).where(t.Selection.round_id.in_(rounds))
        calculations = select(t.Calculation).where(t.Calculation.key.in_(keys))
        hashes = select(t.Calculation.structure_hash).where(t.Calculation.key.in_(keys))
        questions: dict[type[t.Base], Select[Any]] = {
            t.Campaign: select(t.Campaign).where(t.Campaign.id == owner),
            t.Known: select(t.Known).where(t.Known.campaign_id == owner),
            t.Round: select(t.Round).where(t.Round.campaign_id == owner),
            t.Prediction: select(t.Prediction).where(t.Prediction.round_id.in_(rounds)),
            t.Material: select(t.Material).where(t.Material.structure_hash.in_(hashes)),
            t.Calculation: calculations,
            t.Verdict: select(t.Verdict).where(t.Verdict.calculation_key.in_(keys)),
            t.Selection: select(t.Selection).where(t.Selection.round_id.in_(rounds)),
            t.Event: select(t.Event).where(t.Event.campaign_id == owner).order_by(t.Event.id),
        }
        rows = {
            table.__tablename__: _read(connection, table, question)
            for table, question in questions.items()
        }
    return encoding.dumps(rows)


def load_campaign(ledger: Ledger, text: str, move: Move, finish: Callable[[], None]) -> str:
    """Enter the rows of :func:`dump_campaign` into a ledger, all or none; the campaign's name.

    A calculation that the ledger has already is shared, and stays as it is there unless it is
    finished only in what is entered. One that another campaign of the other ledger paid for counts
    as the campaign's own where that one is not.

    Parameters
    ----------
    move
        Called with the name of a table and each of its rows; gives the row with its paths as they
        are here.
    finish
        Called at the very end; if it fails, nothing is entered.

    Raises
    ------
    UserError
        The ledger has a campaign of that name.
    """
    rows: Rows = encoding.loads(text)
    moved = {table: [move(table, row) for row in entries] for table, entries in rows.items()}
    (campaign,) = moved["campaign"]
    campaign["config_hash"] = stable_hash(campaign["config"])
    name = str(campaign["name"])
    with _database(ledger).writing() as connection:
        _with_moments(t.Campaign, [campaign])
        if not insert_once(connection, t.Campaign, _without(campaign, "id")):
            raise UserError(
                f"The ledger has a campaign '{name}' already; import into another directory "
                "(--directory), or go on with the one that is here."
            )
        owner = ledger._campaign_id(connection, name)
        _enter(connection, t.Known, [{**row, "campaign_id": owner} for row in moved["known"]])
        rounds = _enter_rounds(connection, owner, moved["round"])
        _enter(connection, t.Material, moved["material"])
        paid = [{**row, "campaign_id": owner} for row in moved["calculation"]]
        _enter(connection, t.Calculation, paid)
        _conclude(connection, paid)
        _enter(connection, t.Verdict, moved["verdict"])
        for table in (t.Prediction, t.Selection):
            entries = moved[table.__tablename__]
            _enter(connection, table, [{**r, "round_id": rounds[r["round_id"]]} for r in entries])
        events = [{**_without(row, "id"), "campaign_id": owner} for row in moved["event"]]
        _enter(connection, t.Event, events)
        finish()
    return name


def _database(ledger: Ledger) -> Database:
    return ledger._database


def _read(connection: Connection, table: type[t.Base], question: Select[Any]) -> list[Row]:
    columns = question.with_only_columns(*inspect(table).columns)
    return [
        {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in row._mapping.items()
        }
        for row in connection.execute(columns)
    ]


def _enter(connection: Connection, table: type[t.Base], rows: Sequence[Row]) -> None:
    _with_moments(table, rows)
    insert_missing(connection, table, rows)


def _conclude(connection: Connection, rows: Sequence[Row]) -> None:
    """What is open in this ledger and finished in the other one need not be done again."""
    for row in rows:
        if row["status"] == CalculationStatus.FINISHED:
            outcome = {name: row[name] for name in OUTCOME}
            connection.execute(
                update(t.Calculation)
                .where(t.Calculation.key == row["key"])
                .where(t.Calculation.status != CalculationStatus.FINISHED)
                .values(**outcome)
            )


def _with_moments(table: type[t.Base], rows: Sequence[Row]) -> None:
    moments = [c.name for c in inspect(table).columns if isinstance(c.type, t.UtcDateTime)]
    for row in rows:
        row.update({m: datetime.fromisoformat(row[m]) for m in moments if row[m] is not None})


def _enter_rounds(connection: Connection, owner: int, rows: Sequence[Row]) -> dict[int, int]:
    """Enter rounds; their numbers in the other ledger → in this one."""
    entries = [{**_without(row, "id"), "campaign_id": owner} for row in rows]
    _enter(connection, t.Round, entries)
    found = connection.execute(
        select(t.Round.number, t.Round.id).where(t.Round.campaign_id == owner)
    )
    here = {int(number): int(identity) for number, identity in found}
    return {int(row["id"]): here[int(row["number"])] for row in rows}


def _without(row: Mapping[str, Any], name: str) -> Row:
    return {key: value for key, value in row.items() if key != name}
