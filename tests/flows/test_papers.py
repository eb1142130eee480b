"""Published models on the command line: in a campaign, by themselves, and in the benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from models.protocol.card import read_card
from models.protocol.papers_table import tables
from screening.builtin import builtin_hidden
from screening.settings import FilterSettings


def test_a_campaign_with_dtnet(screen: Any, quick: str, tmp_path: Path) -> None:
    run = f"run --model dtnet --rounds 1 --batch 2 --json {quick}"
    done = screen(tmp_path, run)
    assert done.status == 0, done.err
    home = tmp_path / "campaigns" / "high-k"
    manifest = json.loads((home / "round-1" / "model" / "model.json").read_text())
    assert manifest["settings"]["name"] == "dtnet"
    assert len(pd.read_csv(home / "round-1" / "selected.csv")) == 2
    table = pd.read_parquet(home / "round-1" / "predictions.parquet")
    assert table["epsilon_mean"].nunique() == len(table)
    assert len(table) == sum(
        k.material.band_gap >= FilterSettings().min_band_gap for k in builtin_hidden()
    )
    model = home / "round-1" / "model"
    structures = (
        home
        / "calculations"
        / next(p.name for p in (home / "calculations").iterdir() if len(p.name) == 32)
    )
    said = screen(tmp_path, f"predict {structures / 'POSCAR'} --model {model} --json")
    assert said.status == 0, said.err
    assert said.json[0]["static"]["mean"] > 1
    other = screen(tmp_path, "run --model etgnn --rounds 1 --batch 2")
    assert other.status != 0
    assert 'model.name was "dtnet" and is now "etgnn"' in other.message


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run --model alignn", "no model 'alignn'"),
        ("train known.parquet -o out --model alignn", "no model 'alignn'"),
        ("benchmark --models alignn", "no model 'alignn'"),
        ("benchmark --models physics,dtnet --data nowhere", "dielectric_tensors.parquet"),
        ("benchmark median --models dtnet", "not both"),
        ("benchmark --models dtnet --parts imaginary", "--parts imaginary"),
        ("benchmark --models dtnet --splits 6", "--splits 6"),
        ("pretrain energies.parquet --model dtnet", "Only the GoeCTP models"),
        ("pretrain energies.parquet", "no table energies.parquet"),
    ],
)
def test_mistakes_end_in_a_sentence(screen: Any, tmp_path: Path, command: str, words: str) -> None:
    done = screen(tmp_path, command)
    assert done.status != 0
    assert words in done.message
    assert "Traceback" not in done.err


def test_the_benchmark_goes_on_where_it_stopped(
    screen: Any, screen_data: Path, tmp_path: Path
) -> None:
    frame = pd.read_parquet(screen_data / "dielectric_tensors.parquet")
    frame[frame["nsites"] <= 6].iloc[::8].to_parquet(tmp_path / "dielectric_tensors.parquet")
    command = (
        "benchmark --models goectp+1-layer --parts electronic,static --budget 1 "
        "--data . --work work --cards cards --no-tail --splits "
    )
    done = screen(tmp_path, command + "1")
    assert done.status == 0, done.err
    kept = tmp_path / "work" / "goectp+1-layer" / "split-1-static.npz"
    before = kept.stat().st_mtime_ns
    again = screen(tmp_path, command + "1,2")
    assert again.status == 0, again.err
    assert kept.stat().st_mtime_ns == before
    assert "split 1, static: done before" in again.out
    card = read_card(tmp_path / "cards" / "papers" / "goectp+1-layer.yaml")
    assert card["budget"]["cpu_seconds_per_network"] == 1
    static = card["figures"]["static"]
    assert static["splits"] == [1, 2]
    assert len(static["systems"]["all"]["mae_9"]) == 2
    run = static["runs"][0]
    assert run["parameters"] > 100_000
    assert run["violations"]["rotation"][1] < 1e-3 < run["violations"]["cell"][1]
    text = tables(tmp_path / "cards" / "papers")
    assert again.out.rstrip().endswith(text)
    mean = sum(static["systems"]["all"]["mae_9"]) / 2
    assert f"| all | **{mean:.3f} ±" in text
    assert "ionic" not in card["figures"]
