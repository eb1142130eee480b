"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
