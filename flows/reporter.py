"""What a person sees while a campaign runs: notes, progress bars, tables.

Everything but a command's result goes to standard error, so that ``--json`` output stays clean.
Inside a Prefect run, notes are written to the run's log as well; a deployment's run has nobody at
its terminal, and there they go to the log alone.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Reporter:
    """Notes and progress on the terminal; a context manager, silent unless entered."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
        )
        self._bar: TaskID | None = None
        self._what = ""
        self._shown = False

    def __enter__(self) -> Reporter:
        if not runs_unattended():
            self._progress.start()
            self._shown = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown:
            self._clear()
            self._progress.stop()
            self._shown = False

    def note(self, text: str) -> None:
        """One line that stays."""
        if self._shown:
            self._clear()
            self.console.print(text)
        if (logger := run_logger()) is not None:
            logger.info(text)

    def progress(self, what: str, done: int, total: int) -> None:
        """Move the bar of the current activity; a new ``what`` starts a new bar."""
        if not self._shown:
            return
        if what != self._what or self._bar is None:
            self._clear()
            self._what = what
            self._bar = self._progress.add_task(what, total=total)
        self._progress.update(self._bar, completed=done, total=total)

    def _clear(self) -> None:
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None


def runs_unattended() -> bool:
    """Whether this code is in a run of a deployment, started by a worker."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    return run is not None and run.deployment_id is not None


def run_logger() -> Any | None:
    """The logger of the Prefect run this code is in, if it is in one."""
    from prefect.context import FlowRunContext, TaskRunContext

    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return None
    from prefect.logging import get_run_logger

    logger = get_run_logger()
    return logger if isinstance(logger, logging.Logger | logging.LoggerAdapter) else None
