"""A part of what ``benchmarks/cluster_chaos.py`` and ``shared_ledger.py`` do, every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> str:
    """What a benchmark prints; it ends with another status than 0 if it finds a problem."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments], check=False, capture_output=True,
        text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_disturbed_campaigns_end_like_undisturbed_ones(cluster: Any) -> None:
    from sshd import missing

    if reason := missing():
        pytest.skip(reason)
    scenarios = ("everything", "half-written", "ssh")
    out = run("cluster_chaos.py", "--runs", "3", "--batch", "4", "--at-once", "1", "--only",
              *scenarios)  # fmt: skip
    rows = [line for line in out.splitlines() if line.endswith("as undisturbed")]
    assert len(rows) == 3 and "| all | 3 |" in out, out


def test_campaigns_on_one_ledger_calculate_everything_once() -> None:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("no PostgreSQL: install its server")
    out = run("shared_ledger.py", "--campaigns", "4", "--rounds", "1", "--batch", "5")
    assert "0 deadlocks" in out, out
    for kind in ("postgresql", "sqlite"):
        (line,) = (line for line in out.splitlines() if line.startswith(kind))
        assert "4 campaigns, 5 calculations, 5 executions" in line and "0 problems" in line, out
