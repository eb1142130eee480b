"""Campaigns on a user's own data: files, tables, folders, and what may change between two runs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from bad_input_cases import hidden_rows, known_rows, write_folder, write_table

from screening.builtin import builtin_known

Ledgers = Callable[[Path], Any]


def test_paths_in_a_file_are_relative_to_it_and_flags_override_it(
    tmp_path: Path, screen: Any, quick: str, ledger_of: Ledgers
) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "tables").mkdir()
    write_table(tmp_path / "tables" / "known.parquet", known_rows())
    write_table(tmp_path / "pool.csv", hidden_rows(8))
    fields = {
        "name": "from-file",
        "rounds": 3,
        "batch": 2,
        "known": {"kind": "table", "path": "../tables/known.parquet"},
        "candidates": {"kind": "table", "path": "../pool.csv"},
        "engine": {"answers": {"kind": "table", "path": "../pool.csv"}, "delay_s": 0.01},
        "model": {"members": 3},
        "filters": {"max_sites": 10},
    }
    (tmp_path / "settings" / "c.yaml").write_text(yaml.safe_dump(fields))
    flags = f"--rounds 1 --set filters.min_band_gap=1 --name flagged --json {quick}"
    done = screen(tmp_path, f"run settings/c.yaml {flags}")
    assert done.status == 0, done.err
    as_run = yaml.safe_load((tmp_path / "campaigns" / "flagged" / "campaign.yaml").read_text())
    assert as_run == ledger_of(tmp_path).campaign("flagged").config
    assert (as_run["name"], as_run["rounds"], as_run["batch"]) == ("flagged", 1, 2)
    assert (as_run["filters"]["max_sites"], as_run["filters"]["min_band_gap"]) == (10, 1.0)
    assert as_run["model"]["members"] == 2 and as_run["engine"]["delay_s"] == 0.01
    for source in (as_run["known"], as_run["candidates"], as_run["engine"]["answers"]):
        assert Path(source["path"]).is_absolute() and Path(source["path"]).exists()
    assert not (tmp_path / "campaigns" / "from-file").exists()
    # The same file, named from another directory, is the same campaign.
    again = screen(tmp_path / "settings", f"run c.yaml {flags} --directory ../campaigns")
    assert again.status == 0, again.err
    assert again.json["validated"] == done.json["validated"]


def test_a_folder_of_crystals(tmp_path: Path, screen: Any, quick: str, ledger_of: Ledgers) -> None:
    """CIF files and POSCARs with their gaps; one without a gap is left out and counted."""
    from pymatgen.core import Structure

    write_folder(tmp_path / "crystals", 6)
    cifs = sorted((tmp_path / "crystals").glob("*.cif"))
    Structure.from_file(cifs[0]).to(str(cifs[0].with_name(f"POSCAR-{cifs[0].stem}")), fmt="poscar")
    cifs[0].unlink()
    lines = (tmp_path / "gaps.csv").read_text().splitlines()
    gaps = [line for line in lines if cifs[0].name not in line]
    (tmp_path / "gaps.csv").write_text("\n".join(gaps) + "\n")
    command = "run --candidates crystals --band-gaps gaps.csv --replay answers.csv"
    done = screen(tmp_path, f"{command} --rounds 1 --batch 6 --json {quick}")
    assert done.status == 0, done.err
    assert "6 offered; 1 taken by 'band gap unknown'; 5 left" in " ".join(done.err.split())
    table = ledger_of(tmp_path).calculations("high-k")
    assert set(table["material_id"]) == {path.stem for path in cifs[1:]}


def test_anisotropy(
    tmp_path: Path, screen: Any, quick: str, tensor_table: Any, ledger_of: Ledgers
) -> None:
    """Real crystals of low symmetry; a molecular one is left out before anything is predicted."""
    from screening.errors import UserError
    from screening.tables import known_from_frame

    small = tensor_table[(tensor_table["nsites"] <= 4) & (tensor_table["functional"] == "PBEsol")]
    small = small[small["spacegroup"] < 195].drop_duplicates("formula").head(40)
    usable = []
    for i in range(len(small)):
        with contextlib.suppress(UserError):
            known_from_frame(small.iloc[[i]], "table")
            usable.append(i)
    rows = small.iloc[usable]
    molecular = tensor_table[tensor_table["material_id"] == "mp-22885"].head(1)  # XeF2
    rows = rows[rows["material_id"] != "mp-22885"]
    assert len(rows) >= 24 and len(molecular) == 1
    rows[:14].to_parquet(tmp_path / "known.parquet")
    pool = rows[14:24]
    pd.concat([pool, molecular]).to_parquet(tmp_path / "pool.parquet")
    done = screen(
        tmp_path,
        "run --task anisotropy --known known.parquet --candidates pool.parquet --replay "
        "pool.parquet --rounds 1 --batch 10 --set functional=PBEsol --set filters.min_band_gap=0 "
        f"--json {quick}",
    )
    assert done.status == 0, done.err
    book = ledger_of(tmp_path)
    pulled = book.events("anisotropy").set_index("kind")["detail"]["pulled"]
    assert "taken by 'molecular crystal" in pulled["candidates_summary"]
    found = json.loads((tmp_path / "campaigns" / "anisotropy" / "validated.json").read_text())
    hidden = {k.material.material_id: k for k in known_from_frame(pool, "table")}
    assert found and {row["material_id"] for row in found} <= set(hidden)
    for row in found:
        eigenvalues = np.linalg.eigvalsh(hidden[row["material_id"]].tensors.static)
        assert row["figure_of_merit"] == pytest.approx(eigenvalues[2] / eigenvalues[0], rel=1e-6)
    predicted = book.predictions(book.rounds("anisotropy")[0].id)
    assert "mp-22885" not in set(predicted["material_id"])
    assert (predicted["merit_mean"] >= 1).all() and predicted["merit_mean"].max() > 1


@pytest.mark.parametrize("changed", ["known", "candidates"])
def test_sources_that_change_under_a_campaign(
    tmp_path: Path, screen: Any, quick: str, interrupted: Any, changed: str
) -> None:
    """Refused while they differ; with the old files back it goes on."""
    known, pool = known_rows(), hidden_rows(6)
    write_table(tmp_path / "known.csv", known)
    write_table(tmp_path / "answers.csv", pool)
    write_table(tmp_path / "candidates.csv", pool)
    command = "run --known known.csv --candidates candidates.csv --replay answers.csv"
    command += f" --rounds 1 --batch 2 --json {quick}"
    interrupted(tmp_path, command, "calculate")
    path = tmp_path / f"{changed}.csv"
    old = path.read_bytes()
    write_table(path, (known if changed == "known" else pool)[:-1])
    refused = screen(tmp_path, command)
    assert refused.status == 2 and f"The {changed} materials" in refused.message
    assert "restore the files" in refused.message
    path.write_bytes(old)
    done = screen(tmp_path, "resume high-k --json")
    assert done.status == 0 and done.json["status"] == "finished"


def test_a_campaign_that_has_trained_nothing_may_be_corrected(
    tmp_path: Path, screen: Any, quick: str, interrupted: Any, ledger_of: Ledgers
) -> None:
    """Its name is not lost; once something was trained, it belongs to its settings."""
    for batch in (1, 2):
        interrupted(tmp_path, f"run --rounds 1 --batch {batch} {quick}", "train")
    record = ledger_of(tmp_path).campaign("high-k")
    assert record.config["batch"] == 2
    assert len(ledger_of(tmp_path).known("high-k")) == len(builtin_known())
    interrupted(tmp_path, f"run --rounds 1 --batch 2 {quick}", "predict")
    refused = screen(tmp_path, f"run --rounds 1 --batch 1 {quick}")
    assert refused.status == 2 and "batch was 2 and is now 1" in refused.message
    done = screen(tmp_path, f"run --rounds 1 --batch 2 --json {quick}")
    assert done.status == 0 and done.json["calculations"] == 2


def test_a_campaign_of_another_version(
    tmp_path: Path, screen: Any, quick: str, interrupted: Any
) -> None:
    """Fields that came later do not matter; fields that are gone are named."""
    interrupted(tmp_path, f"run --rounds 1 --batch 1 {quick}", "predict")
    ledger = tmp_path / "campaigns" / "ledger.sqlite"

    def change(edit: Callable[[dict[str, Any]], object]) -> None:
        with contextlib.closing(sqlite3.connect(ledger)) as book, book:
            config = json.loads(book.execute("SELECT config FROM campaign").fetchone()[0])
            edit(config)
            book.execute("UPDATE campaign SET config = ?", (json.dumps(config),))

    change(lambda config: config["filters"].pop("max_sites"))
    change(lambda config: config["model"].pop("dropout"))
    done = screen(tmp_path, "resume high-k --json")
    assert done.status == 0 and done.json["status"] == "finished"
    again = screen(tmp_path, f"run --rounds 1 --batch 1 --json {quick}")
    assert again.json == done.json
    change(lambda config: config.update(colour="blue"))
    refused = screen(tmp_path, "resume high-k")
    assert refused.status == 2 and "colour" in refused.message
    assert "another version" in refused.message
