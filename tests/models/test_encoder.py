"""Features of atoms: equivariance, and independence of everything that is not the crystal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.encoder import Encoder, rank2_basis, supported_elements
from models.settings import EncoderName
from screening.errors import UserError
from screening.symmetry import Cell, cell_of

SINGLE_PRECISION = 3e-4
"""Relative to the features of the crystal, or to ordinary ones where symmetry makes them vanish."""
CRUSHED = 5e-3
"""The same for drawn crystals, some of which have atoms much too close to each other: an atom of
zirconium in 10 Å³ reaches 2.4e-3 on one processor and not on another."""
NO_SHRINKING = (Phase.explicit, Phase.generate)
"""A smaller example is not worth the minutes that the encoder takes to find it."""
ORDINARY = (1.0, 0.1, 0.1)
"""Size of scalars, vectors and rank-2 tensors."""
CRYSTALS = ("rutile", "quartz", "Te", "I2", "zincblende", "wurtzite", "baddeleyite", "MoS2")


@pytest.fixture(scope="module", params=get_args(EncoderName))
def encoder(request: pytest.FixtureRequest, cache: Any) -> Encoder:
    """Both potentials."""
    return cache.encoder if request.param == cache.encoder_name else Encoder(request.param)


def rank2_rotation(rotation: np.ndarray) -> np.ndarray:
    """Matrix (5, 5) that turns the components of a symmetric traceless matrix."""
    basis = rank2_basis().numpy()
    return np.einsum("aij,ik,jl,bkl->ab", basis, rotation, rotation, basis)


def parts(encoder: Encoder, rows: np.ndarray) -> list[np.ndarray]:
    return [x.numpy() for x in encoder.layout.split(torch.from_numpy(rows).double())]


def error(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    sizes = [max(np.abs(e).max(), least) for e, least in zip(expected, ORDINARY, strict=True)]
    return max(
        float(np.abs(f - e).max() / size) for f, e, size in zip(found, expected, sizes, strict=True)
    )


def encode(encoder: Encoder, structure: Any) -> list[np.ndarray]:
    return parts(encoder, encoder.encode([cell_of(structure)])[0])


def assert_equivariant(
    encoder: Encoder,
    crystal: Any,
    image: Any,
    matrix: np.ndarray,
    tolerance: float = SINGLE_PRECISION,
) -> None:
    scalars, vectors, tensors = encode(encoder, crystal)
    expected = [scalars, vectors @ matrix.T, tensors @ rank2_rotation(matrix).T]
    assert error(encode(encoder, image), expected) < tolerance


def test_rank2_components_are_those_of_e3nn(rotation: Callable[..., np.ndarray]) -> None:
    from e3nn import o3

    basis = rank2_basis().numpy()
    assert np.allclose(basis, np.swapaxes(basis, 1, 2))
    assert np.allclose(np.trace(basis, axis1=1, axis2=2), 0)
    assert np.allclose(np.einsum("aij,bij->ab", basis, basis), np.eye(5))
    for improper in (False, True):
        matrix = rotation(5, improper)
        expected = o3.Irrep("2e").D_from_matrix(torch.as_tensor(matrix)).numpy()
        assert np.allclose(rank2_rotation(matrix), expected, atol=1e-6)


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("name", CRYSTALS)
def test_features_turn_with_the_crystal(
    name: str,
    improper: bool,
    encoder: Encoder,
    prototypes: dict[str, Any],
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
) -> None:
    matrix = rotation(len(name), improper)
    crystal = prototypes[name]
    assert_equivariant(encoder, crystal, turned(crystal, matrix), matrix)


@settings(max_examples=40, phases=NO_SHRINKING)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), improper=st.booleans())
def test_features_of_drawn_crystals_turn_with_them(
    data: st.DataObject,
    seed: int,
    improper: bool,
    drawn_crystals: st.SearchStrategy[Any],
    cache: Any,
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
) -> None:
    matrix, crystal = rotation(seed, improper), data.draw(drawn_crystals)
    image = turned(crystal, matrix)
    assert_equivariant(cache.encoder, crystal, image, matrix, CRUSHED)


def test_features_tell_directions_apart(encoder: Encoder, prototypes: dict[str, Any]) -> None:
    """Guards the tests of equivariance: features that vanish would pass them."""
    _, vectors, tensors = encode(encoder, prototypes["baddeleyite"])
    assert np.sqrt((vectors**2).mean()) > 0.02
    assert np.sqrt((tensors**2).mean()) > 0.02
    # An atom at an inversion centre has no polar vector.
    _, vectors, _ = encode(encoder, prototypes["NaCl"])
    assert np.abs(vectors).max() < 1e-4


def test_mirror_images_of_a_chiral_crystal_have_the_same_scalars(
    encoder: Encoder, prototypes: dict[str, Any], turned: Callable[..., Any]
) -> None:
    """SevenNet alone sees a difference here; the even part does not."""
    left = encode(encoder, prototypes["Te"])
    right = encode(encoder, turned(prototypes["Te"], -np.eye(3)))
    assert error([right[0], -right[1], right[2]], left) < SINGLE_PRECISION


def test_atoms_of_a_supercell_have_the_features_of_the_cell_s(
    encoder: Encoder, prototypes: dict[str, Any]
) -> None:
    cell = prototypes["rutile"]
    supercell = cell * [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
    # Where an atom of the supercell lies in the small cell says which atom it is.
    places = cell.lattice.get_fractional_coords(supercell.cart_coords)[:, None]
    difference = places - cell.frac_coords
    original = np.abs(difference - np.round(difference)).max(axis=-1).argmin(axis=1)
    expected = [part[original] for part in encode(encoder, cell)]
    assert error(encode(encoder, supercell), expected) < SINGLE_PRECISION


def test_features_do_not_depend_on_what_else_is_in_the_batch(
    encoder: Encoder, prototypes: dict[str, Any]
) -> None:
    cells = [cell_of(prototypes[name]) for name in CRYSTALS]
    together = encoder.encode(cells)
    assert [len(rows) for rows in together] == [len(cell[2]) for cell in cells]
    for cell, rows in zip(cells, together, strict=True):
        alone = encoder.encode([cell])[0]
        assert error(parts(encoder, rows), parts(encoder, alone)) < SINGLE_PRECISION


def test_a_moved_atom_and_another_element_are_seen(
    encoder: Encoder, prototypes: dict[str, Any]
) -> None:
    first = encode(encoder, prototypes["rutile"])
    moved = prototypes["rutile"].copy()
    moved.translate_sites([2], [0.01, 0, 0])
    other = prototypes["rutile"].copy()
    other.replace(0, "Zr")
    for changed in (moved, other):
        assert error(encode(encoder, changed), first) > 1e-2


def test_an_unknown_element_is_named(encoder: Encoder) -> None:
    lattice = 3.3 * np.eye(3)
    polonium: Cell = (lattice, np.zeros((1, 3)), np.array([84]))
    mixed: Cell = (2 * lattice, np.array([[0.0] * 3, [0.5] * 3]), np.array([84, 8]))
    assert "Po" not in supported_elements(encoder.name)
    for cell, crystal in ((polonium, "of Po;"), (mixed, "of O-Po;")):
        with pytest.raises(UserError, match=f"element Po of a crystal {crystal}"):
            encoder.encode([cell])


def test_supported_elements_are_those_of_the_checkpoint(encoder: Encoder) -> None:
    from pymatgen.core import Element
    from sevenn.util import load_checkpoint

    numbers = load_checkpoint(encoder.name).config["_type_map"]
    found = {Element.from_Z(int(z)).symbol for z in numbers}
    assert supported_elements(encoder.name) == found


def test_all_supported_elements_can_be_encoded(encoder: Encoder) -> None:
    from pymatgen.core import Element

    symbols = supported_elements(encoder.name)
    assert {"H", "O", "Si", "Pb", "U"} < symbols
    numbers = [Element(symbol).Z for symbol in symbols]
    cells: list[Cell] = [(4.2 * np.eye(3), np.zeros((1, 3)), np.array([z])) for z in numbers]
    assert all(np.isfinite(rows).all() for rows in encoder.encode(cells))
