"""Options that several commands have, and what they print for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Directory = Annotated[
    Path, typer.Option(envvar="SCREEN_DIRECTORY", help="Where campaigns are kept.")
]
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        envvar="SCREEN_LEDGER",
        help="SQLite file or postgresql:// URL. Default: ledger.sqlite in the directory.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]

CAMPAIGNS = Path("campaigns")


def print_json(value: Any) -> None:
    """Print plain values as JSON to standard output, as ``--json`` asks."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
