"""With a Prefect server the campaign is a flow run; without one it is a plain function call."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from flows.config import Campaign
from screening.errors import UserError

HEALTH_TIMEOUT_S = 5.0


def run_campaign(config: Campaign, directory: Path, ledger: str | None) -> dict[str, Any]:
    """Run or go on with a campaign and return its summary.

    Raises
    ------
    UserError
        Anything the user can put right, an unreachable Prefect server among it.
    """
    from prefect.settings import get_current_settings

    from flows.campaign import campaign

    url = get_current_settings().api.url
    if url is None:
        return campaign.fn(config, directory, ledger)
    _check_server(url)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    state = campaign(config, directory, ledger, return_state=True)
    if state.is_completed():
        result: dict[str, Any] = state.result()
        return result
    error = state.result(raise_on_failure=False)
    if isinstance(error, BaseException):
        raise error
    raise UserError(f"The flow run ended as {state.name}: {state.message}")


def _check_server(url: str) -> None:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=HEALTH_TIMEOUT_S):  # noqa: S310
            return
    except (OSError, ValueError, urllib.error.URLError):
        raise UserError(
            f"The Prefect server at {url} does not answer; start it with `prefect server start` "
            "or unset PREFECT_API_URL to run without one."
        ) from None


def _without_traceback(record: logging.LogRecord) -> bool:
    """Errors that the user can put right are logged as their sentence alone."""
    if record.exc_info and isinstance(record.exc_info[1], UserError):
        record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
        record.exc_text = None
    return True
