"""Sources at the command line and in the campaign flow."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.config import build_campaign
from flows.reporter import Reporter
from flows.run import CampaignRun
from flows.sources import pinned_versions, pull_report, secret_block
from flows.steps import pull
from results.ledger import Ledger
from screening.errors import UserError
from screening.material import KnownMaterial, Material
from screening.symmetry import point_group_rotations, project
from screening.tensors import DielectricTensors

NAMES = ("NaCl", "quartz", "rutile", "wurtzite", "MoS2")


@pytest.fixture(scope="session")
def mp() -> Any:
    """The module ``benchmarks/mp_server.py``."""
    path = Path(__file__).parents[2] / "benchmarks" / "mp_server.py"
    if "mp_server" not in sys.modules:
        spec = importlib.util.spec_from_file_location("mp_server", path)
        assert spec is not None and spec.loader is not None
        sys.modules["mp_server"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["mp_server"])
    return sys.modules["mp_server"]


@pytest.fixture(scope="session")
def built(mp: Any, prototypes: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Labels for rock salt and quartz; all five are candidates."""
    summary, dielectric = [], []
    for number, name in enumerate(NAMES):
        structure, tensors = prototypes[name], None
        if number < 2:
            allowed = project(np.diag([3.0, 4.0, 6.0]), point_group_rotations(structure))
            tensors = mp.dielectric_document(f"mp-{number}", structure, allowed, allowed)
            dielectric.append(tensors)
        summary.append(mp.summary_document(f"mp-{number}", structure, tensors, band_gap=3.0))
    return summary, dielectric


@pytest.fixture
def server(
    mp: Any, built: tuple[list[Any], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    monkeypatch.setenv("MP_API_KEY", mp.KEY)
    monkeypatch.setenv("SCREEN_CACHE", str(tmp_path / "cache"))
    import copy

    with mp.MpServer(*copy.deepcopy(built)) as running:
        yield running


def run_cli(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.fixture(scope="session")
def answers(prototypes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A table with a tensor for each of the five, for the replay engine."""
    from screening.table_files import write_table

    tensors = DielectricTensors(3 * np.eye(3), None)
    path = tmp_path_factory.mktemp("answers") / "answers.parquet"
    known = [Material(name, prototypes[name], band_gap=3.0) for name in NAMES]
    write_table([KnownMaterial(material, tensors, "PBE") for material in known], path)
    return {"kind": "table", "path": str(path)}


def campaign_run(
    server: Any, directory: Path, answers: dict[str, str] | None = None
) -> CampaignRun:
    mp = {"kind": "mp", "endpoint": server.url}
    config = build_campaign(
        None,
        {"name": "test", "known": mp, "candidates": mp, "engine": {"answers": answers or mp},
         "model.encoder": "7net-0"},
    )  # fmt: skip
    run = CampaignRun(config, directory, Ledger(directory / "ledger.sqlite"), Reporter())
    run.ledger.create_campaign("test", config.model_dump(mode="json"), "high-k", 0, {}, None)
    return run


def test_candidates_as_json(server: Any) -> None:
    done = run_cli(
        "candidates",
        "--set",
        f"endpoint={server.url}",
        "--elements",
        "O",
        "--min-gap",
        "1",
        "--json",
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["offered"] == found["taken"] == 2
    assert found["database_version"] == server.version
    assert found["criteria"]["elements"] == "O" and found["criteria"]["band_gap_min"] == 1


def test_labels_as_text_and_as_a_table(server: Any, tmp_path: Path) -> None:
    from screening.tables import read_known

    table = tmp_path / "labels.parquet"
    done = run_cli("labels", "--set", f"endpoint={server.url}", "-o", str(table))
    assert done.exit_code == 0, done.output
    assert "2 offered, 2 taken" in done.stdout and server.version in done.stdout
    known = read_known(table)
    assert [k.material.material_id for k in known] == ["mp-0", "mp-1"]
    assert known[0].tensors.electronic == pytest.approx(np.eye(3) * 13 / 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["candidates", "--source", "nowhere"], "no source 'nowhere'"),
        (["candidates", "--source", "optimade"], "needs a provider"),
        (["candidates", "--source", "builtin", "--min-gap", "1"], "has no 'min_band_gap'"),
        (["candidates", "--elements", "Xx"], "'Xx' is no symbol"),
        (["candidates", "--min-gap", "5", "--max-gap", "2"], "nothing can match"),
        (["candidates", "--set", "endpoint"], "is no assignment"),
        (["candidates", "--min-gap", "1", "--set", "min_band_gap=-2"], "greater than or equal"),
        (["labels", "--source", "optimade:oqmd"], "do not come from a source of the kind"),
        (["candidates", "--max-hull", "-1"], "greater than or equal to 0"),
    ],
)
def test_mistakes_are_sentences(words: list[str], message: str) -> None:
    done = run_cli(*words)
    assert isinstance(done.exception, UserError) and message in str(done.exception)


def test_a_campaign_pulls_and_stays_with_its_version(
    server: Any, tmp_path: Path, answers: dict[str, str]
) -> None:
    run = campaign_run(server, tmp_path / "a", answers)
    pool = pull(run)
    assert [m.material_id for m in pool.candidates] == ["mp-2", "mp-3", "mp-4"]
    assert "2 taken by 'already known'" in pool.summary()
    assert pinned_versions(run.ledger, "test") == {
        "known": server.version, "candidates": server.version
    }  # fmt: skip
    server.version = "2027.01.01"
    server.summary[2]["band_gap"] = 1.25
    again = campaign_run(server, tmp_path / "a", answers)
    assert [m.band_gap for m in pull(again).candidates] == [3.0, 3.0, 3.0]
    fresh = campaign_run(server, tmp_path / "b", answers)
    assert [m.band_gap for m in pull(fresh).candidates] == [1.25, 3.0, 3.0]


def test_elements_that_the_engine_does_not_know_are_named_first(
    server: Any, tmp_path: Path
) -> None:
    """The answers know rock salt and quartz alone."""
    with pytest.raises(UserError, match=r"unknown to the engine replay' \(S 2, Mo 1, Ti 1, Zn 1\)"):
        pull(campaign_run(server, tmp_path / "a"))
    assert not list(tmp_path.rglob("round-*")), "nothing is computed before"


def test_the_key_is_in_no_file_of_a_campaign(
    server: Any, tmp_path: Path, mp: Any, answers: dict[str, str]
) -> None:
    run = campaign_run(server, tmp_path / "a", answers)
    pull(run)
    text = "".join(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file())
    assert server.version in text and mp.KEY not in text


def test_the_summary_says_where_from_and_why_not(
    server: Any, tmp_path: Path, answers: dict[str, str]
) -> None:
    server.dielectric[1]["electronic"] = np.eye(3).tolist()
    server.dielectric[1]["total"] = (np.eye(3) + np.array(server.dielectric[1]["ionic"])).tolist()
    run = campaign_run(server, tmp_path / "a", answers)
    pool = pull(run)
    from screening.sources import pull_candidates

    offered = pull_candidates(run.config.candidates, run.pulls)
    text = pull_report("test", run.pulled_known, offered, pool.summary())
    assert "Known tensors: 1 of 2" in text and f"database version: {server.version}" in text
    assert "| electronic tensor is the identity (a failed run) | 1 | mp-1 |" in text
    assert "- 1 taken by 'already known'" in text


def test_without_a_server_no_block_is_asked_for() -> None:
    assert secret_block() is None
