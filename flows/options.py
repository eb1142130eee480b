"""Options that several commands have, and what they print for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from screening.errors import UserError

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


def assignments(texts: list[str] | None) -> dict[str, Any]:
    """Flags ``--set FIELD=VALUE`` as a dictionary; values are YAML.

    Raises
    ------
    UserError
        One is no assignment, or its value no YAML.
    """
    import yaml

    found = {}
    for text in texts or []:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise UserError(f"--set {text} is no assignment; write FIELD=VALUE.")
        try:
            found[field] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):  # the latter of a date that there is not
            raise UserError(
                f"--set {text}: the value cannot be read; quote it as in YAML."
            ) from None
    return found


def print_json(value: Any) -> None:
    """Print plain values as JSON to standard output, as ``--json`` asks."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
