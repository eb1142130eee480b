"""What a deployment runs: one campaign after the other, each run going on where the last one was.

The flow is found by its import path, ``flows.scheduled.scheduled``, so that a worker needs the
software installed and no copy of the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed

from dft.locks import try_lock
from flows.campaign import FLOW_NAME
from flows.campaign import campaign as loop
from flows.config import Campaign
from flows.orchestration import without_tracebacks
from flows.reporter import run_logger
from flows.series import next_campaign
from flows.session import open_ledger
from flows.steps import NOTHING_NEW
from screening.filters import NothingLeftError
from screening.io import unwritable


@flow(name=FLOW_NAME, flow_run_name="{campaign.name}", persist_result=False)
def scheduled(campaign: Campaign, directory: Path, ledger: str | None = None) -> State[Any]:
    """Go on with the open campaign, or start the next one.

    Any number of runs may be started: only one works at a time, and none repeats what another has
    done.

    Args:
        campaign: what to search for; once it is finished, the next has a number behind its name
        directory: where campaigns are kept, on the machine of the worker
        ledger: database URL or SQLite file; by default ledger.sqlite in the directory
    """
    without_tracebacks()
    directory = directory.absolute()
    home = directory / campaign.name
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(home, error) from error
    with try_lock(home / ".schedule") as alone:
        if not alone:
            return Cancelled(message=f"Another run is at work on '{campaign.name}'; nothing to do.")
        book = open_ledger(directory, ledger)
        current, what_happens = next_campaign(campaign, book)
        _say(what_happens, current.name)
        try:
            result = loop.fn(current, directory, ledger)
        except NothingLeftError as error:
            if current.follows is None:
                raise
            book.forget_untrained(current.name)
            return Completed(name=NOTHING_NEW, message=f"Nothing new to calculate. {error}")
    found = len(result["validated"])
    return Completed(message=f"Campaign '{current.name}' is finished: {found} validated.")


def _say(text: str, name: str) -> None:
    logger = run_logger()
    if logger is None:
        return
    logger.info(text)
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name)
