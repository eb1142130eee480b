"""Campaigns that follow each other, for a schedule that never ends.

A schedule names one campaign, say ``oxides``. When it is finished, ``oxides-2`` comes next, which
knows what ``oxides`` validated and does not pick again what it calculated; then ``oxides-3``.
"""

from __future__ import annotations

from flows.config import Campaign, recorded_campaign
from flows.run import FINISHED
from results.ledger import Ledger
from results.schema import RoundStatus
from screening.errors import UserError

LONGEST_NAME = 60
"""Characters that leave room for a number behind the name."""


def next_campaign(wanted: Campaign, ledger: Ledger) -> tuple[Campaign, str]:
    """The campaign of a series that is open, or the one that comes after the last.

    Parameters
    ----------
    wanted
        The campaign that the schedule names; its settings count for campaigns that have not begun.

    Returns
    -------
    tuple
        The campaign, and a sentence on what happens to it.

    Raises
    ------
    UserError
        The name leaves no room for a number.
    """
    if len(wanted.name) > LONGEST_NAME:
        raise UserError(
            f"The name '{wanted.name}' is too long for a schedule, which adds a number to it; "
            f"use at most {LONGEST_NAME} characters."
        )
    records = {record.name: record for record in ledger.campaigns()}
    name, follows, number = wanted.name, wanted.follows, 1
    while name in records:
        record = records[name]
        # Whoever gave a campaign of their own such a name keeps it.
        stranger = number > 1 and record.config.get("follows") != follows
        if not stranger and record.status != FINISHED:
            return _open_campaign(wanted, name, follows, ledger)
        number += 1
        follows = follows if stranger else name
        name = f"{wanted.name}-{number}"
    if follows == wanted.follows:
        return wanted, f"Campaign '{name}' begins."
    following = wanted.model_copy(update={"name": name, "follows": follows})
    return following, f"Campaign '{follows}' is finished; '{name}' comes next and builds on it."


def _open_campaign(
    wanted: Campaign, name: str, follows: str | None, ledger: Ledger
) -> tuple[Campaign, str]:
    wanted = wanted.model_copy(update={"name": name, "follows": follows})
    if all(r.status == RoundStatus.STARTED for r in ledger.rounds(name)):
        return wanted, f"Campaign '{name}' begins."
    record = ledger.campaign(name)
    assert record is not None
    begun = recorded_campaign(name, record.config)
    text = f"Campaign '{name}' goes on."
    if begun != wanted:
        text += " The settings have changed since it began; the new ones count from the next on."
    return begun, text
