"""A handful of known crystals: the shipped network for Born charges does what they cannot teach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import files
from models.cache import FeatureCache, ForceConstantCache
from models.ensemble import Ensemble
from models.fitting import fit, usable
from models.inputs import Examples
from models.settings import ModelSettings
from models.shipped import shipped
from screening.material import KnownMaterial
from screening.tensors import mean_permittivity

Named = Callable[[str], list[KnownMaterial]]

KNOWN = "MgO LiF NaF KF RbF LiCl NaCl KBr CsCl NaI LiI CaS BaS BeS"
ASKED = "CaO RbI Li2S LiBr AgCl"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Features of the encoder that the shipped network is for."""
    return FeatureCache("7net-l3i5", tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="module")
def few(named: Named, large: FeatureCache) -> Ensemble:
    settings = ModelSettings(members=2, min_steps=60, max_steps=60, batch_size=8, device="cpu")
    return fit(named(KNOWN), settings, 0, large)


def test_the_ionic_part_comes_from_the_estimate(
    named: Named, few: Ensemble, large: FeatureCache
) -> None:
    asked = named(ASKED)
    structures = [k.material.structure for k in asked]
    gaps = [k.material.band_gap for k in asked]
    true = mean_permittivity(np.stack([k.tensors.ionic for k in asked]))
    errors = []
    for physics in (ForceConstantCache.beside(large), None):
        found = few.predict(structures, "PBE", large, band_gaps=gaps, force_constants=physics)
        assert found.physical.all() if physics is not None else not found.physical.any()
        errors.append(np.abs(np.log(mean_permittivity(found.central("ionic")) / true)))
    assert errors[0].mean() < 0.25
    assert errors[0].mean() < 0.6 * errors[1].mean()


def test_its_charges_are_those_of_the_shipped_network(
    named: Named, few: Ensemble, large: FeatureCache, tmp_path: Path
) -> None:
    structures = [k.material.structure for k in named(ASKED)]
    own, theirs = (
        e.born_charges(e.examples(structures, ["PBE"] * len(structures), large))
        for e in (few, shipped())
    )
    assert all(len(charges) == shipped().settings.members for charges in own)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(own, theirs, strict=True))
    files.save(few, tmp_path)
    again = files.load(tmp_path)
    physics = ForceConstantCache.beside(large)
    before, after = (
        e.predict(structures, "PBE", large, force_constants=physics) for e in (few, again)
    )
    assert np.array_equal(before.static, after.static)


def test_it_is_for_its_own_encoder_alone(trained: Ensemble) -> None:
    assert trained.settings.encoder != shipped().settings.encoder and not trained.has_physics


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many members' charges the estimates rest on, where a few crystals are enough to learn."""
    found: list[int] = []
    original = Examples.add_physics

    def watched(self: Examples, born: Any, *rest: Any) -> None:
        found.extend(len(charges) for charges in born)
        original(self, born, *rest)

    monkeypatch.setattr(Examples, "add_physics", watched)
    monkeypatch.setattr("models.fitting.ENOUGH_BORN", 8)
    return found


def test_who_knows_enough_charges_learns_them(
    named: Named, quick: ModelSettings, cache: FeatureCache, given: list[int]
) -> None:
    """Every crystal's estimate then rests on the one member that has not seen its charges."""
    known = named(KNOWN)
    own = fit(known, quick, 0, cache)
    assert own.born is not None and own.born.normalise is own.normalise
    assert given.count(1) >= 8 and set(given) <= {1, quick.members}
    structures = [k.material.structure for k in known]
    for charges in own.born_charges(own.examples(structures, ["PBE"] * len(known), cache)):
        assert len(charges) == quick.members and np.allclose(charges.sum(axis=1), 0, atol=1e-5)
        assert np.abs(charges).max() > 0.5


def test_who_shares_a_composition_shares_who_has_not_seen_it(
    named: Named, quick: ModelSettings, cache: FeatureCache, given: list[int]
) -> None:
    """Records without charges: twins in another functional, and the very first crystal."""
    first, *others = usable(named(KNOWN))
    bare = [
        replace(k, functional=functional, extras={})
        for k, functional in [(first, "PBE"), *((k, "PBEsol") for k in others)]
    ]
    ordered = usable([*others, *bare])
    assert ordered[0] is bare[0]
    own = fit(ordered, quick, 0, cache)
    assert own.born is not None
    assert all(torch.isfinite(weights).all() for weights in own.born.readout.parameters())
    assert all(torch.isfinite(weights).all() for weights in own.readout.parameters())
    members = dict(
        zip(((k.material.structure_hash, k.functional) for k in ordered), given, strict=True)
    )
    for k in others:
        twins = {members[k.material.structure_hash, name] for name in ("PBE", "PBEsol")}
        assert len(twins) == 1
    assert given.count(1) >= 16 and given[0] == quick.members
