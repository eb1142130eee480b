"""Where calculations run: the interface, and the choice by settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from dft.activity import Activity
from dft.calculation import State
from dft.engine import CalculationOutput
from dft.settings import JobflowRemoteSettings, LocalLauncherSettings
from dft.slurm_settings import SlurmLauncherSettings

LauncherSettings = LocalLauncherSettings | SlurmLauncherSettings | JobflowRemoteSettings
"""Settings of all launchers."""


class Launcher(Protocol):
    """Runs prepared calculations, each a directory named by its key below one root.

    What is known about a calculation is in its directory, not in the launcher: launchers may come
    and go, and several may work on one root at the same time, without a calculation being lost or
    started twice.

    Attributes
    ----------
    place
        Which machine the directories are on, for the ledger: what one place has, others leave.
    """

    place: str

    def submit(self, keys: Sequence[str]) -> dict[str, str]:
        """Have the calculations run, in this order; those done or under way are left alone.

        Returns
        -------
        dict[str, str]
            Where each was handed to, for people and for the ledger.

        Raises
        ------
        UserError
            One of them is not prepared, or nothing can be written.
        """
        ...

    def poll(self, keys: Sequence[str]) -> dict[str, State]:
        """Where each calculation stands now; keeps pending ones going. Cheap, call it often.

        Raises
        ------
        UserError
            Calculations cannot go on, because the disk is full for example. None of them is lost:
            polling again once the cause is gone continues.
        """
        ...

    def cancel(self, keys: Sequence[str]) -> None:
        """Stop these calculations and start them no more, until they are submitted again."""
        ...

    def look(self, keys: Sequence[str]) -> dict[str, Activity]:
        """What each calculation is doing, for people; changes nothing."""
        ...

    def fetch(self, key: str) -> CalculationOutput:
        """The result of a calculation that is done.

        Raises
        ------
        UserError
            It is not done.
        """
        ...

    def close(self) -> None:
        """Let go of the calculations; those under way carry on."""
        ...


def make_launcher(settings: LauncherSettings, root: Path) -> Launcher:
    """The launcher that ``settings`` ask for, over the calculations below ``root``.

    Raises
    ------
    UserError
        ``root`` cannot be written.
    """
    if isinstance(settings, SlurmLauncherSettings) and settings.ssh is not None:
        from dft.remote import RemoteLauncher

        return RemoteLauncher(root, settings)
    if isinstance(settings, SlurmLauncherSettings):
        from dft.slurm import SlurmLauncher

        return SlurmLauncher(root, settings)
    if isinstance(settings, JobflowRemoteSettings):
        from dft.jobflow_remote import JobflowRemoteLauncher

        return JobflowRemoteLauncher(root, settings)
    from dft.local import LocalLauncher

    return LocalLauncher(root, settings)
