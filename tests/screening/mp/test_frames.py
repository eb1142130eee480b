"""Tensors come back from the IEEE frame into whatever frame the structure has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from screening.errors import UserError
from screening.mp.frames import (
    UnplaceableError,
    averaged_group,
    crystal_system,
    elements_left,
    independent_elements,
    place,
    rotate_back,
)
from screening.tensors import read_tensor


def ieee(tensors: np.ndarray, structure: Any) -> np.ndarray:
    from pymatgen.core.tensors import Tensor

    turned = [Tensor(t).convert_to_ieee(structure, initial_fit=False) for t in tensors]
    return np.array([np.asarray(t) for t in turned])


@pytest.fixture(scope="session")
def orthorhombic() -> Callable[[float, float, float], Any]:
    from pymatgen.core import Lattice, Structure

    def make(a: float, b: float, c: float) -> Any:
        return Structure.from_spacegroup(
            "Pmm2", Lattice.orthorhombic(a, b, c), ["Na", "Cl"], [[0, 0, 0], [0.5, 0, 0.4]]
        )

    return make


@pytest.mark.parametrize("seed", [0, 1])
def test_real_tensors_return_in_any_orientation(
    seed: int, low_symmetry: dict[str, Any], rotation: Callable[..., Any], turned: Any
) -> None:
    naive = 0
    for known in low_symmetry.values():
        structure, tensors = known.material.structure, known.tensors
        own = np.array([tensors.electronic, tensors.ionic])
        stored = ieee(own, structure)
        turn = rotation(seed, False) if seed else np.eye(3)
        other = turned(structure, turn)
        wanted = turn @ own @ turn.T
        found = place(stored, other, True)
        assert np.abs(found - wanted).max() < 1e-6 * np.abs(wanted).max(), known.material
        for tensor in found:
            read_tensor(tensor, other, "a tensor")
        naive += bool(np.abs(stored - wanted).max() > 0.05 * np.abs(wanted).max())
    assert naive >= len(low_symmetry) // 3


def test_tensors_survive_a_rotation_that_the_structure_does_not_show(
    prototypes: dict[str, Any], turned: Any, rotation: Callable[..., Any]
) -> None:
    structure = prototypes["baddeleyite"]
    tensor = np.array([[20.0, 0.0, 2.5], [0.0, 17.0, 0.0], [2.5, 0.0, 12.0]])
    stored = ieee(tensor[None], structure)
    for seed in range(1, 5):
        turn = rotation(seed, False)
        found = place(stored, turned(structure, turn), True)[0]
        assert found == pytest.approx(turn @ tensor @ turn.T, abs=1e-9)


@pytest.mark.parametrize(("b", "same"), [(5.00004, True), (5.03, False)])
def test_near_ties_are_refused_where_they_matter(
    b: float, same: bool, orthorhombic: Callable[..., Any]
) -> None:
    structure = orthorhombic(5.0, b, 7.0)
    with pytest.raises(UnplaceableError, match="nearly tie"):
        place(np.diag([3.0, 4.0, 5.0])[None], structure, same)
    swapped = ieee(np.diag([3.0, 3.0, 5.0])[None], structure)
    assert place(swapped, structure, same)[0] == pytest.approx(np.diag([3.0, 3.0, 5.0]))
    clear = orthorhombic(5.0, 5.6, 7.0)
    stored = ieee(np.diag([3.0, 4.0, 5.0])[None], clear)
    assert place(stored, clear, same)[0] == pytest.approx(np.diag([3.0, 4.0, 5.0]))


def test_the_same_structure_may_nearly_tie(orthorhombic: Callable[..., Any]) -> None:
    structure = orthorhombic(5.0, 5.03, 7.0)
    stored = ieee(np.diag([3.0, 4.0, 5.0])[None], structure)
    assert place(stored, structure, True)[0] == pytest.approx(np.diag([3.0, 4.0, 5.0]))


def test_exact_ties_have_no_frame(orthorhombic: Callable[..., Any]) -> None:
    with pytest.raises(UnplaceableError):
        place(np.diag([3.0, 4.0, 5.0])[None], orthorhombic(5.0, 5.0, 7.0), True)


def test_monoclinic_angles_near_ninety() -> None:
    from pymatgen.core import Lattice, Structure

    def make(beta: float) -> Any:
        lattice = Lattice.monoclinic(5.0, 6.0, 7.0, beta)
        places = [[0.1, 0.2, 0.3], [0.6, 0.1, 0.8]]
        return Structure.from_spacegroup("P2_1/c", lattice, ["Na", "Cl"], places)

    tensor = np.array([[5.0, 0.0, 1.0], [0.0, 4.0, 0.0], [1.0, 0.0, 3.0]])
    with pytest.raises(UnplaceableError, match="nearly tie"):
        place(ieee(tensor[None], make(90.3)), make(90.3), False)
    clear = make(99.0)
    assert place(ieee(tensor[None], clear), clear, False)[0] == pytest.approx(tensor)


def test_crystal_systems() -> None:
    from pymatgen.symmetry.groups import SpaceGroup

    for number in range(1, 231):
        expected = SpaceGroup.from_int_number(number).crystal_system
        assert crystal_system(number) == expected
    numbers = (2, 15, 74, 99, 150, 191, 225)
    assert [independent_elements(n) for n in numbers] == [6, 4, 3, 2, 2, 2, 1]


def test_elements_left_are_those_of_the_crystal_system(prototypes: dict[str, Any]) -> None:
    """Counted from the operations, and from the number of the space group."""
    found = {n: elements_left(s) for n, s in prototypes.items()}
    assert found == {n: independent_elements(averaged_group(s)) for n, s in prototypes.items()}
    assert set(found.values()) >= {1, 2, 3, 4}


def test_a_rotation_that_is_nearly_one_is_undone_exactly() -> None:
    rotation = np.eye(3) + 1e-6 * np.arange(9).reshape(3, 3)
    tensor = np.array([[5.0, 0.0, 1.0], [0.0, 4.0, 0.0], [1.0, 0.0, 3.0]])
    back = rotate_back((rotation @ tensor @ rotation.T)[None], rotation)[0]
    assert back == pytest.approx(tensor, abs=1e-14)


def test_a_tensor_in_a_wrong_frame_does_not_pass(
    prototypes: dict[str, Any], turned: Any, rotation: Callable[..., Any]
) -> None:
    structure = turned(prototypes["rutile"], rotation(3, False))
    with pytest.raises(UserError, match="not invariant under the point group"):
        read_tensor(np.diag([6.0, 6.0, 9.0]), structure, "a naive tensor")
