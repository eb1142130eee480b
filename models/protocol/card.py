"""Result cards: everything that belongs to a figure, in a file beside it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import yaml

from screening.errors import UserError
from screening.io import atomic_write

FORMAT = 1


def hardware() -> str:
    """The processor and how many cores, or the GPU."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def write_card(path: Path, content: dict[str, Any]) -> None:
    """Write a card atomically."""
    text = yaml.safe_dump({"format": FORMAT, **content}, sort_keys=False, allow_unicode=True)
    atomic_write(path, text)


def read_card(path: Path) -> dict[str, Any]:
    """Read a card.

    Raises
    ------
    UserError
        No card there, or none of this format.
    """
    try:
        content = yaml.safe_load(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        raise UserError(f"{path} is no result card of format {FORMAT}; make it again.") from None
    return dict(content)
