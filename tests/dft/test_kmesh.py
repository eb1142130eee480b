"""Meshes of k-points: as fine as asked, whole under the point group, the same for every cell."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from spglib import get_ir_reciprocal_mesh

from dft.kmesh import Mesh, conventional, mesh_of, rotations_of
from screening.prototypes import Crystal, crystals
from screening.symmetry import cell_of

PROTOTYPES = {crystal.prototype: crystal for crystal in crystals()}


@pytest.mark.parametrize("crystal", PROTOTYPES.values(), ids=PROTOTYPES)
def test_every_structure_type_has_a_mesh_that_its_point_group_keeps(crystal: Crystal) -> None:
    structure = crystal.structure()
    rotations = rotations_of(structure)
    for shifted in (True, False):
        mesh = mesh_of(structure, 0.5, shifted=shifted)
        points = mesh.points() / (2 * len(mesh))
        assert len(points) == len(mesh)
        # Every operation leads from every point to a point.
        known = {tuple(row) for row in np.rint(points * 2 * len(mesh)).astype(int)}
        for rotation in rotations:
            turned = np.rint(points @ rotation * 2 * len(mesh)).astype(int) % (2 * len(mesh))
            assert {tuple(row) for row in turned} == known
        assert mesh.keeps(rotations)
        assert ((0, 0, 0) in known) == (not any(mesh.shift))
    assert any(mesh_of(structure, 0.5).shift)


@pytest.mark.parametrize("spacing", [0.25, 0.44, 0.8])
def test_as_fine_as_asked_along_the_axes_of_the_conventional_cell(spacing: float) -> None:
    for crystal in PROTOTYPES.values():
        structure = crystal.structure()
        mesh = mesh_of(structure, spacing)
        axes = Lattice(conventional(structure) @ structure.lattice.matrix).reciprocal_lattice.abc
        for length, n in zip(axes, mesh.divisions, strict=True):
            assert length / n <= spacing * (1 + 1e-5)
            assert n == 1 or length / (n - 1) > spacing * (1 - 1e-5)


def test_the_same_points_in_space_whatever_cell_describes_a_crystal() -> None:
    """Rock salt: three cells of the same lattice."""
    first = PROTOTYPES["rocksalt"].structure()
    cells = ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
             [[0, 1, 0], [1, 0, 0], [1, 0, 1]])  # fmt: skip
    reciprocal = np.linalg.inv(first.lattice.matrix)
    expected = None
    for matrix in cells:
        lattice = Lattice(np.array(matrix) @ first.lattice.matrix)
        other = Structure(lattice, first.species, first.cart_coords, coords_are_cartesian=True)
        mesh = mesh_of(other, 0.6)
        fractions = mesh.points() / (2 * len(mesh))
        cartesian = fractions @ np.linalg.inv(lattice.matrix).T
        found = np.rint(cartesian @ np.linalg.inv(reciprocal.T) * 2 * len(mesh)) % (2 * len(mesh))
        rows = {tuple(row) for row in found.astype(int)}
        expected = expected or rows
        assert rows == expected


SURFACE = {
    "rocksalt": [(1 / 2, 1 / 2, 1 / 2), (1 / 2, 1 / 2, 0)],
    "CsCl": [(1 / 2, 0, 0), (1 / 2, 1 / 2, 0), (1 / 2, 1 / 2, 1 / 2)],
    "wurtzite": [(1 / 2, 0, 0), (1 / 3, 1 / 3, 0), (0, 0, 1 / 2), (1 / 3, 1 / 3, 1 / 2)],
    "rutile": [(1 / 2, 1 / 2, 0), (1 / 2, 1 / 2, 1 / 2), (0, 0, 1 / 2)],
    "CdCl2": [(1 / 2, 1 / 2, 1 / 2), (1 / 2, 0, 0)],
}
"""L and X; X, M and R; M, K, A and H; M, A and Z; Z and L, in vectors of the primitive cell."""


@pytest.mark.parametrize("prototype", SURFACE)
@pytest.mark.parametrize("spacing", [0.3, 0.44, 0.6, 0.9])
def test_the_mesh_for_the_gap_has_the_points_where_band_edges_lie(
    prototype: str, spacing: float
) -> None:
    """Lead sulphide's gap is at L: 0.35 eV, and 2.2 eV on a mesh of odd divisions."""
    mesh = mesh_of(PROTOTYPES[prototype].structure(), spacing, shifted=False)
    period = 2 * len(mesh)
    known = {tuple(row) for row in mesh.points()}
    for point in [(0.0, 0.0, 0.0), *SURFACE[prototype]]:
        asked = np.array(point) * period
        assert np.allclose(asked, asked.round())
        assert tuple(asked.round().astype(int) % period) in known, point
    shifted = mesh_of(PROTOTYPES[prototype].structure(), spacing)
    assert all(g >= s for g, s in zip(mesh.divisions, shifted.divisions, strict=True))


def test_irreducible_points_are_those_of_spglib_around_gamma() -> None:
    """spglib's meshes lie along the vectors of the cell; where that cell is the conventional one,
    they are ours."""
    for name in ("CsCl", "wurtzite", "rutile", "matlockite", "CdI2", "SnS"):
        structure = PROTOTYPES[name].structure()
        mesh = mesh_of(structure, 0.4, shifted=False)
        assert np.array_equal(np.abs(mesh.superlattice), np.diag(mesh.divisions))
        mapping, _ = get_ir_reciprocal_mesh(mesh.divisions, cell_of(structure), symprec=0.01)
        assert mesh.irreducible(rotations_of(structure)) == len(np.unique(mapping))


def test_special_points_of_the_face_centred_lattice() -> None:
    """The 2, 6 and 10 special points of D. J. Chadi and M. L. Cohen, Phys. Rev. B 8, 5747 (1973),
    and of Monkhorst and Pack: steps of 1/2, 1/3 and 1/4 along the cube."""
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()
    for n, total, special in ((2, 32, 2), (3, 108, 6), (4, 256, 10)):
        mesh = mesh_of(salt, 2 * np.pi / 5.64 / n * 1.001)
        assert str(mesh) == f"{n}×{n}×{n} shifted" and len(mesh) == total
        assert mesh.irreducible(rotations_of(salt)) == special


def test_a_mesh_that_the_group_does_not_keep_is_halved_by_time_reversal_alone() -> None:
    salt = PROTOTYPES["CsCl"].structure()
    mesh = Mesh.around_gamma((4, 3, 2))
    assert not mesh.keeps(rotations_of(salt))
    assert mesh.irreducible(rotations_of(salt)) == 12
    supercell = salt * (1, 1, 2)
    assert mesh_of(supercell, 0.5).keeps(rotations_of(supercell))
