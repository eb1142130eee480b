"""ASE databases and extended XYZ files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screening.errors import UserError
from screening.inputs import read_crystals
from screening.pulling import PullContext
from screening.settings import AseSource
from screening.sources import pull_candidates

ON_TOP = "atoms closer than 0.5 Å to each other"
NAMES = ("rutile", "MoS2", "baddeleyite")


@pytest.fixture
def atoms(prototypes: dict[str, Any]) -> list[Any]:
    from ase import Atoms

    found = []
    for number, name in enumerate(NAMES):
        s = prototypes[name]
        found.append(
            Atoms(
                [site.specie.symbol for site in s], positions=s.cart_coords,
                cell=s.lattice.matrix, pbc=True,
                info={"material_id": name, "band_gap": 1.0 + number},
            )
        )  # fmt: skip
    return found


def write(path: Path, atoms: list[Any]) -> Path:
    import ase.db
    import ase.io

    if path.suffix in (".db", ".json"):
        with ase.db.connect(path) as book:
            for a in atoms:
                book.write(a, key_value_pairs=dict(a.info))
    else:
        ase.io.write(path, atoms, format="extxyz")
    return path


def pull(path: Path, **values: Any) -> Any:
    return pull_candidates(AseSource(path=path, **values), PullContext(cache=path.parent))


@pytest.mark.parametrize("name", ["a.db", "a.json", "a.xyz", "a.extxyz"])
def test_crystals_come_as_they_were_written(
    name: str, atoms: list[Any], tmp_path: Path, prototypes: dict[str, Any]
) -> None:
    pulled = pull(write(tmp_path / name, atoms))
    assert [m.material_id for m in pulled.items] == sorted(NAMES)
    for material in pulled.items:
        wanted = prototypes[material.material_id]
        assert material.structure.lattice.matrix == pytest.approx(wanted.lattice.matrix, abs=1e-6)
        assert material.structure.cart_coords == pytest.approx(wanted.cart_coords, abs=1e-6)
        assert material.band_gap == 1.0 + NAMES.index(material.material_id)


def test_crystals_are_named_together(
    atoms: list[Any], tmp_path: Path, prototypes: dict[str, Any]
) -> None:
    """On a command line; JSON may be a database, or a structure of pymatgen's."""
    database = write(tmp_path / "book.json", atoms)
    (tmp_path / "one.json").write_text(prototypes["rutile"].to_json())
    found, refused = read_crystals([database, tmp_path / "one.json"])
    assert [m.material_id for m in found] == [*sorted(NAMES), "one.json"]
    assert found[-1].structure == prototypes["rutile"] and not refused


def test_ids_and_gaps_may_be_missing(atoms: list[Any], tmp_path: Path) -> None:
    for a in atoms:
        a.info.clear()
    path = write(tmp_path / "mine.xyz", atoms)
    pulled = pull(path)
    assert [m.material_id for m in pulled.items] == ["mine-1", "mine-2", "mine-3"]
    assert [m.band_gap for m in pulled.items] == [None] * 3
    assert [m.band_gap for m in pull(path, assumed_band_gap=3.0).items] == [3.0] * 3


def test_what_is_no_ordered_crystal_is_counted(atoms: list[Any], tmp_path: Path) -> None:
    slab, cluster, ghost, twin, heap = (atoms[0].copy() for _ in range(5))
    slab.pbc = [True, True, False]
    cluster.cell = np.zeros((3, 3))
    ghost.numbers[0] = 0
    slab.info["material_id"], cluster.info["material_id"] = "slab", "cluster"
    ghost.info["material_id"], heap.info["material_id"] = "ghost", "heap"
    heap.positions[1] = heap.positions[0]
    pulled = pull(write(tmp_path / "a.db", [*atoms, slab, cluster, ghost, twin, heap]))
    assert pulled.refused.counts() == {
        "not periodic in three dimensions": 2,
        "a second record with the same id": 1,
        "an atom of no element (X)": 1,
        ON_TOP: 1,
    }
    assert len(pulled.items) == 3 and pulled.offered == 8


def test_files_that_cannot_be_read(atoms: list[Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        pull(tmp_path / "none.xyz")
    (tmp_path / "a.cif").write_text("data_")
    with pytest.raises(UserError, match="no ASE database"):
        pull(tmp_path / "a.cif")
    path = write(tmp_path / "a.xyz", atoms)
    path.write_text(path.read_text()[:-60])
    with pytest.raises(UserError, match="cannot be read after record"):
        pull(path)
    (tmp_path / "b.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 500)
    with pytest.raises(UserError, match="cannot be read"):
        pull(tmp_path / "b.db")
