"""The VASP engine under the real custodian and atomate2, with a stand-in for the program."""

from __future__ import annotations

import errno
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from dft.check import check_engine
from dft.engine import CalculationOutput
from dft.gate import Verdict, judge
from dft.vasp import VaspEngine
from dft.vasp_job import climb
from dft.vasp_presets import hubbard_u, input_set, needs_spin
from dft.vasp_settings import Preset, VaspSettings
from screening.errors import UserError
from screening.material import Material

STAND_IN = Path(__file__).parent / "stand_in_vasp.py"


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()


MAGNESIA = rock_salt("Mg", "O", 4.212)
TITANATE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
)
DISULFIDE = Structure.from_spacegroup(
    "P6_3/mmc", Lattice.hexagonal(3.16, 12.3), ["Mo", "S"],
    [[1 / 3, 2 / 3, 0.25], [1 / 3, 2 / 3, 0.621]],
)  # fmt: skip
FLUORIDE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.7, 3.31), ["Fe", "F"], [[0, 0, 0], [0.305, 0.305, 0]]
)

PUBLISHED: dict[Preset, dict[str, Any]] = {
    "dtnet": {
        "ALGO": "Fast", "EDIFF": 1e-7, "ENCUT": 600, "GGA": "Pe", "IBRION": 8, "ISMEAR": 0,
        "ISPIN": 1, "LCHARG": False, "LEPSILON": True, "LORBIT": 11, "LREAL": False,
        "LWAVE": False, "NELM": 100, "NSW": 1, "PREC": "Accurate", "SIGMA": 0.05,
    },
    "goectp": {
        "ALGO": "Fast", "EDIFF": 1e-8, "EDIFFG": -0.001, "ENCUT": 700, "GGA": "Pe", "IBRION": 8,
        "ISMEAR": 0, "ISPIN": 1, "KGAMMA": True, "KSPACING": pytest.approx(0.1885, abs=1e-4),
        "LCHARG": False, "LEPSILON": True, "LORBIT": 11, "LREAL": False, "LWAVE": False,
        "NELM": 100, "NSW": 1, "PREC": "Accurate", "SIGMA": 0.05,
    },
    # Petousis et al., Sci. Data 4 (2017) 160134: 600 eV (and the mesh below); the other tags are
    # those of the Materials Project's static set with LEPSILON.
    "mp": {
        "ALGO": "Fast", "EDIFF": 1e-5, "ENCUT": 600, "IBRION": 8, "ISIF": 3, "ISMEAR": -5,
        "ISPIN": 2, "LASPH": True, "LCHARG": True, "LEPSILON": True, "LORBIT": 11, "LPEAD": True,
        "LREAL": False, "LWAVE": False, "MAGMOM": [0.6, 0.6], "NELM": 100, "NSW": 1,
        "PREC": "Accurate", "SIGMA": 0.05,
    },
}  # fmt: skip


def inputs(preset: Preset, structure: Structure, **incar: Any) -> Any:
    chosen = input_set(preset, incar, structure)
    return chosen.get_input_set(structure, potcar_spec=True)


@pytest.mark.parametrize("preset", ["dtnet", "goectp", "mp"])
def test_inputs_are_those_of_the_paper(preset: Preset) -> None:
    found = inputs(preset, MAGNESIA)
    assert {str(k): v for k, v in dict(found["INCAR"]).items()} == PUBLISHED[preset]
    if preset == "goectp":
        assert found.get("KPOINTS") is None
    else:
        # 3,000 k-points per reciprocal atom: 2 × 11³ = 2,662, 2 × 12³ = 3,456.
        assert found["KPOINTS"].kpts[0] == (11, 11, 11)


@pytest.mark.parametrize(("preset", "ediff"), [("dtnet", 1e-7), ("goectp", 1e-8), ("mp", 1e-7)])
def test_relaxation_before_the_response(preset: Preset, ediff: float) -> None:
    relaxing = input_set(preset, {}, MAGNESIA, relaxation=True)
    tags = dict(relaxing.get_input_set(MAGNESIA, potcar_spec=True)["INCAR"])
    published = PUBLISHED[preset]
    assert (tags["IBRION"], tags["ISIF"], tags["EDIFFG"]) == (2, 3, -0.001)
    assert tags["NSW"] > 1 and tags["EDIFF"] == ediff
    assert not {"LEPSILON", "LPEAD"} & set(tags)
    for tag in ("ENCUT", "ISMEAR", "ISPIN", "PREC", "SIGMA"):
        assert tags[tag] == published[tag]


@pytest.mark.parametrize("preset", ["dtnet", "goectp", "mp"])
def test_a_denser_mesh_is_denser_along_each_axis(preset: Preset) -> None:
    denser = input_set(preset, {}, MAGNESIA, denser=1.33)
    found = denser.get_input_set(MAGNESIA, potcar_spec=True)
    if preset == "goectp":
        assert found["INCAR"]["KSPACING"] == pytest.approx(0.1885 / 1.33, abs=1e-4)
    else:
        assert found["KPOINTS"].kpts[0] == (15, 15, 15)


@pytest.mark.parametrize("preset", ["dtnet", "goectp", "mp"])
@pytest.mark.parametrize(
    ("structure", "hubbard"),
    [
        (rock_salt("Fe", "O", 4.33), {"Fe": 5.3}),
        (FLUORIDE, {"Fe": 5.3}),
        (TITANATE, {}),
        (DISULFIDE, {}),
    ],
    ids=["FeO", "FeF2", "SrTiO3", "MoS2"],
)
def test_hubbard_u_is_the_projects(
    preset: Preset, structure: Structure, hubbard: dict[str, float]
) -> None:
    assert hubbard_u(structure) == hubbard
    found = inputs(preset, structure)
    incar, symbols = found["INCAR"], found["POSCAR"].site_symbols
    if not hubbard:
        assert "LDAUU" not in incar
        return
    assert incar["LDAU"] and incar["ISPIN"] == 2 and "MAGMOM" in incar
    assert dict(zip(symbols, incar["LDAUU"], strict=True)) == {
        symbol: hubbard.get(symbol, 0) for symbol in symbols
    }


def test_tags_of_a_user_replace_those_of_the_preset() -> None:
    found = inputs("dtnet", MAGNESIA, ENCUT=520, LPEAD=True)["INCAR"]
    assert (found["ENCUT"], found["LPEAD"]) == (520, True)
    assert needs_spin(rock_salt("Mn", "O", 4.4)) and not needs_spin(MAGNESIA)


def played(
    place: Path, behaviour: str, monkeypatch: pytest.MonkeyPatch, structure: Structure = MAGNESIA,
    **settings: Any,
) -> CalculationOutput:  # fmt: skip
    monkeypatch.chdir(place)
    command = shlex.join([sys.executable, str(STAND_IN), behaviour])
    return climb(structure, VaspSettings(command=command, **settings), potcar_spec=True)


@pytest.mark.parametrize(
    ("behaviour", "verdict", "said"),
    [
        ("normal", Verdict.ACCEPTED, "mean ε∞ 3.19, mean static ε 9.96"),
        ("repairable", Verdict.ACCEPTED, "mean ε∞ 3.19"),
        ("broken", Verdict.ENGINE_ERROR, "edddav"),
        ("unconverged", Verdict.UNCONVERGED, "self-consistent"),
        ("killed", Verdict.ENGINE_ERROR, "VASP left no vasprun.xml; it was killed"),
        ("truncated", Verdict.ENGINE_ERROR, "vasprun.xml breaks off"),
        ("garbage", Verdict.ENGINE_ERROR, "vasprun.xml is no XML"),
        ("identity", Verdict.ELECTRONIC_IS_IDENTITY, "differs from the identity"),
        ("skewed", Verdict.NOT_SYMMETRIC, "antisymmetric part"),
        ("metal", Verdict.METALLIC, "band gap"),
        ("unstable", Verdict.IMAGINARY_MODE, "-2.50 THz"),
    ],
)
def test_every_ending_gets_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, verdict: Verdict, said: str
) -> None:
    output = played(tmp_path, behaviour, monkeypatch)
    judgement = judge(MAGNESIA, output)
    assert judgement.verdict is verdict, judgement.detail
    assert said in judgement.detail
    assert output.conclusive and output.engine == "vasp" and 1 <= len(output.attempts) <= 3
    if verdict is Verdict.ACCEPTED:
        assert output.engine_version.startswith("6.4.2")
        assert output.frequencies_thz is not None and output.frequencies_thz.shape == (6,)
        assert output.min_optical_thz == pytest.approx(11.9)
        # The stand-in's k-points, not the number of meshes.
        assert output.cost["n_kpoints"] == 3
    # What an attempt found is not asked for again.
    again = played(tmp_path, "killed", monkeypatch)
    assert again.to_dict() == output.to_dict()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{sys.executable} {STAND_IN} unloadable", "loading shared libraries: libmkl_core.so.2"),
        ("/nowhere/vasp_std", "No such file or directory: '/nowhere/vasp_std'"),
    ],
)
def test_what_did_not_begin_says_nothing_about_the_crystal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    """Once the program is there, the calculation is asked again in the same place."""
    monkeypatch.chdir(tmp_path)
    output = climb(MAGNESIA, VaspSettings(command=command), potcar_spec=True)
    judgement = judge(MAGNESIA, output)
    assert judgement.verdict is Verdict.ENGINE_ERROR
    assert said in judgement.detail
    assert output.external and not output.conclusive
    assert [a["failure"] for a in output.attempts] == ["not finished"]
    again = played(tmp_path, "normal", monkeypatch)
    assert judge(MAGNESIA, again).verdict is Verdict.ACCEPTED


def test_charges_come_back_in_the_order_of_the_atoms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = Structure.from_sites([TITANATE[i] for i in (2, 0, 3, 1, 4)])
    output = played(tmp_path, "normal", monkeypatch, mixed)
    assert output.born_charges is not None
    signs = np.sign(output.born_charges[:, 0, 0])
    assert [s.specie.symbol for s, z in zip(mixed, signs, strict=True) if z < 0] == ["O"] * 3
    # VASP prints a row for each direction of the field, or polarisation.
    np.testing.assert_allclose(output.born_charges[:, 0, 1] * signs, 0.25)
    np.testing.assert_allclose(output.born_charges[:, 1, 0], 0)


def test_what_custodian_cannot_repair_climbs_the_ladder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = played(tmp_path, "slow", monkeypatch)
    assert len(output.attempts) == 2 and output.converged
    assert output.attempts[0]["failure"] and output.attempts[1]["failure"] is None
    assert output.attempts[1]["settings"]["incar"]["NELM"] == 200
    (tmp_path / "unstable").mkdir()
    unstable = played(tmp_path / "unstable", "unstable", monkeypatch)
    assert [a["settings"]["relax"] for a in unstable.attempts] == [False, True]


def test_charges_that_do_not_add_up_ask_for_a_denser_mesh_and_then_a_higher_cutoff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = played(tmp_path, "charged", monkeypatch)
    assert [a["settings"]["denser"] for a in output.attempts] == pytest.approx([1, 1.33, 1.7689])
    assert [a["settings"]["incar"] for a in output.attempts] == [{}, {}, {"ENCUT": 750}]
    assert all("add up to 0.300 e per atom" in a["failure"] for a in output.attempts[:2])
    assert judge(MAGNESIA, output).verdict is Verdict.ACCEPTED
    # Where the ladder ends before that, the gate refuses.
    (tmp_path / "once").mkdir()
    once = played(tmp_path / "once", "charged", monkeypatch, max_attempts=1)
    assert judge(MAGNESIA, once).verdict is Verdict.BORN_CHARGES_NOT_NEUTRAL


def test_a_full_disk_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calculation stays without a result, and goes on once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk cannot be mounted here (that needs root)")
    try:
        with pytest.raises(OSError, match="No space left") as caught:
            played(disk, "bulky", monkeypatch)
        assert caught.value.errno == errno.ENOSPC
        assert not list(disk.glob("attempt-*/outcome.json"))
        subprocess.run(["mount", "-o", "remount,size=96m", str(disk)], check=True)
        output = played(disk, "bulky", monkeypatch)
        assert judge(MAGNESIA, output).verdict is Verdict.ACCEPTED
        assert len(output.attempts) == 1
    finally:
        monkeypatch.chdir(tmp_path)
        subprocess.run(["umount", str(disk)], check=True)


def test_missing_potcars_are_told_before_anything_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymatgen.core import SETTINGS

    from dft.check import require

    program = tmp_path / "vasp_std"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    settings = VaspSettings(command=str(program))
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", None)
    with pytest.raises(UserError, match=r"PMG_VASP_PSP_DIR is not set.*pmg config"):
        require(settings)
    place = tmp_path / "potcars" / "POT_GGA_PAW_PBE"
    place.mkdir(parents=True)
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", str(tmp_path / "potcars"))
    with pytest.raises(UserError, match="holds no PBE POTCARs"):
        require(settings)
    (place / "POTCAR.O").write_text("stub")
    require(settings)
    reason = VaspEngine(settings).cannot(Material("MgO", MAGNESIA))
    assert reason is not None and "no POTCAR for Mg_pv" in reason
    assert VaspEngine(settings).elements == {"O"}
    assert {"O", "Mg"} < VaspEngine(settings, potcar_spec=True).elements
    assert not all(f.works for f in check_engine(VaspSettings(command="/nonexistent/vasp_std")))
    gamma = tmp_path / "vasp_gam"
    gamma.symlink_to(program)
    for command, here in ((str(gamma), True), ("srun /only/on/nodes/vasp_gam", False)):
        with pytest.raises(UserError, match="no response to electric fields"):
            require(VaspSettings(command=command), programs=here)
