"""What Prefect's UI shows of a campaign: pages under keys that stay the same.

Everything here is a view of the ledger and may be lost: a server that does not answer is noted, and
the campaign goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.reporter import run_logger
from flows.reports import report_link
from results import markdown
from results.view import CampaignView
from screening.io import stable_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.run import CampaignRun


def artifact_key(what: str, name: str) -> str:
    """``what-name`` in the letters that Prefect allows; different for different names."""
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-")
    return f"{what}-{slug}" if slug == name else f"{what}-{slug}-{stable_hash(name)[:6]}"


def show(what: str, name: str, page: str, description: str) -> None:
    """Put a page into Prefect under its key; nothing outside a run."""

    def create() -> Any:
        from prefect.artifacts import create_markdown_artifact

        return create_markdown_artifact(page, key=artifact_key(what, name), description=description)

    _ask(create)


def show_model(run: CampaignRun) -> None:
    """The model's quality."""
    view = CampaignView.from_ledger(run.ledger, run.config.name)
    show("model", view.name, markdown.model_page(view), f"How good the model of {view.name} is")


def show_candidates(run: CampaignRun) -> None:
    """The most promising candidates."""
    view = CampaignView.from_ledger(run.ledger, run.config.name)
    page = markdown.candidates_page(view)
    show("candidates", view.name, page, f"Most promising candidates of {view.name}")


def show_round(run: CampaignRun, number: int) -> None:
    """All that the end of a round changes."""
    if run_logger() is None:
        return
    view = CampaignView.from_ledger(run.ledger, run.config.name)
    name = view.name
    show(f"round-{number}", name, markdown.round_page(view, number), f"Round {number} of {name}")
    page = markdown.calculations_page(view)
    show("calculations", name, page, f"Calculations of {name}: verdicts and cost")
    show("model", name, markdown.model_page(view), f"How good the model of {name} is")
    show_campaign(view, run.directory)


def show_campaign(view: CampaignView, directory: Path) -> None:
    """The first page of a campaign."""
    if run_logger() is None:
        return
    page = markdown.campaign_page(view, str(directory / "report.html"), report_link(view.name))
    show("campaign", view.name, page, f"What campaign {view.name} has found")


class LiveProgress:
    """A bar that moves while calculations run."""

    def __init__(self, name: str, what: str) -> None:
        self._key = artifact_key("progress", name)
        self._what = what
        self._id: Any = None
        self._shown: str | None = None

    def show(self, done: int, total: int, running: int) -> None:
        """Move the bar, if it has to move."""
        description = f"{self._what}: {done} of {total} ended, {running} running"
        if description == self._shown:
            return
        self._shown = description
        share = 100.0 * done / max(total, 1)

        def move() -> Any:
            from prefect.artifacts import create_progress_artifact, update_progress_artifact

            if self._id is None:
                return create_progress_artifact(share, key=self._key, description=description)
            update_progress_artifact(self._id, progress=share, description=description)
            return self._id

        self._id = _ask(move)


def _ask(question: Callable[[], Any]) -> Any:
    """The server's answer; None outside a run, and where the server does not answer."""
    logger = run_logger()
    if logger is None:
        return None
    import httpx
    from prefect.exceptions import PrefectException

    try:
        return question()
    except (httpx.HTTPError, PrefectException, OSError) as error:
        logger.warning(f"Prefect's UI could not be told ({type(error).__name__}); going on.")
        return None
