"""``screen dft`` and engines in campaign files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from dft.abinit_settings import AbinitSettings
from dft.calculation import Calculation, calculation_key
from dft.engine import CalculationOutput
from dft.vasp import VaspEngine
from dft.vasp_settings import VaspSettings
from flows.config import Campaign, ReplayEngineSettings, build_campaign
from flows.dft_display import lines
from screening.errors import UserError
from screening.material import Material

from .conftest import Screen

NEEDS_ABINIT = pytest.mark.skipif(
    shutil.which("abinit") is None or not AbinitSettings().pseudopotentials.is_dir(),
    reason="ABINIT is not installed",
)

PREDICTED = (
    "material_id", "structure_hash", "formula", "n_sites", "band_gap", "electronic", "ionic",
    "epsilon_mean", "epsilon_std", "merit_mean", "merit_std", "acquisition", "rank",
)  # fmt: skip
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
def test_what_run_made_is_found(
    screen: Screen, crystals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCREEN_CALCULATIONS", str(crystals / "elsewhere"))
    key = screen(crystals, "dft run Al.vasp --engine abinit --set level=quick --json").json[0][
        "key"
    ]
    shown = screen(crystals, f"dft show {key[:10]}")
    assert shown.status == 0 and "verdict    metallic (the gate's defaults)" in shown.out
    directory = next(w for w in shown.out.split() if w.endswith(key) and "/" in w)
    assert Path(directory) == crystals / "elsewhere" / key
    monkeypatch.delenv("SCREEN_CALCULATIONS")
    for place in (directory, f"elsewhere/{key}", f"{key} --directory elsewhere"):
        assert screen(crystals, f"dft show {place}").out == shown.out
    assert screen(crystals / "elsewhere" / key, "dft show .").out == shown.out
    assert screen(crystals, f"dft show {key}").status == 2


@NEEDS_ABINIT
def test_every_input_gets_its_own_report(screen: Screen, crystals: Path) -> None:
    (crystals / "same.vasp").write_text((crystals / "Al.vasp").read_text())
    command = "dft run {} --engine abinit --set level=quick --json"
    both = screen(crystals, command.format("Al.vasp same.vasp")).json
    assert [r["material"] for r in both] == ["Al", "same"]
    assert both[0] == both[1] | {"material": "Al"}
    assert len(list((crystals / "calculations").glob("*/POSCAR"))) == 1
    assert [r["material"] for r in screen(crystals, command.format("same.vasp")).json] == ["same"]


def in_campaign(place: Path, detail: str) -> Path:
    """A good calculation, and a ledger that has refused it."""
    from results.ledger import Ledger
    from results.records import PlannedCalculation, Selection

    lattice = Lattice.cubic(4.2)
    magnesia = Structure.from_spacegroup("Fm-3m", lattice, ["Mg", "O"], [[0, 0, 0], [0.5] * 3])
    material, engine = Material("MgO", magnesia), VaspEngine(VaspSettings(), potcar_spec=True)
    key = calculation_key(material.structure_hash, engine.settings_hash)
    calculation = Calculation(place / "live" / "calculations" / key)
    calculation.prepare(engine, material)
    output = CalculationOutput(
        electronic=3 * np.eye(3), ionic=6 * np.eye(3), converged=True, functional="PBE",
        engine="vasp", engine_version="6",
    )  # fmt: skip
    calculation.write_result(output)
    ledger = Ledger(place / "ledger.sqlite")
    ledger.create_campaign("live", {}, "high-k", 0, {}, [])
    number = ledger.start_round("live", 1).id
    ledger.record_training(number, "t", 0, "model", "m", {})
    ledger.record_predictions(number, pd.DataFrame(columns=PREDICTED))
    pick = Selection(key, 1, 1.0, 1.0, 1.0, 1.0, 1.0)
    planned = PlannedCalculation(
        key, material.structure_hash, "MgO", "vasp", {}, engine.settings_hash,
        str(calculation.directory),
    )  # fmt: skip
    ledger.select(number, [pick], [planned], [material])
    ledger.record_result(key, output.to_dict(), "metallic", detail, None, None, "PBE")
    return calculation.directory


def test_verdicts_of_a_campaign_are_those_of_its_gate(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default limits accept what this campaign has refused."""
    calculation = in_campaign(tmp_path / "here", "The largest eigenvalue of ε∞ is 3. Second look.")
    monkeypatch.setenv("SCREEN_DIRECTORY", "here")
    report = screen(tmp_path, f"dft show {calculation.name[:8]} --json").json
    assert (report["verdict"], report["judged_by"]) == ("metallic", "campaign live")
    assert "Second look" in report["detail"] and report["tensors"] is None
    assert "metallic (campaign live)" in screen(tmp_path, f"dft show {calculation}").out
    # The same calculation outside of the campaign.
    shutil.copytree(calculation, tmp_path / "calculations" / calculation.name)
    report = screen(tmp_path, f"dft show calculations/{calculation.name} --json").json
    assert (report["verdict"], report["judged_by"]) == ("accepted", "the gate's defaults")
    assert report["tensors"]["electronic"]


def shown(engine: str, **facts: Any) -> str:
    output = CalculationOutput(
        converged=True, functional="PBE", engine=engine, engine_version="1", acoustic_thz=0.4,
        cost={"n_electrons": 8, "volume": 19.0, "cpu_s": 60.0, "n_kpoints": 10},
        attempts=[{
            "number": 1, "why": "as asked", "failure": None, "cpu_s": 60.0,
            "settings": {"ecut": 25.0, "incar": {"NELM": 200}} | {f"tag_{i}": i for i in range(9)},
        }], **facts,
    )  # fmt: skip
    names = ("formula", "material", "n_sites", "key", "directory", "engine", "verdict", "detail")
    report = dict.fromkeys(names, "") | {
        "settings": {},
        "judged_by": "",
        "output": output.to_dict(),
    }
    return "\n".join(lines(report))


def test_only_what_an_engine_does_is_said() -> None:
    charges = np.array([2.0, -1.9])[:, None, None] * np.eye(3)
    abinit, vasp = (shown(engine, born_charges=charges) for engine in ("abinit", "vasp"))
    assert "they add up to 0.1000 e, before 0 was imposed" in abinit
    assert "rigid translations at 0.40 THz, before 0 was imposed" in abinit
    assert "10 irreducible k-points of the gap's mesh" in abinit
    assert "imposed" not in vasp and "gap's mesh" not in vasp
    assert "relaxed" not in abinit
    assert "of the relaxed one" in shown("vasp", relaxed_structure={"sites": []})
    assert "add up to 0.1000 e\n" in vasp and "10 irreducible k-points," in vasp
    assert "ecut = 25.0, incar.NELM = 200" in vasp
    assert all(f"tag_{i} = {i}" in vasp for i in range(9))
    assert max(map(len, vasp.splitlines())) <= 100


def test_what_is_no_number_is_shown_as_such() -> None:
    charges, frequencies = np.full((2, 3, 3), np.nan), np.array([1.0, np.nan])
    text = shown("vasp", born_charges=charges, frequencies_thz=frequencies)
    assert "add up to nan e" in text and "1.00 nan THz" in text
    assert "Born" not in shown("vasp", born_charges=np.zeros((2, 2)))


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
        ("dft show /none/ffff", "'/none/ffff' is neither the key of a calculation"),
        ("dft show 'f*'", "'f*' is neither the key of a calculation"),
        ("dft check --set level=quick", "--set belongs to one engine"),
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
