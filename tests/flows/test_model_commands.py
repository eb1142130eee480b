"""``screen train`` and ``screen predict``: answers, files, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from models.shipped import DIRECTORY
from screening.builtin import builtin_known
from screening.table_files import write_table

QUICK = "--set encoder=7net-0 --set members=2 --set min_steps=30 --set max_steps=30"


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, screen: Any, prototypes: dict[str, Any]
) -> Path:
    """A directory with a table, structures and an ensemble trained on the table."""
    place = tmp_path_factory.mktemp("models")
    write_table(builtin_known(), place / "known.jsonl")
    done = screen(place, f"train known.jsonl --output model {QUICK} --json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["n_materials"] == len(builtin_known())
    folder = place / "crystals"
    folder.mkdir()
    for name in ("rutile", "quartz", "wurtzite"):
        prototypes[name].to(str(folder / f"{name}.cif"))
    prototypes["SrTiO3"].to(str(place / "POSCAR"), fmt="poscar")
    return place


def test_a_table_for_people(place: Path, screen: Any) -> None:
    done = screen(place, "predict crystals POSCAR --model model")
    assert done.status == 0, done.err
    for text in ("TiO2 rutile", "SiO2 quartz", "SrTiO3 POSCAR", "ε̄ static", "λmax/λmin"):
        assert text in done.out


def test_json_for_scripts(place: Path, screen: Any) -> None:
    done = screen(place, "predict crystals/rutile.cif POSCAR --model model --json")
    assert done.status == 0, done.err
    rutile, perovskite = json.loads(done.out)
    for row in (rutile, perovskite):
        static = np.array(row["static"]["tensor"])
        assert np.allclose(static, static.T)
        assert np.linalg.eigvalsh(static)[0] > 1
        assert row["static"]["mean"] == pytest.approx(np.trace(static) / 3, rel=1e-3)
        low, high = row["static"]["interval_90"]
        assert low < row["static"]["mean"] < high
        assert row["refractive_index"] ** 2 == pytest.approx(row["electronic"]["mean"], rel=1e-3)
        values = row["static"]["eigenvalues"]
        assert row["anisotropy"] == pytest.approx(values[2] / values[0], rel=1e-3)
        assert row["physical"] is False  # so few crystals are too few to learn Born charges from
    assert perovskite["anisotropy"] == pytest.approx(1, abs=1e-4)
    assert rutile["formula"] == "TiO2"


def test_a_model_from_a_table_is_not_the_one_that_comes_along(place: Path, screen: Any) -> None:
    own, shipped = (
        json.loads(screen(place, f"predict POSCAR --json --no-physics {flag}").out)[0]
        for flag in ("--model model", "")
    )
    assert own["static"] != shipped["static"]
    assert shipped["in_domain"] is True
    # Cubic SrTiO3 by DFPT: ε∞ = 6.1 to 6.4 (PBE, PBEsol).
    assert 5 < shipped["electronic"]["mean"] < 7.5


def bad_files(place: Path) -> None:
    (place / "empty.cif").write_text("")
    cubic = Lattice.cubic(4.0)
    mixed = Structure(cubic, [{"Mg": 0.5, "Zn": 0.5}, "O"], [[0, 0, 0], [0.5] * 3])
    mixed.to(str(place / "mixed.cif"))
    Structure(cubic, ["Mg", "O"], [[0, 0, 0], [0.02, 0, 0]]).to(str(place / "POSCAR-close"))
    Structure(cubic, ["Ra", "O"], [[0, 0, 0], [0.5] * 3]).to(str(place / "POSCAR-radium"))


CASES = {
    "empty.cif": ("", ["empty.cif", "cannot be read"]),
    "mixed.cif": ("", ["disordered"]),
    "POSCAR-close": ("", ["closer than 0.5 Å"]),
    "POSCAR-radium": ("", ["Ra", "does not know"]),
    "nowhere.cif": ("", ["no file or folder nowhere.cif"]),
    "POSCAR": ("--functional SCAN", ["functional 'SCAN'", "PBE or PBEsol"]),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_structures(name: str, place: Path, screen: Any) -> None:
    bad_files(place)
    flags, words = CASES[name]
    done = screen(place, f"predict {name} --model model {flags}")
    assert done.status == 2
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err


def test_what_is_bad_is_named_and_the_rest_is_predicted(
    place: Path, prototypes: dict[str, Any], screen: Any
) -> None:
    bad_files(place)
    folder = place / "some-bad"
    folder.mkdir()
    prototypes["rutile"].to(str(folder / "rutile.cif"))
    (folder / "cut.cif").write_text("data_cut\n_cell_length_a 4.0\n")
    mixed = Structure.from_file(place / "mixed.cif")
    rows = [("good", prototypes["NaCl"]), ("mixed", mixed)]
    table = [{"material_id": name, "structure": json.dumps(s.as_dict())} for name, s in rows]
    (place / "table.jsonl").write_text("\n".join(json.dumps(row) for row in table))
    named = "POSCAR-radium some-bad table.jsonl empty.cif"
    done = screen(place, f"predict {named} --model model --no-physics --json")
    assert done.status == 1
    found = {row["material_id"] for row in json.loads(done.out)}
    assert found == {"rutile", "good"}
    left_out = [line for line in done.err.splitlines() if line.startswith("Left out: ")]
    assert len(left_out) == 4
    for line, words in zip(left_out, ("cut.cif", "mixed", "empty.cif", "Ra"), strict=True):
        assert words in line
    assert "Traceback" not in done.err


def odd(place: Path) -> list[str]:
    box = Lattice.cubic(14.0)
    crystals = {
        "single": Structure(Lattice.cubic(3.3), ["Xe"], [[0, 0, 0]]),
        "slab": Structure(
            Lattice.from_parameters(4.2, 4.2, 25, 90, 90, 90), ["Mg", "O"],
            [[0, 0, 0.5], [0.5, 0.5, 0.5]],
        ),
        "molecule": Structure(box, ["C", "O"], [[0, 0, 0], [1.13 / 14, 0, 0]]),
        "large": Structure.from_spacegroup(
            "Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5] * 3]
        ) * (4, 4, 4),
    }  # fmt: skip
    for name, crystal in crystals.items():
        crystal.to(str(place / f"{name}.vasp"), fmt="poscar")
    return [f"{name}.vasp" for name in crystals]


def test_odd_crystals_get_an_answer(place: Path, screen: Any) -> None:
    """And the empty space of a slab or a box is told as unlike anything learned from."""
    done = screen(place, f"predict {' '.join(odd(place))} POSCAR --no-physics --json")
    assert done.status == 0, done.err
    rows = {row["material_id"]: row for row in json.loads(done.out)}
    assert not rows["slab"]["in_domain"] and not rows["molecule"]["in_domain"]
    assert rows["large"]["n_sites"] == 512
    assert 2.5 < rows["large"]["electronic"]["mean"] < 3.6
    assert all(np.isfinite(row["static"]["tensor"]).all() for row in rows.values())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda m: (m / "model.safetensors").write_bytes(b"x" * 99), ["damaged or cut short"]),
        (lambda m: (m / "model.json").write_text('{"format": 1}'), ["format 1"]),
        (lambda m: (m / "model.json").unlink(), ["no trained model"]),
    ],
)
def test_bad_weights(place: Path, screen: Any, tmp_path: Path, damage: Any, words: Any) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    damage(model)
    done = screen(place, f"predict POSCAR --model {model}")
    assert done.status == 2
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err


def test_too_few_rows_to_train(place: Path, screen: Any) -> None:
    write_table(builtin_known()[:3], place / "few.jsonl")
    done = screen(place, "train few.jsonl --output other --set encoder=7net-0")
    assert done.status == 2 and "3 compositions" in done.err
    done = screen(place, "train known.jsonl --output other --set colour=red")
    assert done.status == 2 and "colour" in done.err


def test_the_shipped_weights_are_small_and_tell_their_origin() -> None:
    size = sum(path.stat().st_size for path in DIRECTORY.iterdir())
    assert size < 8e6
    manifest = json.loads((DIRECTORY / "model.json").read_text())
    assert manifest["calibration"]["n"] > 300
    assert manifest["settings"]["members"] == 5
