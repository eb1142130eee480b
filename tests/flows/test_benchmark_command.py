"""``screen benchmark``: the whole protocol on a part of the tensor table, resumable, as cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.protocol.card import read_card
from models.protocol.summary import summary


@pytest.fixture(scope="module")
def place(screen_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every sixteenth row of the tensor table, and one with every fourth."""
    import pandas as pd

    place = tmp_path_factory.mktemp("benchmark")
    frame = pd.read_parquet(screen_data / "dielectric_tensors.parquet")
    for folder, step in ((place, 16), (place / "more", 4)):
        folder.mkdir(exist_ok=True)
        frame.iloc[::step].to_parquet(folder / "dielectric_tensors.parquet")
    return place


def test_the_whole_protocol(place: Path, screen: Any) -> None:
    done = screen(place, "benchmark median --data . --work work --cards cards")
    assert done.status == 0, done.err
    names = {path.stem for path in (place / "cards").iterdir()}
    assert names == {"median", "median-tail-mean", "median-tail-anisotropy", "median-unlike"}
    assert done.out.rstrip().endswith(summary(place / "cards"))
    assert read_card(place / "cards" / "median.yaml")["n_splits"] == 5
    tail = read_card(place / "cards" / "median-tail-mean.yaml")["figures"]
    assert 0 <= tail["recall_top_2"] <= tail["recall_top_5"] <= 1
    assert tail["n_left_out"] == pytest.approx(0.02 * 266, abs=3)


def test_a_better_variant_is_seen_to_be_better(place: Path, screen: Any) -> None:
    arguments = "--data more --work pair --cards pair --splits 1 --no-tail --no-unlike"
    done = screen(place, f"benchmark median composition {arguments}")
    assert done.status == 0, done.err
    errors = [
        read_card(place / "pair" / f"{name}.yaml")["figures"]["static"]["mean_over_splits"]
        for name in ("composition", "median")
    ]
    assert errors[0]["log_scalar"] < 0.8 * errors[1]["log_scalar"]


def test_it_goes_on_where_it_stopped(place: Path, screen: Any) -> None:
    work = place / "again"
    first = screen(
        place,
        f"benchmark median --data . --work {work} --cards c1 --splits 1,2 --no-tail --no-unlike",
    )
    assert first.status == 0, first.err
    kept = (work / "median" / "split-1.npz").stat().st_mtime_ns
    second = screen(
        place,
        f"benchmark median --data . --work {work} --cards c2 --splits 1,2,3 --no-tail --no-unlike",
    )
    assert second.out.count("done before") == 2
    assert (work / "median" / "split-1.npz").stat().st_mtime_ns == kept
    one, two = (read_card(place / c / "median.yaml") for c in ("c1", "c2"))
    assert (one["n_splits"], two["n_splits"]) == (2, 3)
    values = [np.load(work / "median" / f"split-{n}.npz")["rows"] for n in (1, 2, 3)]
    assert len({tuple(v) for v in values}) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("benchmark medan --data .", "no variant 'medan'"),
        ("benchmark median --data . --splits 1,6", "--splits 1,6: give numbers from 1 to 5"),
        ("benchmark median --data . --splits x", "--splits x: give numbers"),
        ("benchmark median --data nowhere", "dielectric_tensors.parquet"),
    ],
)
def test_bad_input(arguments: str, words: str, place: Path, screen: Any) -> None:
    done = screen(place, arguments)
    assert done.status != 0 and words in done.err and "Traceback" not in done.err
