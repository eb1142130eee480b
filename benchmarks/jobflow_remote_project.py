"""A project of jobflow-remote whose database is in memory; all else is the real program."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


class InMemory:
    """The project ``screen``: one worker, this machine without a queue, and no MongoDB.

    Its runner is the real one: it writes a job's input, starts a process for it, waits for it,
    reads its output and updates the database, as ``jf runner start`` would.
    """

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        from jobflow import JobStore
        from jobflow_remote import SETTINGS
        from jobflow_remote.config.base import Project
        from jobflow_remote.jobs import runner
        from jobflow_remote.jobs.jobcontroller import JobController
        from maggma.stores import MemoryStore

        self.home, self.work = home, home / "work"
        patch.setattr(SETTINGS, "projects_folder", str(home / "projects"))
        self.write()
        queue, store = MemoryStore("jobs"), JobStore(MemoryStore("outputs"))
        queue.connect()
        store.connect()
        for one in (queue, store):
            patch.setattr(one, "close", lambda: None)
        # Its own process may set up logging as it likes; this one belongs to others as well.
        patch.setattr(runner, "initialize_runner_logger", lambda **_: None)
        patch.setattr(Project, "get_queue_store", lambda _: queue)
        patch.setattr(Project, "get_jobstore", lambda *_, **__: store)
        self.controller = JobController.from_project_name("screen")
        assert self.controller.reset()

    def write(self, **changes: Any) -> None:
        """The project's file, as its user would write it."""
        worker = {
            "type": "local", "scheduler_type": "shell", "work_dir": str(self.work),
            "pre_run": f"export PATH={Path(sys.executable).parent}:$PATH",
        }  # fmt: skip
        project = {
            "name": "screen",
            "workers": {"here": worker},
            "queue": {"store": {"type": "MongoStore", "database": "x", "collection_name": "jobs"}},
            "jobstore": {"docs_store": {"type": "MemoryStore"}},
            "exec_config": {"lines": {"export": {"FROM_EXEC_CONFIG": "yes"}}},
            "runner": {f"delay_{what}": 1 for what in (
                "checkout", "check_run_status", "advance_status", "refresh_limited")},
            **changes,
        }  # fmt: skip
        path = self.home / "projects" / "screen.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(project))

    def run(self, until: Callable[[], object] | None = None) -> None:
        """Run jobs to their end, or, with ``until``, as they come until it is true."""
        from jobflow_remote.jobs.runner import Runner

        # What it calls is deprecated; nobody here can do anything about it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Runner(project_name="screen").run_all_jobs(max_seconds=120)
            while until is not None and not until():
                Runner(project_name="screen").run_all_jobs(max_seconds=120)
