"""Tables of candidates and of known tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screening.errors import UserError
from screening.pulling import PullContext
from screening.settings import TableSource
from screening.sources import pull_candidates
from screening.table_files import write_table
from screening.tables import (
    read_candidates,
    read_known,
    read_usable,
    read_usable_candidates,
)
from screening.tensors import DielectricTensors

Row = dict[str, Any]
Write = Callable[..., Path]
KINDS = ("csv", "jsonl", "parquet")


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    """The sentence with which a table is refused: it names the file and is one line."""
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


@pytest.fixture
def rows(prototypes: dict[str, Any], as_json: Callable[[Any], str]) -> list[Row]:
    """Known materials of all kinds: complete ones, and ones that lack what may be lacking."""

    def row(name: str, material_id: str, **columns: Any) -> Row:
        return {
            "material_id": material_id,
            "structure": as_json(prototypes[name]),
            "band_gap": 3.25,
            "functional": "PBE",
            "eps_electronic": json.dumps((2 * np.eye(3)).tolist()),
            "eps_ionic": json.dumps((3 * np.eye(3)).tolist()),
            "e_above_hull": 0.0125,
            "formula": None,
            "nsites": None,
            "born_charges": None,
            "min_optical_thz": None,
            **columns,
        }

    charges = [(1.1 * np.eye(3)).tolist(), (-1.1 * np.eye(3)).tolist()]
    return [
        row("NaCl", "007", born_charges=json.dumps(charges), min_optical_thz=4.5),
        row("rutile", "1e3", functional="PBEsol", eps_ionic=None),
        row("quartz", "α quartz", band_gap=None, e_above_hull=None),
        row("Te", "12345678901234567890", formula="Te", nsites=3, eps_electronic=None),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_files_give_the_same_materials(
    kind: str, rows: list[Row], write: Write, prototypes: dict[str, Any]
) -> None:
    found = read_known(write(rows, kind))
    assert [k.material.material_id for k in found] == [row["material_id"] for row in rows]
    for known, row in zip(found, rows, strict=True):
        material = known.material
        structure = prototypes[{"007": "NaCl", "1e3": "rutile", "α quartz": "quartz"}.get(
            material.material_id, "Te"
        )]  # fmt: skip
        assert np.array_equal(material.structure.lattice.matrix, structure.lattice.matrix)
        assert np.array_equal(material.structure.frac_coords, structure.frac_coords)
        assert material.structure.species == structure.species
        assert material.formula == structure.composition.reduced_formula
        assert material.n_sites == len(structure)
        assert material.band_gap == row["band_gap"]
        assert material.energy_above_hull == row["e_above_hull"]
        assert known.functional == row["functional"]
        for part, column in (("electronic", "eps_electronic"), ("ionic", "eps_ionic")):
            tensor = getattr(known.tensors, part)
            assert (tensor is None) == (row[column] is None)
            assert tensor is None or np.allclose(tensor, json.loads(row[column]))
    assert found[0].extras["min_optical_thz"] == 4.5
    assert found[0].extras["born_charges"] == json.loads(rows[0]["born_charges"])
    assert all(k.extras == {} for k in found[1:])
    assert json.loads(json.dumps(found[0].extras)) == found[0].extras

    candidates = read_candidates(write(rows, kind))
    for material, known in zip(candidates, found, strict=True):
        assert material.to_dict() == known.material.to_dict()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "material_id", ["007", "1e3", "12345678901234567890", "True", "2020-01-01"]
)
def test_ids_are_text_whatever_they_look_like(
    kind: str, material_id: str, row: Row, write: Write
) -> None:
    path = write([{**row, "material_id": material_id}], kind)
    assert [m.material_id for m in read_candidates(path)] == [material_id]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_nested_columns_are_read_like_text(kind: str, rows: list[Row], write: Write) -> None:
    nested = []
    for row in rows:
        cells = {k: json.loads(row[k]) for k in ("eps_electronic", "eps_ionic") if row[k]}
        structure = json.loads(row["structure"])
        structure.pop("properties")  # parquet has no empty groups
        for site in structure["sites"]:
            site.pop("properties")
        nested.append({**row, **cells, "structure": structure})
    nested[0]["born_charges"] = json.loads(rows[0]["born_charges"])
    as_text, found = read_known(write(rows, kind)), read_known(write(nested, kind, "nested"))
    for a, b in zip(as_text, found, strict=True):
        assert a.material.structure_hash == b.material.structure_hash
        assert a.tensors.to_dict() == b.tensors.to_dict()
        assert a.extras == b.extras


@pytest.mark.parametrize("missing", ["material_id", "structure"])
def test_a_missing_column_of_candidates_is_named(missing: str, row: Row, write: Write) -> None:
    del row[missing]
    message = refusal(read_candidates, write([row]))
    assert f"lacks the column '{missing}'" in message
    assert all(column in message for column in row)


def test_gaps_that_are_missing_are_told_and_assumed_only_if_asked(row: Row, write: Write) -> None:
    del row["band_gap"]
    path = write([row])
    notes: list[str] = []
    context = PullContext(note=notes.append)
    assert [m.band_gap for m in pull_candidates(TableSource(path=path), context).items] == [None]
    source = TableSource(path=path, assumed_band_gap=3.5)
    (material,) = pull_candidates(source, context).items
    assert material.band_gap == 3.5 and "band gap assumed" in material.source
    assert "1 of 1 materials" in notes[0] and "leaves them out" in notes[0]
    assert "3.5 eV is assumed" in notes[1]


@pytest.mark.parametrize(
    "missing", ["material_id", "structure", "band_gap", "functional", "eps_electronic"]
)
def test_a_missing_column_of_known_tensors_is_named(missing: str, row: Row, write: Write) -> None:
    del row[missing]
    assert f"lacks the column '{missing}'" in refusal(read_known, write([row]))


def test_one_column_for_the_lattice_part_is_needed(row: Row, write: Write) -> None:
    del row["eps_ionic"]
    assert "'eps_ionic' or 'eps_total'" in refusal(read_known, write([row]))


def test_the_static_tensor_may_be_given_instead(row: Row, write: Write) -> None:
    total = np.diag([7.9, 7.9, 4.4])
    electronic = np.array(json.loads(row["eps_electronic"]))
    del row["eps_ionic"]
    row["eps_total"] = json.dumps(total.tolist())
    tensors = read_known(write([row]))[0].tensors
    assert tensors.ionic is not None
    assert np.allclose(tensors.ionic, total - electronic)
    assert tensors.static is not None
    assert np.allclose(tensors.static, total)
    # Without the electronic part the ionic one cannot be known.
    assert read_known(write([{**row, "use_electronic": False}]))[0].tensors.ionic is None
    # Where both are given, the ionic column counts.
    both = {**row, "eps_ionic": json.dumps(np.eye(3).tolist())}
    assert np.allclose(read_known(write([both]))[0].tensors.ionic, np.eye(3))


def test_means_may_stand_in_the_place_of_tensors(row: Row, write: Write) -> None:
    for name in ("eps_electronic", "eps_ionic"):
        del row[name]
    (known,) = read_known(write([{**row, "mean_electronic": 3.5, "mean_ionic": 2.0}]))
    assert known.tensors == DielectricTensors(None, None)
    assert known.extras["mean_electronic"] == 3.5 and known.extras["mean_ionic"] == 2.0
    (known,) = read_known(write([{**row, "mean_electronic": 3.5}]))
    assert "mean_ionic" not in known.extras


@pytest.mark.parametrize(
    ("column", "value"), [("mean_electronic", 0.9), ("mean_ionic", -1.0), ("mean_ionic", np.inf)]
)
def test_an_impossible_mean_is_named(column: str, value: float, row: Row, write: Write) -> None:
    text = refusal(read_known, write([{**row, column: value}]))
    assert column in text and "mean permittivity" in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("no", [False, "no", 0, "FALSE"])
def test_parts_that_must_not_be_used_are_left_out(
    kind: str, no: Any, row: Row, write: Write
) -> None:
    rows = [
        {**row, "material_id": "both", "use_electronic": True, "use_ionic": True},
        {**row, "material_id": "electronic", "use_electronic": True, "use_ionic": no},
        {**row, "material_id": "ionic", "use_electronic": no, "use_ionic": True},
    ]
    if kind == "parquet":  # one type in a column
        rows = [{k: str(v) if k.startswith("use") else v for k, v in r.items()} for r in rows]
    found = {k.material.material_id: k.tensors for k in read_known(write(rows, kind))}
    assert found["both"].static is not None
    assert found["electronic"].electronic is not None
    assert found["electronic"].ionic is None
    assert found["ionic"].electronic is None
    assert found["ionic"].ionic is not None


def test_a_bad_tensor_in_a_part_that_is_not_used_does_no_harm(row: Row, write: Write) -> None:
    row |= {"use_ionic": False, "eps_ionic": json.dumps([[np.nan] * 3] * 3)}
    assert read_known(write([row]))[0].tensors.ionic is None


BAD_CELLS = {
    "text for a tensor": ({"eps_electronic": "unknown"}, "eps_electronic of rutile"),
    "a scalar for a tensor": ({"eps_electronic": 5.1}, "eps_electronic of rutile"),
    "two rows for a tensor": ({"eps_ionic": "[[1,0,0],[0,1,0]]"}, "eps_ionic of rutile"),
    "NaN in a tensor": ({"eps_ionic": "[[1,0,0],[0,1,0],[0,0,NaN]]"}, "eps_ionic of rutile"),
    "an asymmetric tensor": ({"eps_ionic": "[[1,9,0],[0,1,0],[0,0,1]]"}, "not symmetric"),
    "another frame": ({"eps_ionic": "[[9,0,0],[0,1,0],[0,0,1]]"}, "point group"),
    "text for a gap": ({"band_gap": "wide"}, "band_gap of rutile"),
    "a gap for unknown": ({"band_gap": -1}, "The band gap of rutile"),
    "an infinite gap": ({"band_gap": float("inf")}, "The band gap of rutile"),
    "text for a hull energy": ({"e_above_hull": "low"}, "e_above_hull of rutile"),
    "an infinite number of atoms": ({"nsites": float("inf")}, "nsites of rutile"),
    "text for a flag": ({"use_ionic": "perhaps"}, "use_ionic of rutile"),
    "text for charges": ({"born_charges": "positive"}, "born_charges of rutile"),
    "charges of another crystal": ({"born_charges": "[[[1,0,0],[0,1,0],[0,0,1]]]"}, "each atom"),
    "text for a frequency": ({"min_optical_thz": "soft"}, "min_optical_thz of rutile"),
    "no id": ({"material_id": None}, "without material_id"),
    "no structure": ({"structure": None}, "without material_id or structure"),
}


@pytest.mark.parametrize(("cells", "named"), BAD_CELLS.values(), ids=BAD_CELLS)
def test_a_bad_cell_is_named(
    cells: Row, named: str, row: Row, write: Write, prototypes: dict[str, Any], as_json: Any
) -> None:
    good = {**row, "material_id": "quartz", "structure": as_json(prototypes["quartz"])}
    good["eps_electronic"] = good["eps_ionic"] = json.dumps(np.eye(3).tolist())
    assert named in refusal(read_known, write([good, {**row, **cells}], "csv"))


def damaged(structure: str, **changes: Any) -> str:
    return json.dumps({**json.loads(structure), **changes})


def with_position(structure: str, value: float) -> str:
    content = json.loads(structure)
    content["sites"][1]["abc"][0] = value
    return json.dumps(content)


def on_top(structure: str) -> str:
    content = json.loads(structure)
    content["sites"][1]["abc"] = content["sites"][0]["abc"]
    return json.dumps(content)


def with_occupancy(structure: str, value: float) -> str:
    content = json.loads(structure)
    content["sites"][1]["species"][0]["occu"] = value
    return json.dumps(content)


BAD_STRUCTURES: dict[str, Callable[[str], Any]] = {
    "text": lambda _: "a crystal",
    "cut short": lambda s: s[: len(s) // 2],
    "a number": lambda _: "12",
    "a list": lambda _: "[1, 2]",
    "no lattice": lambda s: damaged(s, lattice=None),
    "no sites": lambda s: damaged(s, sites=[]),
    "an unknown element": lambda s: s.replace('"Ti"', '"Qq"'),
    "a position that is not a number": lambda s: with_position(s, float("nan")),
    "an infinite position": lambda s: with_position(s, float("inf")),
    "a flat cell": lambda s: damaged(s, lattice={"matrix": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}),
    "two atoms in one place": on_top,
    "a partly occupied site": lambda s: with_occupancy(s, 0.5),
}


@pytest.mark.parametrize("damage", BAD_STRUCTURES.values(), ids=BAD_STRUCTURES)
def test_a_bad_structure_is_named(damage: Callable[[str], Any], row: Row, write: Write) -> None:
    row["structure"] = damage(row["structure"])
    with pytest.raises(UserError, match=r"^The structure of rutile [^\n]*\.$"):
        read_known(write([row]))
    with pytest.raises(UserError, match="rutile"):
        _ = read_candidates(write([row]))[0].structure


def test_a_bad_formula_is_named(row: Row, write: Write) -> None:
    material = read_candidates(write([{**row, "formula": "sand?"}]))[0]
    with pytest.raises(UserError, match=r"formula of rutile, 'sand\?'"):
        _ = material.elements


def test_repeated_rows_are_merged(row: Row, write: Write) -> None:
    other = {**row, "functional": "PBEsol"}
    path = write([row, other, row, row])
    assert [k.functional for k in read_known(path)] == ["PBE", "PBEsol"]
    assert [m.material_id for m in read_candidates(path)] == ["rutile"]
    assert [k.functional for k in read_usable(path)[0]] == ["PBE", "PBEsol"]


def test_what_can_be_predicted_is_told_from_the_rest(row: Row, write: Write) -> None:
    structure = row["structure"]
    formula = {**row, "material_id": "sand", "formula": "sand?"}
    twins = {**row, "material_id": "twins", "structure": on_top(structure)}
    usable, reasons = read_usable_candidates(write([row, formula, twins]))
    assert [m.material_id for m in usable] == ["rutile"]
    assert len(reasons) == 2
    assert "sand" in reasons[0] and "closer than 0.5 Å" in reasons[1]


@pytest.mark.parametrize("name", ["copy.jsonl", "copy.parquet"])
def test_a_copy_has_all_that_is_known(
    name: str, rows: list[Row], write: Write, tmp_path: Path
) -> None:
    known = read_known(write(rows))
    write_table(known, tmp_path / name)
    copied = read_known(tmp_path / name)
    assert any(k.extras for k in known)
    assert [k.extras for k in copied] == [k.extras for k in known]


def test_one_id_with_two_structures_is_refused(
    row: Row, write: Write, prototypes: dict[str, Any], as_json: Any
) -> None:
    other = {**row, "structure": as_json(prototypes["anatase"])}
    for read in (read_known, read_candidates):
        message = refusal(read, write([row, other]))
        assert "two different structures" in message
        assert "rutile" in message
    # Under two functionals the structures may differ: each was relaxed with its own.
    assert len(read_known(write([row, {**other, "functional": "PBEsol"}]))) == 2


def test_tables_that_are_not_there_or_not_tables(tmp_path: Path) -> None:
    assert "There is no table" in refusal(read_known, tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "There is no table" in refusal(read_known, tmp_path / "folder.csv")
    (tmp_path / "table.xlsx").write_bytes(b"PK")
    assert ".parquet, .csv or .jsonl" in refusal(read_known, tmp_path / "table.xlsx")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("garbage.csv", b"\xff\xfe\x00\x01 what is this"),
        ("nothing.csv", b""),
        ("ragged.csv", b"material_id,structure,band_gap\na,b,1\na,b,c,d,e\n"),
        ("garbage.parquet", b"PAR1 but not really"),
        ("nothing.parquet", b""),
        ("cut.jsonl", b'{"material_id": "a"}\n{"mater'),
        ("garbage.jsonl", b"\xff\xfe\x00\x01"),
        ("lists.jsonl", b"[1, 2]\n"),
        ("numbers.jsonl", b"1\n2\n"),
    ],
)
def test_damaged_tables_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert "cannot be read as a table" in refusal(read_candidates, path)


def test_damaged_parquet_is_refused(row: Row, write: Write) -> None:
    path = write([row] * 3, "parquet")
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], content[:60] + b"\0" * 80 + content[140:]):
        path.write_bytes(broken)
        assert "cannot be read as a table" in refusal(read_candidates, path)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_tables_are_refused(kind: str, row: Row, write: Write) -> None:
    path = write([row], kind)
    match kind:
        case "csv":
            path.write_text(path.read_text().splitlines()[0] + "\n")
        case "jsonl":
            path.write_text("\n\n")
        case "parquet":
            import pandas as pd

            pd.DataFrame({name: [] for name in row}).to_parquet(path)
    assert "is an empty table" in refusal(read_candidates, path)


def test_candidates_are_not_parsed_before_they_are_looked_at(row: Row, write: Write) -> None:
    """Of 20,000 rows most are dropped by their size or gap; their structures cost nothing."""
    row |= {"formula": "TiO2", "nsites": 6, "structure": "not a structure at all"}
    material = read_candidates(write([row]))[0]
    assert (material.formula, material.n_sites, material.elements) == ("TiO2", 6, ("O", "Ti"))
    with pytest.raises(UserError, match="rutile"):
        _ = material.structure


def test_real_tensors_of_low_symmetry(low_symmetry: dict[str, Any]) -> None:
    """Twelve rows as the table has them: checked against the point group, and kept."""
    for known in low_symmetry.values():
        assert known.tensors.static is not None
        assert known.functional in ("PBE", "PBEsol")
        assert np.linalg.eigvalsh(known.tensors.electronic).min() > 1
    ratios = [np.linalg.eigvalsh(k.tensors.static) for k in low_symmetry.values()]
    assert max(e[2] / e[0] for e in ratios) > 2
