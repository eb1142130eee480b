"""Fields along a few directions, and what the space group makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Structure

from dft.abinit_symmetry import Operations, completed
from screening.symmetry import cell_of, crystal_operations

TURN = 2 * np.pi


def operations_of(structure: Structure) -> Operations:
    """As ABINIT would list them, found by another program."""
    rotations, permutations = crystal_operations(cell_of(structure))
    columns = structure.lattice.matrix.T
    return Operations(np.linalg.inv(columns) @ rotations @ columns, permutations.argsort(axis=1))


def true_response(structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Charges and susceptibility that the crystal's symmetry allows, in reduced coordinates.

    Made in the Cartesian frame, from the Cartesian operations.
    """
    draw = np.random.default_rng(0)
    rotations, permutations = crystal_operations(cell_of(structure))
    charges, field = draw.normal(size=(len(structure), 3, 3)), draw.normal(size=(3, 3))
    turned = np.zeros_like(charges)
    for rotation, places in zip(rotations, permutations, strict=True):
        turned[places] += rotation @ charges @ rotation.T / len(rotations)
    symmetric = np.mean([R @ (field + field.T) @ R.T for R in rotations], axis=0)
    lattice = structure.lattice.matrix
    reciprocal = TURN * np.linalg.inv(lattice).T
    return lattice @ turned @ reciprocal.T, reciprocal @ symmetric @ reciprocal.T


def test_fewer_directions_where_symmetry_makes_the_others(
    prototypes: dict[str, Structure],
) -> None:
    chosen = {name: operations_of(crystal).directions() for name, crystal in prototypes.items()}
    assert chosen["NaCl"] == chosen["zincblende"] == chosen["SrTiO3"] == (0,)
    assert chosen["wurtzite"] == chosen["rutile"] == (0, 2)
    nothing = Operations(np.eye(3)[None], np.arange(4)[None])
    assert nothing.directions() == (0, 1, 2)


def test_the_missing_directions_come_back(prototypes: dict[str, Structure]) -> None:
    saved = 0
    for structure in prototypes.values():
        operations = operations_of(structure)
        along = operations.directions()
        charges, susceptibility = true_response(structure)
        wrong = [d for d in range(3) if d not in along]
        saved += len(wrong)
        given, between = charges.copy(), susceptibility.copy()
        given[:, :, wrong] = 17.0
        between[wrong], between[:, wrong] = 17.0, 17.0
        operations.complete(given, between, along)
        assert np.abs(given - charges).max() < 1e-9 * np.abs(charges).max()
        assert np.abs(between - susceptibility).max() < 1e-9 * np.abs(susceptibility).max()
    assert saved > len(prototypes) / 2


def database(charges: np.ndarray, susceptibility: np.ndarray, along: tuple[int, ...]) -> str:
    """A derivative database as ABINIT leaves it: 0 for other fields, or nothing at all."""
    field = len(charges) + 2
    rows = ["   1   1   2   2 -0.18111193875582D+01  0.00000000000000D+00"]
    for d in range(3):
        for c in range(3):
            value = susceptibility[c, d] if c in along and d in along else 0.0
            rows.append(f"{c + 1:4}{field:4}{d + 1:4}{field:4}{value:22.14E}{0:22.14E}")
        for atom in range(len(charges)) if d in along else ():
            for a in range(3):
                value = charges[atom, a, d]
                rows.append(f"{a + 1:4}{atom + 1:4}{d + 1:4}{field:4}{value:22.14E}{0:22.14E}")
    block = "\n".join(row.replace("E", "D") for row in rows)
    return (
        " **** Database of total energy derivatives ****\n Number of data blocks=    1\n\n"
        f" 2nd derivatives (non-stat.)  - # elements :{len(rows):8}\n"
        f" qpt  0.00000000E+00  0.00000000E+00  0.00000000E+00   1.0\n{block}\n"
    )


@pytest.mark.parametrize("name", ["SrTiO3", "wurtzite"])
def test_a_database_is_completed(prototypes: dict[str, Structure], name: str) -> None:
    structure = prototypes[name]
    operations = operations_of(structure)
    along = operations.directions()
    charges, susceptibility = true_response(structure)
    text = completed(database(charges, susceptibility, along), operations, along)
    head, point, *rows = text.partition(" 2nd")[2].splitlines()
    entries = {tuple(map(int, row.split()[:4])): float(row.split()[4].replace("D", "E"))
               for row in rows}  # fmt: skip
    assert int(head.split()[-1]) == len(rows) == len(entries) and point.startswith(" qpt")
    assert entries[1, 1, 2, 2] == -0.18111193875582e01
    field = len(structure) + 2
    for d in range(3):
        for a in range(3):
            assert entries[a + 1, field, d + 1, field] == pytest.approx(susceptibility[a, d])
            for atom, charge in enumerate(charges, 1):
                there, back = (a + 1, atom, d + 1, field), (d + 1, field, a + 1, atom)
                assert entries[there] == entries[back] == pytest.approx(charge[a, d], abs=1e-9)


def test_what_is_complete_stays(prototypes: dict[str, Structure]) -> None:
    structure = prototypes["wurtzite"]
    text = database(*true_response(structure), (0, 1, 2))
    assert completed(text, operations_of(structure), (0, 1, 2)) == text
