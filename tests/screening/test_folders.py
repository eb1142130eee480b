"""Folders of structure files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screening.errors import UserError
from screening.folders import read_folder

NAMES = {
    "001.cif": "NaCl",
    "quartz.vasp": "quartz",
    "POSCAR-te": "Te",
    "CONTCAR": "wurtzite",
    "UPPER.CIF": "rutile",
}
"""File and the crystal in it."""


@pytest.fixture
def folder(tmp_path: Path, prototypes: dict[str, Any]) -> Path:
    """Five crystals in files of all kinds, and files that are none."""
    path = tmp_path / "crystals"
    path.mkdir()
    for name, crystal in NAMES.items():
        kind = "cif" if name.lower().endswith("cif") else "poscar"
        (path / name).write_text(prototypes[crystal].to(fmt=kind))
    (path / "README.txt").write_text("not a structure")
    (path / "folder.cif").mkdir()
    return path


def refusal(folder: Path, band_gaps: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_folder(folder, band_gaps)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_files_become_materials(folder: Path, prototypes: dict[str, Any]) -> None:
    found = {m.material_id: m for m in read_folder(folder, None)}
    expected = {"001": "NaCl", "quartz": "quartz", "POSCAR-te": "Te", "CONTCAR": "wurtzite"}
    expected["UPPER"] = "rutile"
    assert set(found) == set(expected)
    for name, crystal in expected.items():
        original = prototypes[crystal]
        material = found[name]
        assert material.formula == original.composition.reduced_formula
        assert material.n_sites == len(original)
        assert np.allclose(material.structure.volume, original.volume, rtol=1e-5)
        assert material.band_gap is None
        assert material.source == "crystals"


@pytest.mark.parametrize("key", ["material_id", "file"])
def test_band_gaps_belong_to_files(key: str, folder: Path, tmp_path: Path) -> None:
    gaps = tmp_path / "gaps.csv"
    quartz, salt = ("quartz", "001") if key == "material_id" else ("quartz.vasp", "001.cif")
    gaps.write_text(f"{key},band_gap\n{quartz},5.9\n{salt},8.5\nPOSCAR-te,\n")
    found = {m.material_id: m.band_gap for m in read_folder(folder, gaps)}
    assert found == {
        "001": 8.5, "quartz": 5.9, "POSCAR-te": None, "CONTCAR": None, "UPPER": None
    }  # fmt: skip


def test_ids_of_digits_alone_stay_text(folder: Path, tmp_path: Path) -> None:
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("material_id,band_gap\n001,8.5\n")
    assert {m.material_id: m.band_gap for m in read_folder(folder, gaps)}["001"] == 8.5


def test_a_gap_for_an_absent_file_is_refused(folder: Path, tmp_path: Path) -> None:
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("file,band_gap\nquartz.vasp,5.9\ncorundum.cif,6.3\n")
    message = refusal(folder, gaps)
    assert "'corundum'" in message
    assert str(gaps) in message
    assert str(folder) in message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("name,band_gap\nquartz,5.9\n", "'file' (or 'material_id') and 'band_gap'"),
        ("file,gap\nquartz.vasp,5.9\n", "'file' (or 'material_id') and 'band_gap'"),
        ("file,band_gap\nquartz.vasp,wide\n", "band gap of 'quartz.vasp' is 'wide'"),
        ("file,band_gap\n", "empty table"),
    ],
)
def test_bad_tables_of_gaps_are_refused(
    content: str, named: str, folder: Path, tmp_path: Path
) -> None:
    gaps = tmp_path / "gaps.csv"
    gaps.write_text(content)
    message = refusal(folder, gaps)
    assert named in message
    assert str(gaps) in message


def test_absent_table_of_gaps_is_refused(folder: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "gaps.csv") in refusal(folder, tmp_path / "gaps.csv")


def test_folders_without_structures_are_refused(tmp_path: Path) -> None:
    assert "There is no folder" in refusal(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    assert "There is no folder" in refusal(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    message = refusal(tmp_path / "empty")
    assert "no structure files" in message
    assert "*.cif" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.cif", "data_x\n_cell_length_a 5.0\nloop_\n"),
        ("garbage.cif", "\x00\x01\x02"),
        ("empty.cif", ""),
        ("text.vasp", "once upon a time"),
        ("POSCAR", "comment\n1.0\n1 0 0\n0 1 0\n"),
        ("POSCAR.nan", "x\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\ndirect\n0 0 0\nnan 0 0\n"),
    ],
)
def test_a_broken_file_is_named(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    message = refusal(folder)
    assert Path(name).stem in message


DISORDERED = """data_alloy
_symmetry_space_group_name_H-M 'P 1'
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 0.5
K1 K 0 0 0 0.5
Cl1 Cl 0.5 0.5 0.5 1
"""


def test_a_disordered_file_is_named(folder: Path) -> None:
    (folder / "alloy.cif").write_text(DISORDERED)
    message = refusal(folder)
    assert "alloy" in message
    assert "disordered or partially occupied" in message
    (folder / "alloy.cif").write_text(DISORDERED.replace("K1 K 0 0 0 0.5\n", ""))
    assert "disordered or partially occupied" in refusal(folder)


def test_atoms_on_top_of_each_other_are_named(folder: Path) -> None:
    close = DISORDERED.replace("0.5\nK1 K 0 0 0 0.5", "1\nK1 K 0.1 0 0 1")
    (folder / "close.cif").write_text(close)
    message = refusal(folder)
    assert "close.cif" in message
    assert "0.5 Å" in message


def test_two_files_with_one_id_are_refused(folder: Path, prototypes: dict[str, Any]) -> None:
    (folder / "quartz.cif").write_text(prototypes["quartz"].to(fmt="cif"))
    message = refusal(folder)
    assert "'quartz'" in message
    assert "Two files" in message


def test_oxidation_states_in_a_file_do_no_harm(
    folder: Path, prototypes: dict[str, Any], row: Callable[..., Any]
) -> None:
    charged = prototypes["CsCl"].copy()
    charged.add_oxidation_state_by_element({"Cs": 1, "Cl": -1})
    (folder / "charged.cif").write_text(charged.to(fmt="cif"))
    found = {m.material_id: m for m in read_folder(folder, None)}["charged"]
    assert found.formula == "CsCl"
    assert found.elements == ("Cl", "Cs")
