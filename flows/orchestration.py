"""With a Prefect server the campaign is a flow run; without one it is a plain function call."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from flows.config import Campaign
from flows.server import check_server
from screening.errors import UserError


def run_campaign(config: Campaign, directory: Path, ledger: str | None) -> dict[str, Any]:
    """Run or go on with a campaign and return its summary.

    Raises
    ------
    UserError
        Anything the user can put right, an unreachable Prefect server among it.
    """
    from prefect import tags
    from prefect.settings import get_current_settings

    from flows.campaign import campaign

    url = get_current_settings().api.url
    if url is None:
        return campaign.fn(config, directory, ledger)
    check_server(url)
    without_tracebacks()
    _leave_notes_to_the_reporter()
    with tags(config.task):
        state = campaign(config, directory, ledger, return_state=True)
    if state.is_completed():
        result: dict[str, Any] = state.result()
        return result
    error = state.result(raise_on_failure=False)
    if isinstance(error, BaseException):
        raise error
    raise UserError(f"The flow run ended as {state.name}: {state.message}")


def without_tracebacks() -> None:
    """Log errors that the user can put right as their sentence alone, on this process's runs."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Errors that the user can put right are logged as their sentence alone."""
    if record.exc_info and isinstance(record.exc_info[1], UserError):
        record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
        record.exc_text = None
        record.told = True
    return True


def _leave_notes_to_the_reporter() -> None:
    """Keep what runs log off the terminal, where the reporter has printed it; problems stay."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_no_note)


def _is_no_note(record: logging.LogRecord) -> bool:
    of_a_run = record.name.startswith(("prefect.flow_runs", "prefect.task_runs"))
    return not of_a_run or (record.levelno >= logging.WARNING and not hasattr(record, "told"))
