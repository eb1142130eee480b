"""The part of the ledger that holds campaigns and what was known before them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, delete, select, update

from results import encoding
from results import schema as t
from results.database import Database, insert_missing, insert_once
from results.records import CampaignRecord
from results.schema import RoundStatus
from screening.errors import UserError
from screening.io import stable_hash
from screening.material import KnownMaterial

if TYPE_CHECKING:
    import pandas as pd

RUNNING = "running"

_MAX_DIFFERENCES = 3
_MAX_VALUE_LENGTH = 60

_KNOWN = {
    "material_id": "str",
    "structure_hash": "str",
    "formula": "str",
    "n_sites": "int64",
    "band_gap": "float64",
    "functional": "str",
    "electronic": "object",
    "ionic": "object",
}


class CampaignLedger:
    """Campaigns: created once, with all their settings; see :class:`results.ledger.Ledger`."""

    def __init__(self, where: str | Path) -> None:
        self._database = Database(where)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.label})"

    @property
    def is_shared(self) -> bool:
        """Whether other machines may use it too; a file is used by one."""
        return not self._database.is_sqlite

    def create_campaign(
        self,
        name: str,
        config: Mapping[str, Any],
        task: str,
        seed: int,
        versions: Mapping[str, Any],
        known: Sequence[KnownMaterial] | None = None,
        *,
        replace_untrained: bool = False,
    ) -> CampaignRecord:
        """Enter a campaign and what is known at its start, or find it as it was entered.

        Where a campaign of that name and these settings exists, it is returned as it is;
        ``versions`` and ``known`` of its beginning stay.

        Parameters
        ----------
        config
            The whole configuration as JSON-like values.
        versions
            Of the software and what it rests on, for provenance.
        known
            Materials with known tensors to learn from in the first round.
        replace_untrained
            Enter a campaign anew, whatever its settings were, as long as it has trained nothing:
            whoever corrects a mistake in the settings or the sources may keep the name.

        Raises
        ------
        UserError
            The name is taken by a campaign with other settings.
        """
        settings = json.loads(json.dumps(dict(config)))
        existing = self.campaign(name)
        if existing is None or replace_untrained:
            row = {
                "name": name,
                "config": settings,
                "config_hash": stable_hash(settings),
                "task": task,
                "seed": int(seed),
                "status": RUNNING,
                "versions": dict(versions),
                "created_at": datetime.now(UTC),
            }
            known_rows = [_known_row(entry) for entry in known or ()]
            with self._database.writing() as connection:
                if replace_untrained:
                    _forget_untrained(connection, name)
                if insert_once(connection, t.Campaign, row):
                    campaign_id = self._campaign_id(connection, name)
                    rows = [
                        {"campaign_id": campaign_id, "position": position, **entry}
                        for position, entry in enumerate(known_rows)
                    ]
                    insert_missing(connection, t.Known, rows)
                existing = _find(connection, name)
        assert existing is not None
        differences = _differences(
            {"task": existing.task, "seed": existing.seed} | existing.config,
            {"task": task, "seed": int(seed)} | settings,
        )
        if differences:
            raise UserError(
                f"Campaign '{name}' exists already with other settings ({differences}); choose "
                f"another name, or go on with the settings it has: screen resume {name}."
            )
        return existing

    def change_launcher(self, name: str, launcher: Mapping[str, Any]) -> bool:
        """Replace where a campaign calculates, on which no result depends; False if it is so.

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.writing() as connection:
            campaign_id = self._campaign_id(connection, name)
            statement = select(t.Campaign.config).where(t.Campaign.id == campaign_id)
            before = connection.scalar(statement.with_for_update()) or {}
            config = {**before, "launcher": json.loads(json.dumps(dict(launcher)))}
            if config == before:
                return False
            values = {"config": config, "config_hash": stable_hash(config)}
            connection.execute(
                update(t.Campaign).where(t.Campaign.id == campaign_id).values(**values)
            )
            return True

    def campaign(self, name: str) -> CampaignRecord | None:
        """The campaign of that name, if there is one."""
        with self._database.reading() as connection:
            return _find(connection, name)

    def campaigns(self) -> list[CampaignRecord]:
        """All campaigns, oldest first."""
        statement = select(t.Campaign.__table__).order_by(t.Campaign.id)
        with self._database.reading() as connection:
            return [_campaign_record(row) for row in connection.execute(statement)]

    def finish_campaign(self, name: str, status: str) -> None:
        """Note how a campaign ended, in one word (``finished``, ``stopped``, ``failed``, …).

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.writing() as connection:
            campaign_id = self._campaign_id(connection, name)
            connection.execute(
                update(t.Campaign)
                .where(t.Campaign.id == campaign_id, t.Campaign.status != status)
                .values(status=status, finished_at=datetime.now(UTC))
            )

    def forget_untrained(self, name: str) -> None:
        """Remove a campaign in which nothing was trained, so nothing is lost; others stay."""
        with self._database.writing() as connection:
            _forget_untrained(connection, name)

    def known(self, name: str) -> pd.DataFrame:
        """What was known at the start of a campaign, in the order in which it was given.

        Returns
        -------
        DataFrame
            Columns ``material_id``, ``structure_hash``, ``formula``, ``n_sites``, ``band_gap``
            (eV), ``functional``, ``electronic`` and ``ionic`` (nested lists 3×3 or None, in the
            frame of the material's structure).

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.reading() as connection:
            statement = (
                select(*(getattr(t.Known, column) for column in _KNOWN))
                .where(t.Known.campaign_id == self._campaign_id(connection, name))
                .order_by(t.Known.position)
            )
            return encoding.frame(connection.execute(statement).all(), _KNOWN)

    def _campaign_id(self, connection: Connection, name: str) -> int:
        found = connection.scalar(select(t.Campaign.id).where(t.Campaign.name == name))
        if found is None:
            names = connection.scalars(select(t.Campaign.name).order_by(t.Campaign.id)).all()
            has = f"it has: {', '.join(names)}" if names else "it has none yet"
            raise UserError(
                f"There is no campaign '{name}' in the ledger {self._database.label}; {has}."
            )
        return found


def _find(connection: Connection, name: str) -> CampaignRecord | None:
    statement = select(t.Campaign.__table__).where(t.Campaign.name == name)
    row = connection.execute(statement).one_or_none()
    return None if row is None else _campaign_record(row)


def _forget_untrained(connection: Connection, name: str) -> None:
    """Remove a campaign in which no model was trained; nothing was picked in it either."""
    owner = select(t.Campaign.id).where(t.Campaign.name == name).scalar_subquery()
    trained = select(t.Round.id).where(
        t.Round.campaign_id == owner, t.Round.status != RoundStatus.STARTED.value
    )
    if connection.scalar(trained.limit(1)) is not None:
        return
    for table in (t.Event, t.Known, t.Round):
        connection.execute(delete(table).where(table.campaign_id == owner))
    connection.execute(delete(t.Campaign).where(t.Campaign.name == name))


def _campaign_record(row: Row[Any]) -> CampaignRecord:
    values = dict(row._mapping)
    del values["id"]
    return CampaignRecord(**values)


def _known_row(known: KnownMaterial) -> dict[str, Any]:
    material, tensors = known.material, known.tensors
    return {
        "material_id": material.material_id,
        "structure_hash": material.structure_hash,
        "formula": material.formula,
        "n_sites": int(material.n_sites),
        "band_gap": encoding.scalar(material.band_gap),
        "functional": known.functional,
        "electronic": encoding.matrix(tensors.electronic),
        "ionic": encoding.matrix(tensors.ionic),
    }


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first settings that differ, in words; empty where none does."""
    before, after = _flat(was), _flat(now)
    keys = [
        key
        for key in [*after, *(key for key in before if key not in after)]
        if stable_hash(before.get(key, [])) != stable_hash(after.get(key, []))
        or (key in before) != (key in after)
    ]
    shown = [
        f"{key} was {_shown(before, key)} and is now {_shown(after, key)}"
        for key in keys[:_MAX_DIFFERENCES]
    ]
    if len(keys) > _MAX_DIFFERENCES:
        shown.append(f"and {len(keys) - _MAX_DIFFERENCES} more")
    return "; ".join(shown)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "not set"
    text = json.dumps(values[key], ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[: _MAX_VALUE_LENGTH - 1]}…"
