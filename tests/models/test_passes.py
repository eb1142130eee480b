"""Two passes: all crystals quickly, the best again with their force constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.cache import FeatureCache, ForceConstantCache
from models.ensemble import Prediction
from models.passes import in_two_passes
from models.shipped import shipped


def test_only_the_best_get_force_constants(prototypes: dict[str, Any], tmp_path: Any) -> None:
    ensemble = shipped()
    cache = FeatureCache(ensemble.settings.encoder, tmp_path)
    crystals = [prototypes[name] for name in ("NaCl", "CsCl", "wurtzite")]
    gaps = [5.0, 7.0, None]
    asked: list[Prediction] = []

    def best(first: Prediction) -> np.ndarray:
        asked.append(first)
        return np.array([1])

    found = in_two_passes(ensemble, crystals, gaps, "PBE", cache, best)
    assert found.physical.tolist() == [False, True, False]
    plain = ensemble.predict(crystals, "PBE", cache, None, gaps)
    assert np.array_equal(asked[0].ionic, plain.ionic)
    assert np.array_equal(found.ionic[:, [0, 2]], plain.ionic[:, [0, 2]])
    forces = ForceConstantCache.beside(cache)
    alone = ensemble.predict([crystals[1]], "PBE", cache, None, [7.0], forces)
    assert np.allclose(found.ionic[:, 1], alone.ionic[:, 0], rtol=1e-5)
    assert not np.allclose(found.ionic[:, 1], plain.ionic[:, 1], rtol=1e-3)
