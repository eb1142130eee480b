"""Crystals unlike the training set are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.cache import FeatureCache
from models.ensemble import Ensemble
from screening.material import KnownMaterial


def test_an_element_never_trained_on_is_outside(
    trained: Ensemble, builtin: list[KnownMaterial], cache: FeatureCache
) -> None:
    crystals = [k.material.structure for k in builtin]
    plain = trained.predict(crystals, "PBE", cache).distance
    assert np.mean(plain <= 1) > 0.8
    for stranger, place in (("Pu", 0), ("Xe", -1)):
        changed = []
        for crystal in crystals[:5]:
            other = crystal.copy()
            other.replace(place % len(other), stranger)
            changed.append(other)
        assert (trained.predict(changed, "PBE", cache).distance > 1).all()


def test_only_what_was_trained_on_counts(trained: Ensemble, builtin: list[KnownMaterial]) -> None:
    every = {int(n) for k in builtin for n in k.material.structure.atomic_numbers}
    known = set(trained.domain.numbers.tolist())
    assert known <= every
    assert len(known) > len(every) // 2


def test_far_away_is_outside(
    trained: Ensemble, cache: FeatureCache, prototypes: dict[str, Any]
) -> None:
    stretched = prototypes["NaCl"].copy()
    stretched.scale_lattice(8 * stretched.volume)
    near, far = trained.predict([prototypes["NaCl"], stretched], "PBE", cache).distance
    assert 1.5 * near < far
