"""Structure in, calculated dielectric tensor out: engines, launchers, and the gate behind them.

The public names are imported when they are first used, for ``python -m dft.worker`` passes through
here and needs few of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dft.calculation import Calculation, State, calculation_key
    from dft.engine import CalculationOutput, Engine
    from dft.gate import Judgement, judge
    from dft.launcher import Launcher, make_launcher
    from dft.replay import ReplayEngine
    from dft.settings import GateThresholds, LocalLauncherSettings, ReplaySettings
    from dft.verdict import Verdict

_HOME = {
    "Calculation": "calculation",
    "CalculationOutput": "engine",
    "Engine": "engine",
    "GateThresholds": "settings",
    "Judgement": "gate",
    "Launcher": "launcher",
    "LocalLauncherSettings": "settings",
    "ReplayEngine": "replay",
    "ReplaySettings": "settings",
    "State": "calculation",
    "Verdict": "verdict",
    "calculation_key": "calculation",
    "judge": "gate",
    "make_launcher": "launcher",
}

__all__ = [
    "Calculation",
    "CalculationOutput",
    "Engine",
    "GateThresholds",
    "Judgement",
    "Launcher",
    "LocalLauncherSettings",
    "ReplayEngine",
    "ReplaySettings",
    "State",
    "Verdict",
    "calculation_key",
    "judge",
    "make_launcher",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
