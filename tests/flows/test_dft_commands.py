"""``screen dft`` and engines in campaign files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dft.abinit_settings import AbinitSettings
from dft.vasp_settings import VaspSettings
from flows.config import Campaign, ReplayEngineSettings, build_campaign
from screening.errors import UserError

from .conftest import Screen

NEEDS_ABINIT = pytest.mark.skipif(
    shutil.which("abinit") is None or not AbinitSettings().pseudopotentials.is_dir(),
    reason="ABINIT is not installed",
)

FCC = "{name}\n1.0\n0 {h} {h}\n{h} 0 {h}\n{h} {h} 0\n{elements}\n{numbers}\ndirect\n0 0 0\n{more}\n"


@pytest.fixture
def crystals(tmp_path: Path) -> Path:
    """Crystals that cost nothing: an odd number of electrons, an open shell."""
    (tmp_path / "Al.vasp").write_text(
        FCC.format(name="Al", h=2.025, elements="Al", numbers="1", more="")
    )
    (tmp_path / "MnO.vasp").write_text(
        FCC.format(name="MnO", h=2.2225, elements="Mn O", numbers="1 1", more="0.5 0.5 0.5")
    )
    return tmp_path


@NEEDS_ABINIT
def test_structures_become_verdicts_once(screen: Screen, crystals: Path) -> None:
    command = "dft run Al.vasp MnO.vasp --engine abinit --set level=quick --json"
    reports = screen(crystals, command).json
    assert {r["material"]: r["verdict"] for r in reports} == {
        "Al": "metallic", "MnO": "not supported by the engine"
    }  # fmt: skip
    key = next(r["key"] for r in reports if r["material"] == "Al")
    log = crystals / "calculations" / key / "executions.log"
    before = log.read_text()
    assert len(before.splitlines()) == 2
    again = screen(crystals, command)
    assert again.json == reports and log.read_text() == before

    shown = screen(crystals, f"dft show {key[:10]}")
    assert shown.status == 0
    for text in ("Al", key, "level = quick", "verdict    metallic", "band gap   0.000 eV"):
        assert text in shown.out, text
    assert screen(crystals, f"dft show {key} --json").json["key"] == key


@NEEDS_ABINIT
def test_check_says_what_works(screen: Screen, tmp_path: Path) -> None:
    found = screen(tmp_path, "dft check --json").json
    works = {(f["subject"], f["what"]): f["works"] for f in found}
    assert works[("abinit", "program")] and works[("local", "processes")]
    assert works[("abinit", "pseudopotentials")] and works[("vasp", "atomate2")]
    missing = screen(tmp_path, "dft check --engine abinit --set command=/nonexistent/abinit")
    assert missing.status == 1 and "apt install abinit" in missing.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("dft run absent.cif --engine vasp --set command=/none/vasp_std", "engine vasp cannot be"),
        ("dft run Al.vasp --engine gaussian", "no engine 'gaussian'"),
        ("dft run Al.vasp --engine abinit --set levl=quick", "has no 'levl'"),
        ("dft run Al.vasp --engine abinit --set level=best", "'level' of the engine abinit"),
        ("dft show ffff", "no calculation ffff"),
        ("dft run Al.vasp --engine abinit --set pseudopotentials=/none", "none in /none"),
        ("run --engine abinit --replay x.csv", "exclude each other"),
        ("run --engine gaussian", "no such engine; choose replay, abinit or vasp"),
        ("run --engine abinit --set functional=PBEsol", "calculates with PBE"),
    ],
)
def test_mistakes_end_in_one_sentence(
    screen: Screen, crystals: Path, command: str, sentence: str
) -> None:
    done = screen(crystals, command)
    assert done.status == 2
    assert sentence in done.message and done.message.startswith("Error: ")
    assert "Traceback" not in done.err


def test_a_campaign_file_names_its_engine(tmp_path: Path) -> None:
    file = tmp_path / "campaign.yaml"
    file.write_text("engine: {kind: abinit, level: quick, pseudopotentials: paw}\n")
    campaign = build_campaign(file, {})
    assert isinstance(campaign.engine, AbinitSettings)
    assert campaign.engine.pseudopotentials == tmp_path / "paw"
    assert Campaign.model_validate_json(campaign.model_dump_json()) == campaign
    file.write_text("engine: {kind: vasp, preset: goectp}\n")
    assert build_campaign(file, {}).engine == VaspSettings(preset="goectp")
    # Files and ledgers of the first release name no kind, or only this one.
    file.write_text("engine: {delay_s: 1.5}\n")
    engine = build_campaign(file, {}).engine
    assert isinstance(engine, ReplayEngineSettings) and engine.delay_s == 1.5
    file.write_text("engine: {kind: abinit, delay_s: 1.5}\n")
    with pytest.raises(UserError, match=r"'engine.delay_s'"):
        build_campaign(file, {})
    assert "abinit" in json.dumps(Campaign.model_json_schema())
