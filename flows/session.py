"""Opening and closing a campaign."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dft.locks import try_lock
from flows.artifacts import show_campaign
from flows.config import Campaign, recorded_campaign
from flows.files import write_campaign, write_results
from flows.reporter import Reporter
from flows.run import FINISHED, CampaignRun, predecessors, versions
from flows.takeover import take_over
from results.database import sqlite_file
from results.ledger import Ledger
from results.schema import RoundStatus
from results.tables import validated_table
from results.view import CampaignView
from screening.errors import UserError
from screening.io import unwritable


def open_ledger(directory: Path, ledger: str | None) -> Ledger:
    """The ledger at a URL or path, by default ``ledger.sqlite`` in the campaigns' directory."""
    return Ledger(ledger if ledger is not None else directory / "ledger.sqlite")


def existing_ledger(directory: Path, ledger: str | None) -> Ledger:
    """As :func:`open_ledger`, but makes none.

    Raises
    ------
    UserError
        There is none.
    """
    file = directory.absolute() / "ledger.sqlite" if ledger is None else sqlite_file(ledger)
    if file is not None and not file.exists():
        where = f"in {directory.absolute()}" if ledger is None else f"at {file}"
        raise UserError(
            f"There is no ledger {where}; start a campaign with `screen run`, or name the place "
            "with --directory or --ledger."
        )
    return open_ledger(directory.absolute(), ledger)


@contextlib.contextmanager
def opened(config: Campaign, directory: Path, ledger: str | None) -> Iterator[CampaignRun]:
    """The campaign entered in the ledger, held by this process alone.

    Raises
    ------
    UserError
        The name is taken by a campaign with other settings, another process is running this one,
        or nothing can be written.
    """
    directory = directory.absolute()
    book = open_ledger(directory, ledger)
    home = directory / config.name
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(home, error) from error
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(try_lock(home / ".lock")):
            raise UserError(
                f"Campaign '{config.name}' is being run by another process; wait for it, or watch "
                f"it with: screen status {config.name}."
            )
        run = CampaignRun(config, directory, book, stack.enter_context(Reporter()))
        stack.callback(run.close)
        _enter(run)
        write_campaign(run)
        take_over(run)
        yield run


def _enter(run: CampaignRun) -> None:
    """Enter the campaign, or find it; one that has trained nothing yet is entered anew."""
    config, book = run.config, run.ledger
    record = book.campaign(config.name)
    dump = config.model_dump(mode="json")
    recorded = None if record is None else recorded_campaign(config.name, record.config)
    if record is not None and recorded == config:
        # As recorded: an earlier version of the software lacked fields that now have a default.
        dump = record.config
    elif record is not None and recorded == config.model_copy(
        update={"launcher": getattr(recorded, "launcher", None)}
    ):
        # Where it calculates decides nothing of what it finds: more time, another partition.
        book.change_launcher(config.name, dump["launcher"])
        book.event(config.name, "launcher", dump["launcher"])
        dump = {**record.config, "launcher": dump["launcher"]}
    if record is None:
        _require_finished(run)
    begun = record is not None and any(
        r.status != RoundStatus.STARTED for r in book.rounds(config.name)
    )
    book.create_campaign(
        config.name, dump, config.task, config.seed, versions(), None if begun else run.known,
        replace_untrained=True,
    )  # fmt: skip


def _require_finished(run: CampaignRun) -> None:
    """What another campaign still validates would change the known materials of this one."""
    for name in predecessors(run.config.follows, run.ledger):
        found = run.ledger.campaign(name)
        if found is not None and found.status != FINISHED:
            raise UserError(
                f"Campaign '{name}', which 'follows' names, is not finished; go on with it first: "
                f"screen resume {name}."
            )


def conclude(run: CampaignRun) -> dict[str, Any]:
    """Close the campaign, write its last files and say what came out, as plain JSON."""
    if not run.is_finished:
        run.ledger.finish_campaign(run.config.name, FINISHED)
    report = write_results(run)
    view = CampaignView.from_ledger(run.ledger, run.config.name)
    show_campaign(view, run.directory)
    return {**summary(view), "directory": str(run.directory), "report": str(report)}


def summary(view: CampaignView) -> dict[str, Any]:
    """A campaign in a few lines of JSON; numbers as in the tables, unknown ones null."""
    verdicts = view.calculations["verdict"]
    validated = validated_table(view).astype(object)
    return {
        "campaign": view.name,
        "task": view.task.name,
        "status": view.status,
        "rounds": [
            {"round": int(n), "status": str(s), "trained_on": None if t != t else int(t)}
            for n, s, t in view.rounds[["number", "status", "n_training"]].itertuples(index=False)
        ],
        "calculations": len(verdicts),
        "verdicts": {str(k) or "open": int(n) for k, n in verdicts.value_counts().items()},
        "validated": validated.where(validated.notna(), None).to_dict("records"),
    }
