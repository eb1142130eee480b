"""Recognising a crystal again, and keeping polymorphs apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from screening.identity import CrystalIndex
from screening.material import Material

STRAIN = 0.01


def scaled(structure: Any, strain: float) -> Any:
    copy = structure.copy()
    copy.apply_strain(strain)
    return copy


@pytest.mark.parametrize(
    "name",
    ["NaCl", "zincblende", "wurtzite", "rutile", "anatase", "quartz", "baddeleyite", "Te", "MoS2",
     "I2", "K2PtCl6", "SrTiO3"],
)  # fmt: skip
def test_a_crystal_is_recognised_in_any_description(
    name: str,
    prototypes: dict[str, Any],
    described_anew: Callable[..., dict[str, Any]],
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
) -> None:
    crystal = prototypes[name]
    index = CrystalIndex([Material(name, crystal)])
    others = {
        **described_anew(crystal, 3),
        "turned": turned(crystal, rotation(1, False)),
        "mirrored": turned(crystal, rotation(2, True)),
        "larger": scaled(crystal, STRAIN),
        "smaller": scaled(crystal, -STRAIN),
        "all at once": turned(
            scaled(described_anew(crystal, 4)["everything"], STRAIN), rotation(5, False)
        ),
    }
    for how, other in others.items():
        assert Material(how, other) in index, how


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), improper=st.booleans())
def test_a_drawn_crystal_is_recognised(
    data: st.DataObject,
    seed: int,
    improper: bool,
    drawn_crystals: st.SearchStrategy[Any],
    described_anew: Callable[..., dict[str, Any]],
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
) -> None:
    crystal = data.draw(drawn_crystals)
    index = CrystalIndex([Material("first", crystal)])
    anew = described_anew(crystal, seed)
    for other in (anew["everything"], turned(anew["niggli"], rotation(seed, improper))):
        assert Material("again", scaled(other, STRAIN)) in index


def test_charges_that_a_file_gives_do_not_matter(
    prototypes: dict[str, Any], rotation: Callable[..., np.ndarray], turned: Callable[..., Any]
) -> None:
    charged = turned(prototypes["rutile"], rotation(7, False))
    charged.add_oxidation_state_by_element({"Ti": 4, "O": -2})
    assert Material("charged", charged) in CrystalIndex([Material("plain", prototypes["rutile"])])
    assert Material("plain", prototypes["rutile"]) in CrystalIndex([Material("charged", charged)])


def test_all_prototypes_are_different_crystals(prototypes: dict[str, Any]) -> None:
    """Rutile and anatase, zincblende and wurtzite are among them."""
    materials = {name: Material(name, structure) for name, structure in prototypes.items()}
    for first, second in itertools.permutations(materials, 2):
        assert materials[first] not in CrystalIndex([materials[second]]), (first, second)


def close_polymorphs(prototypes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    from pymatgen.core import Lattice, Structure

    off_centre = prototypes["SrTiO3"].copy()
    off_centre.translate_sites([1], [0, 0, 0.05])
    stretched = prototypes["SrTiO3"].copy()
    stretched.apply_strain([0, 0, 0.03])
    salt, chloride = prototypes["NaCl"], prototypes["CsCl"].copy()
    chloride.replace_species({"Cs": "Na"})
    chloride.scale_lattice(salt.volume)
    swapped = Structure(salt.lattice, ["Cl", "Na"], salt.frac_coords)
    pyrite = Structure.from_spacegroup(
        "Pa-3", Lattice.cubic(5.624), ["C", "O"], [[0, 0, 0], [0.385] * 3]
    )
    diamond = Structure.from_spacegroup("Fd-3m", Lattice.cubic(3.567), ["C"], [[0, 0, 0]])
    return {
        "cubic and ferroelectric perovskite": (prototypes["SrTiO3"], off_centre),
        "cubic and tetragonal perovskite": (prototypes["SrTiO3"], stretched),
        "rock salt and CsCl type": (salt, chloride),
        "graphite and diamond": (prototypes["graphite"], diamond),
        "dry ice and pyrite, one space group": (prototypes["CO2"], pyrite),
        "another element": (salt, salt.copy().replace_species({"Na": "K"})),
        "zincblende and wurtzite": (prototypes["zincblende"], prototypes["wurtzite"]),
        "rutile and anatase": (prototypes["rutile"], prototypes["anatase"]),
        "the same, as a guard": (salt, swapped),
    }


def test_close_polymorphs_stay_apart(prototypes: dict[str, Any]) -> None:
    found = {
        name: Material("b", second) in CrystalIndex([Material("a", first)])
        for name, (first, second) in close_polymorphs(prototypes).items()
    }
    assert found.pop("the same, as a guard")
    assert not any(found.values()), found


def test_an_id_counts_where_the_space_group_is_the_same(prototypes: dict[str, Any]) -> None:
    """Layers may be further apart by another functional; polymorphs may carry one id by mistake."""
    wider = prototypes["MoS2"].copy()
    wider.apply_strain([0, 0, 0.12])
    index = CrystalIndex(
        [Material("mp-1", prototypes["MoS2"]), Material("mp-2", prototypes["rutile"])]
    )
    assert Material("mp-1", wider) in index
    assert Material("mp-3", wider) not in index
    assert Material("mp-2", prototypes["anatase"]) not in index


def test_an_index_remembers_what_is_added(prototypes: dict[str, Any]) -> None:
    index = CrystalIndex()
    salt, rutile = (Material(n, prototypes[n]) for n in ("NaCl", "rutile"))
    assert salt not in index
    index.add(salt)
    assert salt in index
    assert rutile not in index
    index.add(rutile)
    assert rutile in index
    assert salt in index
