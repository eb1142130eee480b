"""Campaigns of a schedule follow each other; nobody's own campaign is taken for one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.config import Campaign
from flows.series import LONGEST_NAME, next_campaign
from results.ledger import Ledger
from screening.errors import UserError

WANTED = Campaign(name="oxides", rounds=2)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def begin(ledger: Ledger, campaign: Campaign, *, trained: bool = True) -> None:
    config = campaign.model_dump(mode="json")
    ledger.create_campaign(campaign.name, config, campaign.task, campaign.seed, {})
    record = ledger.start_round(campaign.name, 1)
    if trained:
        ledger.record_training(record.id, "0" * 32, 1, "model", "0" * 32, {})


def finish(ledger: Ledger, campaign: Campaign) -> None:
    begin(ledger, campaign)
    ledger.finish_campaign(campaign.name, "finished")


def test_one_after_the_other(ledger: Ledger) -> None:
    assert next_campaign(WANTED, ledger) == (WANTED, "Campaign 'oxides' begins.")
    follows = None
    for name in ("oxides", "oxides-2", "oxides-3"):
        found, said = next_campaign(WANTED, ledger)
        assert (found.name, found.follows) == (name, follows)
        assert follows is None or said == (
            f"Campaign '{follows}' is finished; '{name}' comes next and builds on it."
        )
        begin(ledger, found)
        assert next_campaign(WANTED, ledger) == (found, f"Campaign '{name}' goes on.")
        ledger.finish_campaign(name, "finished")
        follows = name


def test_what_has_begun_keeps_its_settings(ledger: Ledger) -> None:
    begin(ledger, WANTED)
    changed = WANTED.model_copy(update={"rounds": 9})
    found, said = next_campaign(changed, ledger)
    assert found == WANTED and "The settings have changed since it began" in said
    ledger.finish_campaign("oxides", "finished")
    assert next_campaign(changed, ledger)[0].rounds == 9


def test_what_has_trained_nothing_takes_the_new_settings(ledger: Ledger) -> None:
    begin(ledger, WANTED, trained=False)
    changed = WANTED.model_copy(update={"rounds": 9})
    assert next_campaign(changed, ledger) == (changed, "Campaign 'oxides' begins.")


@pytest.mark.parametrize("status", ["finished", "running"])
def test_a_stranger_keeps_its_name(ledger: Ledger, status: str) -> None:
    """Somebody's own ``oxides-2``, which follows nothing."""
    finish(ledger, WANTED)
    stranger = WANTED.model_copy(update={"name": "oxides-2"})
    begin(ledger, stranger)
    if status == "finished":
        ledger.finish_campaign("oxides-2", status)
    found, said = next_campaign(WANTED, ledger)
    assert (found.name, found.follows) == ("oxides-3", "oxides")
    assert "'oxides' is finished; 'oxides-3' comes next" in said


def test_a_series_may_build_on_another_campaign(ledger: Ledger) -> None:
    wanted: Any = WANTED.model_copy(update={"follows": "sulphides"})
    assert next_campaign(wanted, ledger) == (wanted, "Campaign 'oxides' begins.")
    finish(ledger, wanted)
    assert next_campaign(wanted, ledger)[0].follows == "oxides"


def test_a_name_without_room_for_a_number(ledger: Ledger) -> None:
    fits = WANTED.model_copy(update={"name": "o" * LONGEST_NAME})
    assert next_campaign(fits, ledger)[0] == fits
    with pytest.raises(UserError, match="too long for a schedule"):
        next_campaign(WANTED.model_copy(update={"name": "o" * (LONGEST_NAME + 1)}), ledger)
