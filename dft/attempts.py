"""Attempts of a calculation on disk, for those that come to no end of their own.

``attempt-N/attempt.json`` is the record of attempt N as it goes into
:attr:`dft.engine.CalculationOutput.attempts`: written when the attempt begins, and again when it
ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dft.abinit_run import DONE
from screening.io import atomic_write

RECORD = "attempt.json"
UNFINISHED = "not finished"
_NAME = re.compile(r"attempt-(\d+)")


def begin(place: Path, number: int, why: str, settings: Mapping[str, Any]) -> None:
    """Enter an attempt that is about to be made in ``place``, or gone on with."""
    record = {"number": number, "why": why, "settings": settings, "failure": UNFINISHED}
    end(place, {**record, "cpu_s": 0.0, "wall_s": 0.0, "steps": {}})


def end(place: Path, record: Mapping[str, Any]) -> None:
    """Replace the record of an attempt that has come to its end."""
    atomic_write(place / RECORD, json.dumps(record, indent=1) + "\n")


def recorded(directory: Path) -> list[dict[str, Any]]:
    """The attempts of a calculation in their order; an unfinished one with its finished steps."""
    records = [
        _with_steps(place, record)
        for place in directory.glob("attempt-*")
        if _NAME.fullmatch(place.name) and (record := _read(place / RECORD)) is not None
    ]
    return sorted(records, key=lambda record: record["number"])


def _with_steps(place: Path, record: dict[str, Any]) -> dict[str, Any]:
    if record["failure"] != UNFINISHED:
        return record
    found = {path.parent.name: _read(path) for path in sorted(place.glob(f"*/{DONE}"))}
    steps = {name: step for name, step in found.items() if step is not None}
    return {
        **record,
        "cpu_s": round(sum(step["cpu_s"] for step in steps.values()), 2),
        "wall_s": round(sum(step["wall_s"] for step in steps.values()), 2),
        "steps": {name: round(step["cpu_s"], 2) for name, step in steps.items()},
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
