"""Learning from crystals of which only the mean permittivity is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from models.cache import FeatureCache
from models.dielectric import log_of_mean
from models.fitting import fit, training_hash
from models.settings import ModelSettings
from models.targets import to_target
from screening.errors import UserError
from screening.material import KnownMaterial
from screening.tensors import DielectricTensors, mean_permittivity

RANDOM = np.random.default_rng(5)


def only_means(known: KnownMaterial, factor: float = 1.0) -> KnownMaterial:
    """The record with the means of its tensors, multiplied, in their place."""
    extras = dict(known.extras)
    for part in ("electronic", "ionic"):
        tensor = getattr(known.tensors, part)
        if tensor is not None:
            extras[f"mean_{part}"] = factor * float(np.trace(tensor)) / 3
    return dataclasses.replace(known, tensors=DielectricTensors(None, None), extras=extras)


def test_the_logarithm_of_the_mean_is_that_of_the_tensor() -> None:
    """Exact for isotropic tensors, to second order for others, in any frame."""
    ratios = np.array([[1, 1, 1], [0.8, 1, 1.3], [0.6, 0.9, 1.5]])
    turns = np.linalg.qr(RANDOM.normal(size=(3, 3, 3)))[0]
    for size in (0.3, 3.0, 30.0):
        y = turns @ (size * ratios[:, None] * np.eye(3)) @ np.swapaxes(turns, 1, 2)
        means = mean_permittivity(y)
        found = log_of_mean(torch.tensor(to_target(y))).numpy()
        expected = to_target(means[:, None, None] * np.eye(3))[:, 0, 0]
        assert np.allclose(found[0], expected[0], atol=1e-12)
        assert np.allclose(found, expected, atol=0.03)
        plain = np.trace(to_target(y), axis1=1, axis2=2)[2] / 3
        assert abs(found[2] - expected[2]) < 0.6 * abs(plain - expected[2])


def test_what_is_far_from_isotropic_stays_finite() -> None:
    wild = torch.diag(torch.tensor([7.0, -1.0, -1.0])).requires_grad_()
    log_of_mean(wild).backward()
    assert wild.grad is not None and bool(torch.isfinite(wild.grad).all())
    assert float(log_of_mean(wild).detach()) < 7.0


def test_means_teach_what_tensors_teach(
    builtin: list[KnownMaterial], quick: ModelSettings, cache: FeatureCache
) -> None:
    """Crystals given as means, three times too large, are then predicted three times as large."""
    settings = quick.model_copy(update={"min_steps": 150, "max_steps": 150})
    target = [k for k in builtin if k.tensors.ionic is not None][:12]
    names = {k.material.material_id for k in target}
    others = [k for k in builtin if k.material.material_id not in names]

    def predicted(known: list[KnownMaterial]) -> Any:
        ensemble = fit(known, settings, 0, cache, held_out=lambda k: k is others[0])
        found = ensemble.predict(
            [k.material.structure for k in target], "PBE", cache,
            band_gaps=[k.material.band_gap for k in target],
        )  # fmt: skip
        return mean_permittivity(found.central("ionic"))

    right = predicted([*others, *(only_means(k) for k in target)])
    true = np.array([mean_permittivity(k.tensors.ionic) for k in target])
    tripled = predicted([*others, *(only_means(k, 3.0) for k in target)])
    assert np.median(np.abs(np.log(right / true))) < 0.25
    assert np.median(np.abs(np.log(tripled / right / 3))) < 0.35


def test_a_held_out_composition_is_held_out_with_its_means(
    builtin: list[KnownMaterial], quick: ModelSettings, cache: FeatureCache
) -> None:
    """A wrong mean of the same composition changes nothing about the error on it."""
    settings = quick.model_copy(update={"min_steps": 10, "max_steps": 10})
    first = builtin[0]
    metrics = [
        fit(
            [*builtin, only_means(first, factor)], settings, 0, cache, held_out=lambda k: k is first
        ).metrics["static"]
        for factor in (1.0, 50.0)
    ]
    assert metrics[0] == metrics[1]


def test_means_alone_teach_no_shape(
    builtin: list[KnownMaterial], quick: ModelSettings, cache: FeatureCache
) -> None:
    with pytest.raises(UserError, match="Only 0 compositions"):
        fit([only_means(k) for k in builtin], quick, 0, cache)


def test_means_count_in_the_hash(builtin: list[KnownMaterial], quick: ModelSettings) -> None:
    more = [*builtin, only_means(builtin[0], 2.0)]
    assert len({training_hash(k, quick, 0) for k in (builtin, more)}) == 2
