"""Reports over HTTP: the files of campaigns, and nothing else of the disk."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.reports import KINDS, VARIABLE, report_link, serve_reports


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mine", "high k", ".hidden"):
        campaign = tmp_path / "campaigns" / name
        campaign.mkdir(parents=True)
        for file in (*KINDS, "campaign.yaml"):
            (campaign / file).write_text(f"{file} of {name}")
    (tmp_path / "campaigns" / "report.html").write_text("beside")
    (tmp_path / "report.html").write_text("above")
    return tmp_path / "campaigns"


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    with serve_reports(folder) as at:
        yield at


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_files_of_a_campaign(address: str) -> None:
    for campaign in ("mine", "high k"):
        for file, kind in KINDS.items():
            at = f"{address}/{campaign.replace(' ', '%20')}/{file}"
            with urllib.request.urlopen(at, timeout=10) as answer:
                assert answer.read().decode() == f"{file} of {campaign}"
                assert answer.headers["Content-Type"] == kind


@pytest.mark.parametrize(
    "path",
    [
        "", "report.html", "mine", "mine/campaign.yaml", "mine/../report.html", "../report.html",
        "..%2freport.html", "%2e%2e/report.html", "mine%2f..%2freport.html", ".hidden/report.html",
        "mine/report.html/", "yours/report.html", "mine%00/report.html", "mine/report.html%00",
        "mine/more/report.html", "/etc/passwd",
    ],
)  # fmt: skip
def test_nothing_else(address: str, path: str) -> None:
    wanted = 200 if path == "mine/report.html/" else 404
    assert status(f"{address}/{path}") == wanted


def test_a_port_that_is_taken(folder: Path, address: str) -> None:
    with serve_reports(folder, int(address.rpartition(":")[2])) as other:
        assert other != address
        assert status(f"{other}/mine/report.html") == status(f"{address}/mine/report.html") == 200


def test_a_link_leads_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert report_link("high k") is None
    monkeypatch.setenv(VARIABLE, f"{address}/")
    link = report_link("high k")
    assert link == f"{address}/high%20k/report.html" and status(link) == 200
