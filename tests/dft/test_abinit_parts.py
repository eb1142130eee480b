"""The parts of the ABINIT engine that need no ABINIT."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from dft.abinit import AbinitEngine
from dft.abinit_attempt import Attempt, Outcome, can_relax
from dft.abinit_input import Inputs, Tuning, anaddb
from dft.abinit_parse import response
from dft.abinit_run import DONE, Programs, Steps, _clear
from dft.abinit_settings import LEVELS, AbinitSettings
from dft.electrons import open_shell
from dft.engine import CalculationOutput
from dft.gate import Verdict, judge
from dft.ladder import Failure, Finding, classify, next_rung
from dft.pseudopotentials import available, find, fingerprint
from screening.errors import UserError
from screening.material import KnownMaterial, Material


def paw(element: str, valence: float, functional: str = "PBE") -> str:
    return (
        f'<?xml version="1.0"?>\n<paw_setup version="0.6">\n'
        f'<atom symbol="{element}" Z="1" core="2" valence="{valence}"/>\n'
        f'<xc_functional type="GGA" name="{functional}"/>\n</paw_setup>\n'
    )


PSP8 = "Mg ONCVPSP\n 12.0 10.0 170504 zatom,zion,pspd\n 8 11 1 4 600 0 pspcod,pspxc\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Mg.PBE.gz").write_bytes(gzip.compress(paw("Mg", 10).encode()))
    (tmp_path / "O.GGA_PBE-JTH.xml").write_text(paw("O", 6))
    (tmp_path / "Os.xml").write_text(paw("Os", 16))
    return tmp_path


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()


def test_files_are_found_by_element_and_read(folder: Path) -> None:
    found = find(folder, ["O", "Mg", "O"])
    assert {e: (p.valence, p.is_paw) for e, p in found.items()} == {
        "Mg": (10, True), "O": (6, True)
    }  # fmt: skip
    assert available(folder) == ["O", "Mg", "Os"]
    place = folder / "place"
    place.mkdir()
    assert (place / found["Mg"].unpack(place)).read_text() == paw("Mg", 10)


def test_other_files_are_another_question(folder: Path) -> None:
    before = fingerprint(folder)
    assert before == fingerprint(folder)
    (folder / "notes.txt").write_text("nothing")
    assert fingerprint(folder) == before
    (folder / "O.GGA_PBE-JTH.xml").write_text(paw("O", 6) + " ")
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("Xe.xml", "rubbish", "cannot be read"),
        ("Xe.xml", paw("Kr", 8), "pseudopotential for Kr, not for Xe"),
        ("Xe.xml", paw("Xe", 8, "LDA"), "not made for PBE"),
        ("Xe.psp8", PSP8, "for Mg, not for Xe"),
        ("Xe.PBE.gz", "\x1f\u008b no gzip", "cannot be read"),
        ("Kr.xml", paw("Kr", 8), "no pseudopotential for Xe"),
    ],
)
def test_useless_files_end_in_one_sentence(
    folder: Path, name: str, content: str, sentence: str
) -> None:
    (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=sentence):
        find(folder, ["Xe"])


def test_kinds_do_not_mix(folder: Path) -> None:
    (folder / "Mg.PBE.gz").unlink()
    (folder / "Mg-sp.psp8").write_text(PSP8)
    assert not find(folder, ["Mg"])["Mg"].is_paw
    with pytest.raises(UserError, match="do not go together"):
        find(folder, ["Mg", "O"])
    with pytest.raises(UserError, match="no folder"):
        find(folder / "absent", ["Mg"])


@pytest.mark.parametrize(
    ("structure", "magnetic"),
    [
        (rock_salt("Mn", "O", 4.445), "Mn2+ has an open shell (d5)"),
        (rock_salt("Ni", "O", 4.17), "Ni2+ has an open shell (d8)"),
        (rock_salt("Mg", "O", 4.212), None),
        (rock_salt("Cu", "Cl", 5.4), None),  # d10
        (rock_salt("Eu", "O", 5.14), "Eu2+ has an open shell (f7)"),
        (Structure(np.eye(3) * 3.9, ["Sr", "Ti", "O", "O", "O"], np.zeros((5, 3))), None),
        (Structure(np.eye(3) * 2.87, ["Fe"], [[0, 0, 0]]), None),  # a metal, and found to be one
        (Structure(np.eye(3) * 3.6, ["Gd"], [[0, 0, 0]]), "Gd has an open f shell"),
        (Structure(np.eye(3) * 5.9, ["Zr", "Ni", "Sn"], np.zeros((3, 3))), None),
        (Structure(np.eye(3) * 5.9, ["Ti", "Co", "Sb"], np.zeros((3, 3))), None),
        (Structure(np.eye(3) * 6.1, ["Zr", "Co", "Sb"], np.zeros((3, 3))), None),
        (Structure(np.eye(3) * 5.9, ["Li", "Mn", "As"], np.zeros((3, 3))), "Mn2+"),
        (Structure(np.eye(3) * 5.4, ["Fe", "S", "S"], np.zeros((3, 3))), "Fe"),
    ],
)
def test_open_shells_are_recognised(structure: Structure, magnetic: str | None) -> None:
    reason = open_shell(structure)
    assert reason is None if magnetic is None else (reason or "").startswith(magnetic)


def test_inputs_hold_the_recipe() -> None:
    structure = rock_salt("Mg", "O", 4.212)
    tuning = Tuning.first(AbinitSettings(level="standard"), {"Mg", "O"}, True)
    assert tuning.ecut == LEVELS["standard"].ecut_hard
    soft = Tuning.first(AbinitSettings(level="standard"), {"Na", "Cl"}, True)
    assert soft.ecut == LEVELS["standard"].ecut_soft
    inputs = Inputs(structure, {"Mg": "Mg.xml", "O": "O.xml"}, "../paw", 16, True, tuning)
    for text in (inputs.ground_state(), inputs.ddk(), inputs.response(restart=False)):
        lines = text.splitlines()
        for line in ("nband 8", "nbdbuf 0", "pawxcdev 0", "occopt 1", "pawecutdg 50", "ecut 25"):
            assert line in lines, line
        assert "shiftk 0.5 0.5 0.5" in lines
        assert f"boxcutmin {LEVELS['standard'].fft_box:g}" in lines
        assert "znucl 12 8" in lines and "typat 1 2" in lines
    assert "ird1wf 1" not in inputs.response(restart=False)
    assert "ird1wf 1" in inputs.response(restart=True)
    assert "nband 10" in inputs.gap() and "shiftk 0 0 0" in inputs.gap()
    other = dataclasses.replace(inputs, is_paw=False).ground_state()
    assert "paw" not in other.replace("../paw", "") and "boxcutmin" not in other
    assert "dieflag 1" in anaddb(sum_rules=True, ionic=True)
    assert "chneut 0" in anaddb(sum_rules=False, ionic=False)


def test_settings_that_do_not_change_the_answer_do_not_change_the_key(folder: Path) -> None:
    base = AbinitSettings(pseudopotentials=folder)
    hashes = {
        name: AbinitEngine(base.model_copy(update=update)).settings_hash
        for name, update in {
            "base": {},
            "program": {"command": "/opt/abinit", "mpi_processes": 4},
            "level": {"level": "tight"},
            "cutoff": {"ecut_ha": 17.0},
        }.items()
    }
    assert hashes["program"] == hashes["base"]
    assert len(set(hashes.values())) == 3


def test_what_the_engine_cannot_do_is_refused_with_the_reason(folder: Path) -> None:
    from jobflow.managers.local import run_locally

    (folder / "Mn.xml").write_text(paw("Mn", 15))
    engine = AbinitEngine(AbinitSettings(pseudopotentials=folder))
    magnetic = Material("MnO", rock_salt("Mn", "O", 4.445))
    flow = engine.flow(magnetic)
    answer = run_locally(flow, log=False)[flow.jobs[0].uuid][1].output
    judgement = judge(magnetic.structure, CalculationOutput.from_dict(answer))
    assert judgement.verdict is Verdict.UNSUPPORTED
    assert "Mn2+ has an open shell (d5)" in judgement.detail
    assert engine.elements == {"O", "Mg", "Os", "Mn"}
    assert engine.cannot(Material("MgO", rock_salt("Mg", "O", 4.212))) is None
    assert "no pseudopotential for Cs" in str(engine.cannot(Material("x", rock_salt("Cs", "O", 5))))
    ignoring = AbinitEngine(AbinitSettings(pseudopotentials=folder, magnetism="ignore"))
    assert ignoring.cannot(magnetic) is None


TUNING = Tuning(ecut=20, k_spacing=0.5, scf_tolerance=1e-10, response_tolerance=1e-6, fft_box=1.5)


@pytest.mark.parametrize("failure", [f for f in Failure if f is not Failure.PROGRAM])
def test_each_failure_gets_another_setting_a_bounded_number_of_times(failure: Failure) -> None:
    finding = Finding(failure, "", lowest_thz=-0.3, can_relax=True)
    tuning, earlier, seen = TUNING, [], [TUNING]
    for _ in range(10):
        rung = next_rung(tuning, finding, earlier)
        if rung is None:
            break
        tuning, why = rung
        assert why and tuning not in seen
        seen.append(tuning)
        earlier.append(failure)
    assert 2 <= len(seen) <= 4


def test_the_ladder_asks_for_what_the_failure_needs() -> None:
    def first(failure: Failure, **facts: Any) -> Tuning:
        rung = next_rung(TUNING, Finding(failure, "", **facts), [])
        assert rung is not None
        return rung[0]

    assert first(Failure.GROUND_STATE).mixing < TUNING.mixing
    assert first(Failure.GROUND_STATE).empty > TUNING.empty
    assert first(Failure.RESPONSE).response_steps > TUNING.response_steps
    denser = first(Failure.NEUTRALITY)
    assert denser.k_spacing < TUNING.k_spacing and denser.ecut == TUNING.ecut
    again = next_rung(denser, Finding(Failure.NEUTRALITY, ""), [Failure.NEUTRALITY])
    assert again is not None and again[0].k_spacing < denser.k_spacing
    assert again[0].ecut > TUNING.ecut and again[0].fft_box > TUNING.fft_box
    assert first(Failure.OVERLAP).overlap_percent > TUNING.overlap_percent
    assert first(Failure.MODE, lowest_thz=-5.0, can_relax=True).relax == "positions"
    assert first(Failure.MODE, lowest_thz=-0.5).ecut > TUNING.ecut
    # A deep instability that symmetry holds in place is what it is.
    assert next_rung(TUNING, Finding(Failure.MODE, "", lowest_thz=-5.0), []) is None
    assert next_rung(TUNING, Finding(Failure.PROGRAM, ""), []) is None


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        ("PAW SPHERES ARE OVERLAPPING! Distance between atoms 1 and 2", Failure.OVERLAP),
        ("The symmetry operation number 3 is not a symmetry of the lattice", Failure.SYMMETRY),
        ("According to the symmetry finder, the unit cell is not primitive", Failure.SYMMETRY),
        ("Cannot allocate memory", Failure.PROGRAM),
    ],
)
def test_messages_are_understood(message: str, failure: Failure) -> None:
    assert classify(message) is failure


def test_freedom_to_relax_is_what_symmetry_leaves(crystals: dict[str, KnownMaterial]) -> None:
    assert not can_relax(rock_salt("Mg", "O", 4.212))
    assert can_relax(crystals["trigonal"].material.structure)
    assert can_relax(crystals["triclinic"].material.structure)


def test_an_outcome_survives_its_file(tmp_path: Path) -> None:
    outcome = Outcome({"band_gap": 1.0}, {"cpu_s": 2.0}, Finding(Failure.MODE, "soft", 0.1), 3.0)
    path = tmp_path / "outcome.json"
    path.write_text(outcome.to_json())
    assert Outcome.read(path) == outcome
    for broken in ("", "{}", '{"finding": 3}', json.dumps([1])):
        path.write_text(broken)
        assert Outcome.read(path) is None


def test_orbitals_of_a_finished_attempt_do_not_stay(tmp_path: Path) -> None:
    """It was killed between its outcome and tidying up."""
    step = tmp_path / "2-ground-state"
    step.mkdir()
    (step / "runo_WFK").touch()
    (step / "run.abo").touch()
    (tmp_path / "outcome.json").write_text(Outcome({"band_gap": 1.0}).to_json())
    crystal = rock_salt("Mg", "O", 4.212)
    tuning = Tuning.first(AbinitSettings(), {"Mg", "O"}, True)
    outcome = Attempt(tmp_path, crystal, {}, tuning, Programs("/nonexistent/abinit")).run()
    assert outcome.facts == {"band_gap": 1.0}
    assert [path.name for path in step.iterdir()] == ["run.abo"]


def test_only_whole_perturbations_survive_an_interruption(tmp_path: Path) -> None:
    step = tmp_path / "5-response"
    step.mkdir()
    heading = " Perturbation : displacement of atom   1   along direction   1\n"
    (step / "run.abo").write_text("x\n" + heading * 3)
    for number in (1, 4, 7):
        path = step / f"runo_1WF{number}"
        path.write_text(str(number))
    (step / "in_1WF9").symlink_to("nowhere")
    assert Steps(tmp_path, Programs()).restartable("5-response")
    assert _clear(step) == 1
    assert sorted(p.name for p in step.iterdir()) == ["in_1WF1.kept", "in_1WF4.kept", "restarts"]
    # Killed again before anything new was finished: what was kept is kept still.
    assert _clear(step) == 2
    assert Steps(tmp_path, Programs()).restartable("5-response")


def test_charges_are_polarisation_by_displacement(tmp_path: Path) -> None:
    """Aluminium in AlH3, whose run says in words: for a displacement along x, field along y,
    −0.488; for a displacement along y, field along x, 0.488. anaddb writes the former as [0, 1]."""
    aluminium = [[2.625, -0.488, 0.0], [0.488, 2.625, 0.0], [0.0, 0.0, 2.816]]
    with h5py.File(tmp_path / "run_anaddb.nc", "w") as file:
        file["emacro_cart"] = np.eye(3)
        file["becs_cart"] = np.array([aluminium])
    with h5py.File(tmp_path / "run_PHBST.nc", "w") as file:
        file["phfreqs"] = np.zeros((1, 3))
    (charge,) = response(tmp_path / "run").born_charges
    along_x, along_y = charge @ np.eye(3)[0], charge @ np.eye(3)[1]
    assert along_x.tolist() == [2.625, -0.488, 0.0] and along_y.tolist() == [0.488, 2.625, 0.0]


def test_a_finished_step_is_not_run_again(tmp_path: Path) -> None:
    steps = Steps(tmp_path, Programs(command="/nonexistent/abinit"))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / DONE).write_text(
        json.dumps({"converged": True, "cpu_s": 1.0, "wall_s": 2.0, "restarts": 0})
    )
    assert steps.run("1", "", {}).cpu_s == 1.0


def test_a_program_asked_to_end_is_no_failure(tmp_path: Path) -> None:
    """At its time limit a scheduler may end the program a moment before the calculation."""
    program = tmp_path / "abinit"
    program.write_text("#!/bin/sh\nkill -TERM $$\n")
    program.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            Steps(tmp_path / "1", Programs(str(program))).run("2-ground-state", "", {})
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    assert not (tmp_path / "1" / "2-ground-state" / DONE).exists()
