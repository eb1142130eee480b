"""Training of an ensemble: what it depends on, what it does not, and that it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from models import fitting
from models.cache import FeatureCache
from models.ensemble import Ensemble, Prediction
from models.fitting import training_hash
from models.metrics import tensor_errors
from models.settings import ModelSettings
from screening.errors import UserError
from screening.material import KnownMaterial, Material
from screening.tables import known_from_frame
from screening.tensors import DielectricTensors, mean_permittivity

Fit = Callable[..., Ensemble]
PARTS = ("electronic", "ionic")


@pytest.fixture(scope="module")
def fit(builtin: list[KnownMaterial], quick: ModelSettings, cache: FeatureCache) -> Fit:
    """``fit(known, steps=…, seed=…, any setting=…)``: a short training."""

    def train(
        known: Sequence[KnownMaterial] = builtin, steps: int = 12, seed: int = 0, **settings: Any
    ) -> Ensemble:
        changed = quick.model_copy(
            update={"min_steps": steps, "max_steps": steps, "batch_size": 6, **settings}
        )
        return fitting.fit(known, changed, seed, cache)

    return train


def structures(known: Sequence[KnownMaterial]) -> list[Any]:
    return [k.material.structure for k in known]


def equal(first: Prediction, second: Prediction) -> bool:
    return all(np.array_equal(getattr(first, part), getattr(second, part)) for part in PARTS)


def changed(known: KnownMaterial, factor: float = 1.0, **changes: Any) -> KnownMaterial:
    """The record with its tensors multiplied and other fields replaced."""
    electronic, ionic = known.tensors.electronic, known.tensors.ionic
    tensors = DielectricTensors(
        None if electronic is None else factor * electronic,
        None if ionic is None else factor * ionic,
    )
    return dataclasses.replace(known, **{"tensors": tensors, **changes})


def without(known: KnownMaterial, part: str) -> KnownMaterial:
    return dataclasses.replace(known, tensors=dataclasses.replace(known.tensors, **{part: None}))


@pytest.mark.parametrize("clip", [2.0, 0.05])
def test_a_member_does_not_depend_on_its_company(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, clip: float
) -> None:
    """Neither without nor with gradients that are cut."""
    monkeypatch.setattr("models.training.CLIP", clip)
    three = fit(members=3, dropout=0.0).readout.state_dict()
    two = fit(members=2, dropout=0.0).readout.state_dict()
    fresh = fit(members=2, dropout=0.0, steps=1).readout.state_dict()
    assert set(three) == set(two)
    for name, values in two.items():
        assert torch.equal(three[name][:2], values)
    assert any((values - fresh[name]).abs().max() > 1e-3 for name, values in two.items())


def test_the_seed_and_the_training_set_decide_everything(
    fit: Fit, builtin: list[KnownMaterial], cache: FeatureCache
) -> None:
    first = fit().predict(structures(builtin), "PBE", cache)
    torch.manual_seed(123)
    torch.rand(7)
    order = np.random.default_rng(5).permutation(len(builtin))
    again = fit([builtin[i] for i in order]).predict(structures(builtin), "PBE", cache)
    assert equal(first, again)
    other = fit(seed=1).predict(structures(builtin), "PBE", cache)
    assert not np.allclose(first.electronic, other.electronic, rtol=1e-3)


def test_two_records_of_one_crystal_count_in_the_same_order(
    fit: Fit, builtin: list[KnownMaterial], cache: FeatureCache
) -> None:
    twin = builtin[0].material
    twin = Material("a twin", twin.structure, band_gap=twin.band_gap)
    twins = [changed(builtin[0], 1.5, material=twin), *builtin]
    first = fit(twins).predict(structures(builtin), "PBE", cache)
    assert equal(first, fit(twins[::-1]).predict(structures(builtin), "PBE", cache))


def test_the_spelling_of_formulas_does_not_matter(
    fit: Fit, builtin: list[KnownMaterial], cache: FeatureCache
) -> None:
    """Two rows of one composition that are spelt differently must not be split up."""
    respelt = []
    for n, k in enumerate(builtin):
        material = k.material
        formula = material.structure.composition.formula if n % 2 else None
        respelt.append(
            dataclasses.replace(
                k,
                material=Material(
                    material.material_id,
                    material.structure,
                    formula=formula,
                    band_gap=material.band_gap,
                ),
            )
        )
    assert {k.material.formula for k in respelt} != {k.material.formula for k in builtin}
    first = fit().predict(structures(builtin), "PBE", cache)
    assert equal(first, fit(respelt).predict(structures(builtin), "PBE", cache))


def test_the_training_hash_is_of_all_that_matters_and_of_nothing_else(
    builtin: list[KnownMaterial], quick: ModelSettings
) -> None:
    def hashed(known: Sequence[KnownMaterial] = builtin, seed: int = 0, **settings: Any) -> str:
        return training_hash(known, quick.model_copy(update=settings), seed)

    strained = builtin[0].material.structure.copy()
    strained.apply_strain(0.01)
    others = [
        hashed(seed=1),
        hashed(members=3),
        hashed(dropout=0.1),
        hashed(encoder="7net-l3i5"),
        hashed(builtin[1:]),
        hashed([changed(builtin[0], 1.001), *builtin[1:]]),
        hashed([changed(builtin[0], functional="PBEsol"), *builtin[1:]]),
        hashed([without(builtin[0], "ionic"), *builtin[1:]]),
        hashed([changed(builtin[0], material=Material("x", strained)), *builtin[1:]]),
    ]
    assert len({hashed(), *others}) == 1 + len(others)
    assert hashed() == hashed(builtin[::-1]) == hashed(device="auto")


def log_errors(predicted: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Mean |Δ ln ε̄| of the ensemble's mean, and of the best single guess for all crystals."""
    found, wanted = (np.log(mean_permittivity(t)) for t in (predicted.mean(axis=0), true))
    return float(np.abs(found - wanted).mean()), float(np.abs(wanted - np.median(wanted)).mean())


def test_it_learns(trained: Ensemble, builtin: list[KnownMaterial], cache: FeatureCache) -> None:
    prediction = trained.predict(structures(builtin), "PBE", cache)
    for part in (*PARTS, "static"):
        rows = [i for i, k in enumerate(builtin) if getattr(k.tensors, part) is not None]
        true = np.stack([getattr(builtin[i].tensors, part) for i in rows])
        error, guess = log_errors(getattr(prediction, part)[:, rows], true)
        assert error < 0.6 * guess, part


def test_it_learns_directions(fit: Fit, tensor_table: Any, cache: FeatureCache) -> None:
    """On small crystals of low symmetry, full tensors beat any isotropic answer."""
    small = tensor_table[
        (tensor_table["nsites"] <= 4) & (tensor_table["crystal_system"] != "cubic")
    ]
    known = known_from_frame(small.groupby("functional").head(24), "the tensor table")
    assert {k.functional for k in known} == {"PBE", "PBEsol"}
    ensemble = fit(known, steps=120, batch_size=16, dropout=0.0)
    predicted, true = [], []
    for k in known:
        static = ensemble.predict([k.material.structure], k.functional, cache).static
        predicted.append(static.mean(axis=0)[0])
        true.append(k.tensors.static)
    found = tensor_errors(np.stack(predicted), np.stack(true))
    isotropic = mean_permittivity(np.stack(true))[:, None, None] * np.eye(3)
    best_isotropic = tensor_errors(isotropic, np.stack(true))  # the true means, no directions
    assert found["log_anisotropy"] < 0.3 * best_isotropic["log_anisotropy"]
    mean = np.broadcast_to(np.mean(true, axis=0), (len(known), 3, 3))
    assert found["mae_6"] < 0.5 * tensor_errors(mean, np.stack(true))["mae_6"]


def test_the_functional_is_learned(
    fit: Fit, builtin: list[KnownMaterial], cache: FeatureCache
) -> None:
    """PBEsol labels made 1.5 times as large lead to larger predictions for PBEsol."""
    both = [*builtin, *(changed(k, 1.5, functional="PBEsol") for k in builtin)]
    ensemble = fit(both, steps=250, batch_size=12, learning_rate=1e-2, dropout=0.0)
    pbe, pbesol = (
        np.log(mean_permittivity(ensemble.predict(structures(builtin), xc, cache).electronic))
        for xc in ("PBE", "PBEsol")
    )
    assert (pbesol > pbe).mean() > 0.7
    assert 0.1 < float((pbesol - pbe).mean()) < np.log(1.6)


def test_a_known_electronic_part_alone_is_learned_from(
    fit: Fit, builtin: list[KnownMaterial], cache: FeatureCache
) -> None:
    halved = [without(k, "ionic") if n % 2 else k for n, k in enumerate(builtin)]
    lone = [k for k in halved if k.tensors.ionic is None]
    ensemble = fit(halved, steps=60)
    prediction = ensemble.predict(structures(lone), "PBE", cache)
    true = np.stack([k.tensors.electronic for k in lone])
    error, guess = log_errors(prediction.electronic, true)
    assert error < 0.6 * guess
    # The ionic part of a row without one is not taken for zero (nor for L = 0, which is 0.2).
    assert mean_permittivity(prediction.ionic).min() > 0.5
    complete = [k for k in halved if k.tensors.ionic is not None]
    assert not equal(prediction, fit(complete, steps=60).predict(structures(lone), "PBE", cache))


def test_a_known_ionic_part_alone_is_learned_from(
    fit: Fit, builtin: list[KnownMaterial], cache: FeatureCache
) -> None:
    """One row with another ionic part and no electronic one moves predictions a little."""
    lone = next(k for k in builtin if k.tensors.ionic is not None)
    others = [k for k in builtin if k is not lone]
    first, second = (
        fit([*others, changed(without(lone, "electronic"), factor)]).predict(
            structures(builtin), "PBE", cache
        )
        for factor in (1.0, 10.0)
    )
    assert not equal(first, second)
    assert np.isfinite(second.static).all()


def test_a_row_without_tensors_is_passed_over(
    fit: Fit, builtin: list[KnownMaterial], cache: FeatureCache, prototypes: dict[str, Any]
) -> None:
    nothing = KnownMaterial(
        Material("quartz", prototypes["quartz"]), DielectricTensors(None, None), "PBE"
    )
    first = fit().predict(structures(builtin), "PBE", cache)
    assert equal(first, fit([nothing, *builtin]).predict(structures(builtin), "PBE", cache))


def test_metrics_are_of_unseen_crystals(
    trained: Ensemble, builtin: list[KnownMaterial], cache: FeatureCache
) -> None:
    """The errors in the report are larger than those on all crystals, seen ones among them."""
    prediction = trained.predict(structures(builtin), "PBE", cache)
    true = np.stack([k.tensors.electronic for k in builtin])
    everywhere = [tensor_errors(member, true)["log_scalar"] for member in prediction.electronic]
    assert trained.metrics["electronic"]["log_scalar"] > np.mean(everywhere)
    assert set(trained.metrics) == {"seconds", "n_held_out", "electronic", "static"}


def test_too_few_compositions_are_refused(
    fit: Fit, builtin: list[KnownMaterial], prototypes: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"9 compositions.*at least 10.*add known materials"):
        fit(builtin[:9])
    polymorph = Material("polymorph", builtin[0].material.structure * (2, 1, 1))
    with pytest.raises(UserError, match="9 compositions"):
        fit([*builtin[:9], changed(builtin[0], material=polymorph)])
    with pytest.raises(UserError, match="9 compositions"):
        fit([*builtin[:9], changed(builtin[9], tensors=DielectricTensors(None, None))])
    with pytest.raises(UserError, match="0 compositions"):
        fit([])
    fit(builtin[:10], steps=2)


def test_an_unknown_functional_is_refused(fit: Fit, builtin: list[KnownMaterial]) -> None:
    strange = changed(builtin[3], functional="HSE06")
    name = builtin[3].material.material_id
    with pytest.raises(UserError, match=f"{name}.*'HSE06'.*PBE or PBEsol"):
        fit([*builtin[:3], strange, *builtin[4:]])


def test_an_unknown_element_is_refused(fit: Fit, builtin: list[KnownMaterial]) -> None:
    from pymatgen.core import Lattice, Structure

    polonium = Material("polonium", Structure(Lattice.cubic(3.36), ["Po"], [[0, 0, 0]]))
    with pytest.raises(UserError, match="element Po"):
        fit([*builtin, changed(builtin[0], material=polonium)])


def test_a_gpu_that_is_not_there_is_refused(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"'cuda'.*no GPU.*device: auto"):
        fit(device="cuda")


def test_progress_is_told(
    builtin: list[KnownMaterial], quick: ModelSettings, fresh_cache: FeatureCache
) -> None:
    told: list[tuple[str, int, int]] = []
    settings = quick.model_copy(update={"min_steps": 25, "max_steps": 25})
    ensemble = fitting.fit(
        builtin,
        settings,
        0,
        fresh_cache,
        lambda what, done, total: told.append((what, done, total)),
    )
    assert told[0] == ("encoding known crystals", 0, len(builtin))
    assert told[1] == ("encoding known crystals", len(builtin), len(builtin))
    assert told[2:] == [("training", 20, 25), ("training", 25, 25)]
    told.clear()
    ensemble.predict(structures(builtin[:2]), "PBE", fresh_cache, lambda *what: told.append(what))
    assert told == [("predicting", 2, 2)]
