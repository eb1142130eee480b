"""Calculations for what is measured with them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
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


def calculate(
    engine: Engine, materials: Sequence[Material], directory: Path, parallel: int = 1
) -> Iterator[tuple[Material, Calculation]]:
    """Make calculations, or go on with them, in order and so many at a time; each as it ends.

    Whoever is interrupted leaves those that run to their end, and does not begin the others.
    """
    launcher = make_launcher(LocalLauncherSettings(max_parallel=parallel), directory)
    waiting = deque(materials)
    running: dict[str, tuple[Material, Calculation]] = {}
    while waiting or running:
        while waiting and len(running) < parallel:
            material = waiting.popleft()
            calculation = calculation_of(engine, material, directory)
            calculation.prepare(engine, material)
            launcher.submit([calculation.key])
            running[calculation.key] = material, calculation
        time.sleep(POLL_S)
        for key, state in launcher.poll(list(running)).items():
            if state is State.DONE:
                yield running.pop(key)
    launcher.close()
