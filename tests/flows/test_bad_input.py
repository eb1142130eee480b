"""Each mistake ends in one sentence that names it, and nothing is lost.

The cases are those of ``benchmarks/bad_input.py``, run in this process where that is possible.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from bad_input import Outcome, attempt, run_process
from bad_input_cases import (
    CASES,
    EARLIER,
    Case,
    NotPossibleError,
    closed_to_others,
    finished_campaign,
)

SLOW = {"200k left", "400k left", "800k left", "at the start", "while calculating"}
"""Only by the script: another moment of what a quicker case shows as well."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a finished campaign."""
    place = tmp_path_factory.mktemp("template")
    finished_campaign(place, EARLIER)
    return place


def _id(case: Case) -> str:
    return f"{case.group}, {case.what}".replace(" ", "-")


def _runs_here(case: Case) -> bool:
    """Rights do not bind root, whom the other ways to an unwritable place are for."""
    return case.what not in SLOW and (os.geteuid() != 0 or case.setup is not closed_to_others)


@pytest.mark.parametrize("case", filter(_runs_here, CASES), ids=_id)
def test_one_sentence_and_nothing_lost(
    template: Path, tmp_path: Path, screen: Any, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    place = tmp_path / "place"
    shutil.copytree(template, place)

    def run_here(command: str, place: Path, case: Case) -> Outcome:
        with monkeypatch.context() as patch:
            for name, value in case.environment.items():
                patch.setenv(name, value)
            done = screen(place, command)
        return Outcome(done.status, done.out, done.err)

    try:
        outcome, faults = attempt(case, place, run_process if case.process else run_here)
    except NotPossibleError as reason:
        pytest.skip(str(reason))
    assert faults == [], outcome.stderr


@pytest.mark.parametrize(
    ("command", "culprit"),
    [
        ("run --rounds many", "--rounds"),
        ("run --colour blue", "--colour"),
        ("run a.yaml b.yaml", "b.yaml"),
        ("dance", "dance"),
        ("resume", "name"),
    ],
)
def test_a_command_line_that_makes_no_sense(
    tmp_path: Path, screen: Any, command: str, culprit: str
) -> None:
    done = screen(tmp_path, command)
    assert done.status == 2 and "Traceback" not in done.err
    assert culprit in done.err.lower()
