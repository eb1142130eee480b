"""kill -9 in the middle of a campaign; ``benchmarks/kill.py`` does the same more often."""

from __future__ import annotations

from pathlib import Path

import kill
import pytest

SETTINGS = (
    "model.encoder=7net-0", "model.members=2", "model.min_steps=10", "model.max_steps=10",
    "engine.delay_s=0.7",
)  # fmt: skip


def test_a_killed_campaign_goes_on_as_if_nothing_had_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = kill.run(tmp_path / "kill", kills=4, seed=1, rounds=2, batch=3, settings=SETTINGS)
    table = capsys.readouterr().out
    assert summary.problems == [], table
    assert len(summary.kills) == 4 and {k.everything for k in summary.kills} == {True, False}
    assert summary.completed == summary.calculations == 6 * summary.campaigns, table
