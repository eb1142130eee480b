"""Campaigns from one machine to another, and campaigns that follow each other."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flows.campaign
from screening.errors import UserError

TABLES = Path(__file__).parents[2] / "examples" / "tables"
COMMAND = (
    "run --name t --candidates candidates.csv --known known.csv --replay answers.csv --rounds 2 "
    "--batch 3"
)


def test_export_import_resume_picks_the_same(
    tmp_path: Path, screen: Any, quick: str, ledger_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a campaign goes elsewhere, where the tables that it reads have never been."""
    whole, half, there = (tmp_path / name for name in ("whole", "half", "there"))
    for place in (whole, half):
        shutil.copytree(TABLES, place)
    there.mkdir()
    assert screen(whole, f"{COMMAND} {quick}").status == 0

    def stop(run: Any, number: int) -> None:
        if number == 2:
            raise UserError("the power failed")
        before(run, number)

    before = flows.campaign.calculate
    with monkeypatch.context() as patch:
        patch.setattr(flows.campaign, "calculate", stop)
        assert screen(half, f"{COMMAND} {quick}").status == 2
    os.utime(half / "candidates.csv", (0, 0))  # as files from some archives are
    exported = screen(half, "export t -o t.zip")
    assert exported.status == 0 and exported.out.strip() == "t.zip"
    (half / "t.zip").rename(there / "t.zip")
    shutil.rmtree(half)
    assert screen(there, "import t.zip").status == 0
    done = screen(there, "resume t --json")
    assert done.status == 0, done.err
    columns = ["round", "rank", "material_id", "acquisition", "merit_std", "electronic", "verdict"]
    expected = ledger_of(whole).calculations("t")[columns]
    found = ledger_of(there).calculations("t")
    pd.testing.assert_frame_equal(found[columns], expected, check_exact=True)
    assert all(Path(folder).is_relative_to(there) for folder in found["directory"])
    again = screen(there, "import t.zip")
    assert again.status == 2 and "has a campaign 't' already" in again.message
    from screening.pulling import PullContext
    from screening.settings import TableSource
    from screening.sources import pull_known

    path = there / "campaigns" / "t" / "validated.parquet"
    frame = pd.read_parquet(path).set_index("material_id")
    known = pull_known(TableSource(path=path), PullContext()).items
    assert len(known) == len(frame) > 0
    for entry in known:
        row = frame.loc[entry.material.material_id]
        assert entry.material.structure_hash == row["structure_hash"]
        tensor = np.array(row["eps_electronic"].tolist())
        assert np.allclose(entry.tensors.electronic, tensor, atol=1e-9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file broken.zip"),
        (b"not a zip", "no zip file that `screen export` wrote"),
        ({"format": 1}, "no zip file that `screen export` wrote"),
        ({"format": 99, "campaign": "t", "campaigns": ["t"]}, "a newer version"),
        ({"format": 1, "campaign": "t", "campaigns": ["t"]}, "is damaged"),
        ({"format": 1, "campaign": "t", "campaigns": ["../../t"]}, "no zip file that"),
    ],
)
def test_what_is_no_export(tmp_path: Path, screen: Any, content: Any, message: str) -> None:
    path = tmp_path / "broken.zip"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("manifest.json", json.dumps(content))
    done = screen(tmp_path, "import broken.zip")
    assert done.status == 2 and message in done.message


def test_a_file_outside_the_campaign_is_refused(tmp_path: Path, screen: Any) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        manifest = {"format": 1, "campaign": "t", "campaigns": ["t"]}
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("0/ledger.json", "{}")
        archive.writestr("0/home/../../outside", "x")
    done = screen(tmp_path, "import evil.zip")
    assert done.status == 2 and "outside a campaign" in done.message
    assert not list(tmp_path.rglob("outside"))


def test_an_archive_with_flipped_bytes(tmp_path: Path, screen: Any) -> None:
    path = tmp_path / "flipped.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        manifest = {"format": 1, "campaign": "t", "campaigns": ["t"], "filler": "ab" * 5000}
        archive.writestr("manifest.json", json.dumps(manifest))
    data = bytearray(path.read_bytes())
    data[50:60] = bytes(255 - byte for byte in data[50:60])
    path.write_bytes(data)
    done = screen(tmp_path, "import flipped.zip")
    assert done.status == 2 and "no zip file that" in done.message


def test_a_campaign_that_follows_another(
    tmp_path: Path, screen: Any, quick: str, ledger_of: Any
) -> None:
    """It learns what the first validated, and picks nothing that the first calculated."""
    assert screen(tmp_path, f"run --name a --rounds 1 --batch 4 {quick}").status == 0
    done = screen(tmp_path, f"run --name b --set follows=a --rounds 1 --batch 4 {quick}")
    assert done.status == 0, done.err
    book = ledger_of(tmp_path)
    first, second = (book.calculations(name) for name in ("a", "b"))
    assert not set(first["structure_hash"]) & set(second["structure_hash"])
    assert len(book.known("b")) == len(book.known("a")) + (first["verdict"] == "accepted").sum()
    wrong = screen(tmp_path, f"run --name c --set follows=nobody {quick}")
    assert wrong.status == 2 and "There is no campaign 'nobody'" in wrong.message
    with sqlite3.connect(tmp_path / "campaigns" / "ledger.sqlite") as connection:
        connection.execute("update campaign set status = 'running' where name = 'a'")
    early = screen(tmp_path, f"run --name e --set follows=a {quick}")
    assert early.status == 2 and "Campaign 'a', which 'follows' names, is not finished" in early.err
    itself = screen(tmp_path, f"run --name d --set follows=d {quick}")
    assert itself.status == 2 and "cannot follow itself" in itself.message
