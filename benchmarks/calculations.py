"""One calculation at a time, for what is measured with them."""

from __future__ import annotations

import time
from pathlib import Path

from dft.calculation import Calculation, State, calculation_key
from dft.engine import Engine
from dft.launcher import make_launcher
from dft.settings import LocalLauncherSettings
from screening.material import Material

POLL_S = 1.0


def calculation_of(engine: Engine, material: Material, directory: Path) -> Calculation:
    """The place of a calculation below ``directory``, whether it has been made or not."""
    key = calculation_key(material.structure_hash, engine.settings_hash)
    return Calculation(directory / key)


def calculate(engine: Engine, material: Material, directory: Path) -> None:
    """Make a calculation, or go on with it, and wait for its end."""
    calculation = calculation_of(engine, material, directory)
    calculation.prepare(engine, material)
    launcher = make_launcher(LocalLauncherSettings(max_parallel=1), directory)
    launcher.submit([calculation.key])
    while launcher.poll([calculation.key])[calculation.key] is not State.DONE:
        time.sleep(POLL_S)
    launcher.close()
