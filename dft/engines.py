"""The choice of an engine by its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dft.abinit_settings import AbinitSettings
from dft.vasp_settings import VaspSettings

if TYPE_CHECKING:
    from dft.engine import Engine

CalculatorSettings = AbinitSettings | VaspSettings
"""Settings of the engines that calculate."""


def make_engine(settings: CalculatorSettings, *, programs: bool = True) -> Engine:
    """The engine that ``settings`` ask for; ``programs``: it is to calculate on this machine.

    Raises
    ------
    UserError
        It cannot work on this machine; :func:`dft.check.check_engine` says all that is missing.
    """
    from dft.check import require

    require(settings, programs=programs)
    if isinstance(settings, AbinitSettings):
        from dft.abinit import AbinitEngine

        return AbinitEngine(settings)
    from dft.vasp import VaspEngine

    return VaspEngine(settings)
