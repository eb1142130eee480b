"""A campaign whose calculations are run by jobflow-remote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jobflow_remote", reason="jobflow-remote is not installed")


def test_a_campaign_is_that_of_this_machine(
    tmp_path: Path, screen: Any, quick: str, finished: Any, ledger_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from jobflow_remote_project import InMemory

    from dft.jobflow_remote import JobflowRemoteLauncher

    project = InMemory(tmp_path / "jobflow-remote", monkeypatch)
    look = JobflowRemoteLauncher.poll

    def with_a_runner(launcher: JobflowRemoteLauncher, keys: Sequence[str]) -> Any:
        project.run()
        return look(launcher, keys)

    monkeypatch.setattr(JobflowRemoteLauncher, "poll", with_a_runner)
    command = f"run --task high-k --rounds 2 --batch 4 {quick} --launcher jobflow-remote"
    done = screen(tmp_path, f"{command} --set launcher.poll_s=0 --set launcher.worker=here")
    assert done.status == 0, done.err
    assert project.controller.count_flows() == 8
    place, _ = finished
    columns = ["round", "rank", "key", "verdict", "detail", "electronic", "ionic"]
    tables = [ledger_of(p).calculations("high-k")[columns] for p in (tmp_path, place)]
    own, reference = ([tuple(map(str, row)) for row in t.to_numpy()] for t in tables)
    assert own == [row for row in reference if row[0] in ("1", "2")]
    jobs = screen(tmp_path, "jobs high-k --json").json
    assert jobs["finished"] == 8 and jobs["core_hours"] > 0
