"""Materials and the identity of their structures as written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from screening.errors import UserError
from screening.material import Material, structure_hash


def test_text_and_object_are_the_same_material(
    prototypes: dict[str, Any], as_json: Callable[[Any], str]
) -> None:
    for name, structure in prototypes.items():
        first, second = Material(name, structure), Material(name, as_json(structure))
        assert first.structure_hash == second.structure_hash == structure_hash(structure)
        assert first.formula == second.formula == structure.composition.reduced_formula
        assert first.n_sites == second.n_sites == len(structure)
        assert first.elements == tuple(sorted({s.symbol for s in structure.species}))


@given(
    gap=st.none() | st.floats(0, 20),
    hull=st.none() | st.floats(0, 1),
    source=st.text(max_size=20),
)
def test_json_round_trip(
    gap: float | None, hull: float | None, source: str, prototypes: dict[str, Any]
) -> None:
    material = Material(
        "x", prototypes["quartz"], band_gap=gap, energy_above_hull=hull, source=source
    )
    again = Material.from_dict(json.loads(json.dumps(material.to_dict())))
    assert again.to_dict() == material.to_dict()
    assert again.structure_hash == material.structure_hash
    assert np.array_equal(again.structure.frac_coords, material.structure.frac_coords)


def test_hashes_are_32_hexadecimal_digits_and_differ(prototypes: dict[str, Any]) -> None:
    hashes = {structure_hash(s) for s in prototypes.values()}
    assert len(hashes) == len(prototypes)
    assert all(len(h) == 32 and set(h) <= set("0123456789abcdef") for h in hashes)


@given(seed=st.integers(0, 2**31 - 1))
def test_the_hash_does_not_see_the_last_digits(seed: int, prototypes: dict[str, Any]) -> None:
    from pymatgen.core import Lattice, Structure

    random = np.random.default_rng(seed)
    for name in ("NaCl", "rutile", "quartz"):
        s = prototypes[name]
        noise = 1e-10 * random.normal(size=s.frac_coords.shape)
        whole_cells = random.integers(-2, 3, size=s.frac_coords.shape)
        lattice = Lattice(s.lattice.matrix + 1e-10 * random.normal(size=(3, 3)))
        moved = Structure(lattice, s.species, s.frac_coords + noise + whole_cells)
        assert structure_hash(moved) == structure_hash(s)


def test_the_hash_sees_what_a_tensor_depends_on(
    prototypes: dict[str, Any],
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
    described_anew: Callable[..., dict[str, Any]],
) -> None:
    rutile = prototypes["rutile"]
    moved, replaced = rutile.copy(), rutile.copy()
    moved.translate_sites([2], [1e-4, 0, 0])
    replaced.replace(0, "Sn")
    others = [
        moved,
        replaced,
        turned(rutile, rotation(0, False)),
        *described_anew(rutile, 0).values(),
    ]
    assert len({structure_hash(s) for s in [rutile, *others]}) == 1 + len(others)


def test_elements_come_from_the_formula_without_parsing() -> None:
    material = Material("x", "no structure", formula="Ba(TiO3)2", n_sites=9)
    assert material.elements == ("Ba", "O", "Ti")
    with pytest.raises(UserError, match="The structure of x"):
        _ = material.structure


def test_disorder_is_refused() -> None:
    from pymatgen.core import Lattice, Structure

    mixed = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0] * 3, [0.5] * 3])
    with pytest.raises(UserError, match=r"structure of mixed.*ordered approximant"):
        Material("mixed", mixed)
