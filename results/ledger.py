"""The ledger: the single source of truth for the state of every campaign.

Built in layers, each adding the tables of one noun: :mod:`results.campaigns`,
:mod:`results.rounds`, :mod:`results.claims`, :mod:`results.calculations`, and events here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from results import encoding
from results import schema as t
from results.calculations import CalculationLedger
from results.database import insert_once

if TYPE_CHECKING:
    import pandas as pd

_EVENT = {"at": "datetime64[us, UTC]", "kind": "str", "detail": "object"}


class Ledger(CalculationLedger):
    """What is known so far, in one database for any number of campaigns.

    Every method is one transaction, and every write may be repeated: after a crash at any moment
    the same sequence of calls leads to the same state. Several processes may use one ledger at the
    same time; an object may be shared between threads. Times are in UTC.

    Parameters
    ----------
    where
        Path of an SQLite file (created with its directory) or a URL, ``sqlite:///path`` or
        ``postgresql://user:password@host/database``.

    Raises
    ------
    UserError
        From every method: the database cannot be reached, read or written. At the start also: not
        a ledger, or one that a newer version of the software wrote.

    Examples
    --------
    One round, in the order in which a ledger accepts its steps::

        ledger = Ledger("campaigns/ledger.sqlite")
        ledger.create_campaign("oxides", config, "high-k", seed, versions, known)
        current = ledger.start_round("oxides", 1)
        ledger.record_training(current.id, training_hash, 6000, "model", model_hash, metrics)
        ledger.record_predictions(current.id, predictions)
        ledger.select(current.id, selections, calculations, materials)
        for calculation in ledger.pending("oxides"):
            ledger.record_result(calculation.key, output, "accepted", detail, *tensors, "PBE")
        ledger.finish_round(current.id)
        learned = ledger.accepted("oxides", before_round=2)
    """

    def event(
        self,
        campaign: str | None,
        kind: str,
        detail: Mapping[str, Any],
        once: str | None = None,
    ) -> bool:
        """Note that something happened.

        Parameters
        ----------
        campaign
            Its name, or None for what concerns the ledger as a whole.
        once
            A name for what can happen to the campaign only once (``"round 2 started"``): a second
            event of that name is not recorded. Events without it add up.

        Returns
        -------
        bool
            False where it was recorded before.

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.writing() as connection:
            owner = None if campaign is None else self._campaign_id(connection, campaign)
            row = {
                "campaign_id": owner,
                "at": datetime.now(UTC),
                "kind": kind,
                "detail": dict(detail),
                "once": None if once is None else encoding.dumps([campaign, once]),
            }
            return insert_once(connection, t.Event, row)

    def events(self, campaign: str | None) -> pd.DataFrame:
        """The events of a campaign (or, for None, those of no campaign), oldest first.

        Returns
        -------
        DataFrame
            Columns ``at`` (UTC), ``kind``, ``detail`` (dict).

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.reading() as connection:
            owner = None if campaign is None else self._campaign_id(connection, campaign)
            statement = (
                select(t.Event.at, t.Event.kind, t.Event.detail)
                .where(t.Event.campaign_id.is_not_distinct_from(owner))
                .order_by(t.Event.id)
            )
            return encoding.frame(connection.execute(statement).all(), _EVENT)
