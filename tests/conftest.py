"""What the tests of several packages share: real crystals, and other descriptions of a crystal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

settings.register_profile(
    "screening", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("screening")

ROOT = Path(__file__).parents[1]
# The benchmarks that are tests as well are files, not a package.
sys.path.append(str(ROOT / "benchmarks"))
# A shell starts what runs in its background deaf to Ctrl-C, and the processes that tests interrupt
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

DRAWN_SPECIES = (
    "H", "Li", "Be", "C", "N", "O", "F", "Na", "Mg", "Si", "S", "Cl", "Ca", "Ti", "Zn", "Ga", "Se",
    "Sr", "Zr", "Ag", "I", "Cs", "Ba", "La", "Pb", "Bi",
)  # fmt: skip
SHORTEST_DISTANCE = 1.2
"""Å between any two atoms of a drawn crystal."""

LOW_SYMMETRY = (
    "mp-29443",  # PI2, triclinic
    "mp-15776",  # Zn(GaSe2)2, P1
    "mp-570538",  # NaN3, monoclinic, ions of three atoms
    "mp-626644",  # Ca(OH)2, C2: polar and chiral
    "mp-632326",  # HCl, orthorhombic, chains of molecules
    "mp-2964",  # NaNO2, orthorhombic, ferroelectric
    "mp-22885",  # XeF2, tetragonal, molecular
    "mp-19921",  # PbO, tetragonal, layered, lone pairs
    "mp-22965",  # BiTeI, trigonal, polar layers
    "mp-984",  # BN, hexagonal, layered
    "mp-28797",  # YHSe, hexagonal, layered
    "mp-22862",  # NaCl, cubic
)
"""Crystals of all seven systems in the table of dielectric tensors."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A real Slurm of one node, for this process and what it starts; see benchmarks/cluster.py."""
    from cluster import Cluster, missing

    if reason := missing():
        pytest.skip(reason)
    home = Path(tempfile.mkdtemp(prefix="screen-slurm-", dir="/tmp"))
    with Cluster(home) as started, pytest.MonkeyPatch.context() as patch:
        for name in ("PATH", "SLURM_CONF"):
            patch.setenv(name, started.environment[name])
        yield started
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def screen_data() -> Path:
    """The folder of large tables."""
    given = Path(os.environ.get("SCREEN_DATA", ROOT.parent / "shared" / "data"))
    folder = given if given.is_absolute() else ROOT / given
    if not (folder / "dielectric_tensors.parquet").is_file():
        pytest.skip(f"SCREEN_DATA ({folder}) holds no dielectric_tensors.parquet")
    return folder


@pytest.fixture(scope="session")
def tensor_table(screen_data: Path) -> Any:
    """Rows of the table of dielectric tensors with both parts known, as a DataFrame."""
    import pandas as pd

    frame = pd.read_parquet(screen_data / "dielectric_tensors.parquet")
    return frame[frame["use_electronic"] & frame["use_ionic"]]


@pytest.fixture(scope="session")
def low_symmetry(tensor_table: Any) -> dict[str, Any]:
    """Real crystals of all seven systems with their tensors, one record each, by id."""
    from screening.tables import known_from_frame

    rows = tensor_table[tensor_table["material_id"].isin(LOW_SYMMETRY)]
    rows = rows.drop_duplicates("material_id")
    known = {k.material.material_id: k for k in known_from_frame(rows, "the tensor table")}
    assert len(known) == len(LOW_SYMMETRY)
    return known


@pytest.fixture(scope="session")
def prototypes() -> dict[str, Any]:
    """Crystals as the literature gives them, in their primitive cells."""
    from pymatgen.core import Lattice, Structure

    def crystal(group: str, lattice: Lattice, *atoms: tuple[str, list[float]]) -> Structure:
        species, positions = [a[0] for a in atoms], [a[1] for a in atoms]
        return Structure.from_spacegroup(
            group, lattice, species, positions
        ).get_primitive_structure()

    cubic, hexagonal, third = Lattice.cubic, Lattice.hexagonal, [1 / 3, 2 / 3]
    origin, centre, quarter = [0.0] * 3, [0.5] * 3, [0.25] * 3
    return {
        # Wyckoff, Crystal Structures, vol. 1 (1963)
        "NaCl": crystal("Fm-3m", cubic(5.640), ("Na", origin), ("Cl", centre)),
        "CsCl": crystal("Pm-3m", cubic(4.123), ("Cs", origin), ("Cl", centre)),
        "SrTiO3": crystal(
            "Pm-3m", cubic(3.905), ("Sr", origin), ("Ti", centre), ("O", [0.5, 0.5, 0.0])
        ),
        "Ar": crystal("Fm-3m", cubic(5.31), ("Ar", origin)),
        "zincblende": crystal("F-43m", cubic(5.409), ("Zn", origin), ("S", quarter)),
        "wurtzite": crystal(
            "P6_3mc", hexagonal(3.811, 6.234), ("Zn", [*third, 0.0]), ("S", [*third, 0.375])
        ),
        "graphite": crystal(
            "P6_3/mmc", hexagonal(2.461, 6.708), ("C", [0, 0, 0.25]), ("C", [*third, 0.25])
        ),
        "K2PtCl6": crystal(
            "Fm-3m", cubic(9.755), ("K", quarter), ("Pt", origin), ("Cl", [0.240, 0, 0])
        ),
        # Abrahams and Bernstein, J. Chem. Phys. 55 (1971) 3206
        "rutile": crystal(
            "P4_2/mnm", Lattice.tetragonal(4.5937, 2.9587),
            ("Ti", origin), ("O", [0.3048, 0.3048, 0]),
        ),
        # Horn, Schwerdtfeger and Meagher, Z. Kristallogr. 136 (1972) 273
        "anatase": crystal(
            "I4_1/amd", Lattice.tetragonal(3.7842, 9.5146), ("Ti", origin), ("O", [0, 0, 0.2081])
        ),
        # Levien, Prewitt and Weidner, Am. Mineral. 65 (1980) 920
        "quartz": crystal(
            "P3_221", hexagonal(4.9137, 5.4047),
            ("Si", [0.4697, 0, 2 / 3]), ("O", [0.4135, 0.2669, 0.7858]),
        ),
        # Howard, Hill and Reichert, Acta Cryst. B44 (1988) 116
        "baddeleyite": crystal(
            "P2_1/c", Lattice.monoclinic(5.1505, 5.2116, 5.3173, 99.23),
            ("Zr", [0.2754, 0.0395, 0.2083]),
            ("O", [0.07, 0.3317, 0.3447]), ("O", [0.4496, 0.7569, 0.4792]),
        ),
        # Bronsema, de Boer and Jellinek, Z. Anorg. Allg. Chem. 540 (1986) 15
        "MoS2": crystal(
            "P6_3/mmc", hexagonal(3.160, 12.294), ("Mo", [*third, 0.25]), ("S", [*third, 0.621])
        ),
        # Cherin and Unger, Acta Cryst. 23 (1967) 670: chiral
        "Te": crystal("P3_121", hexagonal(4.4572, 5.9290), ("Te", [0.2633, 0, 1 / 3])),
        # Simon and Peters, Acta Cryst. B36 (1980) 2750
        "CO2": crystal("Pa-3", cubic(5.624), ("C", origin), ("O", [0.1185] * 3)),
        # Donohue, Acta Cryst. 14 (1961) 1000
        "N2": crystal("Pa-3", cubic(5.661), ("N", [0.0540] * 3)),
        # van Bolhuis, Koster and Migchelsen, Acta Cryst. 23 (1967) 90
        "I2": crystal(
            "Cmce", Lattice.orthorhombic(7.136, 4.686, 9.784), ("I", [0, 0.1543, 0.1174])
        ),
    }  # fmt: skip


@pytest.fixture(scope="session")
def rotation() -> Callable[..., np.ndarray]:
    """``rotation(seed, improper)``: an orthogonal matrix (3, 3) of determinant 1 or −1."""

    def make(seed: int, improper: bool) -> np.ndarray:
        q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
        q = q * np.sign(np.diag(r))
        return q * np.linalg.det(q) * (-1 if improper else 1)

    return make


@pytest.fixture(scope="session")
def turned() -> Callable[..., Any]:
    """``turned(structure, rotation)``: the crystal rotated, mirrored or inverted."""
    from pymatgen.core import Lattice, Structure

    def turn(structure: Structure, matrix: np.ndarray) -> Structure:
        lattice = Lattice(structure.lattice.matrix @ matrix.T)
        return Structure(lattice, structure.species, structure.frac_coords)

    return turn


@pytest.fixture(scope="session")
def described_anew() -> Callable[..., dict[str, Any]]:
    """``described_anew(structure, seed)``: the same crystal, in the same orientation, otherwise.

    Supercells by integer matrices that are not diagonal, a cell of the same size by a unimodular
    matrix, Niggli's cell, another order of the atoms, another origin, and all of that together.
    """
    from pymatgen.core import Structure

    def describe(structure: Structure, seed: int) -> dict[str, Structure]:
        random = np.random.default_rng(seed)

        def shifted(s: Structure) -> Structure:
            return Structure(s.lattice, s.species, s.frac_coords + random.random(3))

        def permuted(s: Structure) -> Structure:
            return Structure.from_sites([s[i] for i in random.permutation(len(s))])

        unimodular = np.eye(3, dtype=int)
        for _ in range(4):
            i, j = random.permutation(3)[:2]
            unimodular[i] += random.choice([-1, 1]) * unimodular[j]
        return {
            "supercell": structure * [[1, 1, 0], [0, 1, 1], [1, 0, 1]],
            "long supercell": structure * [[1, 0, 0], [1, 3, 0], [0, 1, 1]],
            "unimodular": structure * unimodular,
            "niggli": structure * _niggli(structure),
            "permuted": permuted(structure),
            "shifted": shifted(structure),
            "everything": permuted(
                shifted(structure * unimodular * [[2, 0, 0], [1, 1, 0], [0, 0, 1]])
            ),
        }

    return describe


def _niggli(structure: Any) -> np.ndarray:
    """Integer matrix that leads to the Niggli cell, which spglib gives in the same orientation."""
    import spglib

    lattice = structure.lattice.matrix
    matrix = spglib.niggli_reduce(lattice) @ np.linalg.inv(lattice)
    assert np.allclose(matrix, np.round(matrix), atol=1e-6)
    return np.round(matrix).astype(int)


@pytest.fixture(scope="session")
def drawn_crystals() -> st.SearchStrategy[Any]:
    """Crystals of one to six atoms in any lattice, no two atoms closer than 1.2 Å.

    Lengths, angles and positions lie on grids, so that a drawn crystal has a symmetry exactly or
    lacks it clearly.
    """
    from pymatgen.core import Lattice, Structure

    @st.composite
    def crystals(draw: st.DrawFn) -> Structure:
        lengths = [draw(st.integers(25, 60)) / 10 for _ in range(3)]
        angles = [draw(st.integers(65, 115)) for _ in range(3)]
        grid = st.tuples(*[st.integers(0, 11)] * 3)
        places = draw(st.lists(grid, min_size=1, max_size=6, unique=True))
        species = [draw(st.sampled_from(DRAWN_SPECIES)) for _ in places]
        crystal = Structure(
            Lattice.from_parameters(*lengths, *angles), species, np.array(places) / 12
        )
        shortest = float(crystal.get_neighbor_list(r=6.5)[3].min())
        crystal.scale_lattice(crystal.volume * max(1.0, SHORTEST_DISTANCE / shortest) ** 3)
        return crystal

    return crystals()


@pytest.fixture(scope="session")
def as_json() -> Callable[[Any], str]:
    """``as_json(structure)``: what a table's column ``structure`` holds."""
    return lambda structure: json.dumps(structure.as_dict())
