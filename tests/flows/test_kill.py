"""kill -9 in the middle of a campaign; ``benchmarks/kill.py`` does the same more often."""

from __future__ import annotations

from pathlib import Path

import kill
import numpy as np
import pytest

from screening.builtin import builtin_hidden, builtin_known
from screening.table_files import write_table

SETTINGS = (
    "model.encoder=7net-0", "model.members=2", "model.min_steps=10", "model.max_steps=10",
    "engine.delay_s=0.7", "filters.min_band_gap=5",
)  # fmt: skip
"""A pool of some twenty crystals, which every campaign encodes anew, as it does the known ones."""


def test_a_killed_campaign_goes_on_as_if_nothing_had_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.jsonl"
    write_table(builtin_known()[:20], few)
    settings = [*SETTINGS, f"known={{kind: table, path: {few}}}"]
    summary = kill.run(tmp_path / "kill", kills=4, seed=1, rounds=2, batch=3, settings=settings)
    table = capsys.readouterr().out
    assert summary.problems == [], table
    assert len(summary.kills) == 4 and {k.everything for k in summary.kills} == {True, False}
    assert summary.completed == summary.calculations == 6 * summary.campaigns, table


def test_features_do_not_depend_on_what_was_encoded_before(tmp_path: Path) -> None:
    """Bit by bit: kills and other campaigns may have left any part of them in the cache."""
    from models.cache import FeatureCache

    crystals = [known.material.structure for known in builtin_hidden()[:8]]
    whole = FeatureCache("7net-l3i5", tmp_path / "whole").features(crystals)
    part = FeatureCache("7net-l3i5", tmp_path / "part")
    part.features(crystals[1::3])
    for expected, found in zip(whole, part.features(crystals), strict=True):
        assert np.array_equal(expected, found)
