"""``screen export`` and ``screen import``: campaigns from one machine to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import CAMPAIGNS, Directory, LedgerUrl
from screening.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(export)
    app.command("import")(import_)


def export(
    name: Annotated[str, typer.Argument(help="Name of the campaign; `screen status` lists them.")],
    directory: Directory = CAMPAIGNS,
    ledger: LedgerUrl = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: NAME.zip here.")
    ] = None,
) -> None:
    """Write a campaign as one zip file, with all it needs to go on elsewhere, and say where."""
    from flows.archive import export_campaign
    from flows.session import existing_ledger

    path = output or Path(f"{name}.zip")
    book = existing_ledger(directory, ledger)
    typer.echo(export_campaign(book, directory.absolute(), name, path))


def import_(
    file: Annotated[Path, typer.Argument(help="Zip file that `screen export` wrote.")],
    directory: Directory = CAMPAIGNS,
    ledger: LedgerUrl = None,
) -> None:
    """Take up a campaign from a zip file; `screen resume` goes on with it."""
    from flows.archive import import_campaign
    from flows.session import open_ledger

    place = directory.absolute()
    if not file.exists():
        raise UserError(f"There is no file {file}; check the path.")
    name = import_campaign(open_ledger(place, ledger), place, file)
    typer.echo(f"Campaign '{name}' is here; go on with: screen resume {name}")
