"""The trained ensemble that comes with the software."""

from __future__ import annotations

from pathlib import Path

from models.ensemble import Ensemble
from models.files import load

DIRECTORY = Path(__file__).parent / "weights"
"""``model.safetensors`` and ``model.json``; what it was trained on is in ``docs/model.md``."""


def shipped() -> Ensemble:
    """Load it.

    Raises
    ------
    UserError
        The files are damaged, or of another version than the code.
    """
    return load(DIRECTORY)
