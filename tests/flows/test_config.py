"""Campaigns from files and flags, and where things lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.config import build_campaign
from flows.deployment import _absolute
from flows.limits import at_once_at_most
from flows.options import assignments
from flows.reporter import Reporter
from flows.session import existing_ledger
from screening.errors import UserError

TABLES = "known: {kind: table, path: known.csv}\ncandidates: {kind: folder, path: crystals}\n"


def test_paths_of_flags_are_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is scheduled, or resumed from elsewhere, must find them."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "c.yaml").write_text(TABLES)
    monkeypatch.chdir(tmp_path)
    made = build_campaign(
        Path("files/c.yaml"),
        assignments(
            ["engine={kind: replay, answers: {kind: table, path: a.csv}}", "known.path=k.csv"]
        ),
    )
    paths = [made.known.path, made.candidates.path, made.engine.answers.path]
    assert paths == [tmp_path / "k.csv", tmp_path / "files" / "crystals", tmp_path / "a.csv"]


def test_a_flag_keeps_what_the_file_says_of_the_same_kind(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("engine: {kind: abinit, level: quick}")
    same = build_campaign(file, {"engine": {"kind": "abinit"}}).engine
    assert (same.kind, same.level) == ("abinit", "quick")
    assert build_campaign(file, {"engine": {"kind": "vasp"}}).engine.kind == "vasp"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "is no assignment"),
        ("=3", "is no assignment"),
        ("epochs=[1", "the value cannot be read"),
        ("name=2024-02-30", "the value cannot be read"),
    ],
)
def test_assignments_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        assignments([text])


def test_a_file_with_a_date_that_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: 2024-02-30")
    with pytest.raises(UserError, match="is no valid YAML"):
        build_campaign(tmp_path / "c.yaml", {})


@pytest.mark.parametrize("field", ["acquisition.kappa", "filters.min_band_gap", "model.dropout"])
def test_numbers_are_finite(field: str) -> None:
    with pytest.raises(UserError, match=field):
        build_campaign(None, {field: float("inf")})


def test_the_field_that_a_message_names_is_one_of_the_file() -> None:
    with pytest.raises(UserError, match=r"'launcher\.wrker' in the campaign"):
        build_campaign(None, {"launcher": {"kind": "jobflow-remote", "wrker": "w"}})


def test_a_mistyped_ledger_is_not_made(tmp_path: Path) -> None:
    for given in ("typo.sqlite", f"sqlite:///{tmp_path}/typo.sqlite"):
        place = given if "://" in given else str(tmp_path / given)
        with pytest.raises(UserError, match=r"no ledger at .*typo\.sqlite"):
            existing_ledger(tmp_path, place)
    with pytest.raises(UserError, match="There is no ledger in"):
        existing_ledger(tmp_path, None)
    assert not list(tmp_path.iterdir())


def test_places_of_a_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for ledger in ("my.sqlite", "sqlite:///my.sqlite"):
        assert _absolute(ledger) == str(tmp_path / "my.sqlite")
    assert _absolute("postgresql://lab/screen") == "postgresql://lab/screen"


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ({"kind": "local", "max_parallel": 3}, 3),
        ({"kind": "slurm", "max_jobs": 4, "pack": 8, "at_once": 2}, 8),
    ],
)
def test_calculations_at_once(launcher: dict[str, Any], number: int) -> None:
    assert at_once_at_most(build_campaign(None, {"launcher": launcher})) == number


def test_brackets_in_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter() as reporter:
        reporter.progress("SiO2 [/alpha]", 0, 1)
        reporter.note("SiO2 [alpha]: [/data/x] cannot be read.")
    assert "SiO2 [alpha]: [/data/x] cannot be read." in capsys.readouterr().err
