"""A published model behind the predictor's interface, and its pretraining."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from models.cache import FeatureCache
from models.fitting import training_hash
from models.papers.ensemble import PaperEnsemble
from models.papers.fitting import fitted as train_one
from models.papers.fitting import graphs_of
from models.papers.names import OPTIONS, parse
from models.papers.pretraining import pretrain, pretrained, save_pretrained
from models.papers.recipes import build
from models.papers.training import Budget
from models.predictor import Predictor, fit, load, save
from models.settings import ModelSettings
from screening.errors import UserError
from screening.material import KnownMaterial
from screening.symmetry import asymmetry, point_group_rotations


@pytest.fixture(scope="module")
def settings() -> ModelSettings:
    return ModelSettings(
        name="dtnet-simple", encoder="7net-0", members=2, min_steps=12, max_steps=12, device="cpu"
    )


@pytest.fixture(scope="module")
def fitted(builtin: list[KnownMaterial], settings: ModelSettings, cache: FeatureCache) -> Predictor:
    return fit(builtin, settings, 0, cache)


def test_its_predictions_are_physical(
    fitted: Predictor, cache: FeatureCache, prototypes: dict[str, Any],
    described_anew: Callable[..., dict[str, Any]],
) -> None:  # fmt: skip
    assert isinstance(fitted, PaperEnsemble)
    crystals = list(prototypes.values())
    prediction = fitted.predict(crystals, "PBE", cache)
    assert prediction.electronic.shape == (2, len(crystals), 3, 3)
    assert np.linalg.eigvalsh(prediction.electronic).min() >= 1
    assert np.linalg.eigvalsh(prediction.ionic).min() > 0
    assert np.ptp(np.trace(prediction.static[0], axis1=-2, axis2=-1)) > 0.1
    for tensor, crystal in zip(prediction.static[0], crystals, strict=True):
        assert asymmetry(tensor, point_group_rotations(crystal)) < 1e-9
    anew = [described_anew(s, n)["everything"] for n, s in enumerate(crystals)]
    again = fitted.predict(anew, "PBE", cache)
    assert np.allclose(again.static, prediction.static, rtol=5e-3, atol=1e-2)
    assert (prediction.deviation("static") > 0).all()
    assert fitted.predict([], "PBE", cache).static.shape == (2, 0, 3, 3)


def test_it_comes_back_from_disk_exactly(
    fitted: Predictor, cache: FeatureCache, prototypes: dict[str, Any], tmp_path: Path
) -> None:
    save(fitted, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert isinstance(loaded, PaperEnsemble)
    assert loaded.settings == fitted.settings
    assert loaded.training_hash == fitted.training_hash
    crystals = list(prototypes.values())
    first, again = (p.predict(crystals, "PBE", cache) for p in (fitted, loaded))
    assert np.array_equal(first.static, again.static)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path / "model")


def test_the_same_seed_trains_the_same(
    fitted: Predictor, builtin: list[KnownMaterial], settings: ModelSettings, cache: FeatureCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    again = fit(builtin[::-1], settings, 0, cache)
    assert "CUBLAS_WORKSPACE_CONFIG" in os.environ, "on a GPU nothing would be trained without it"
    assert again.training_hash == fitted.training_hash
    crystals = [k.material.structure for k in builtin[:5]]
    first, second = (p.predict(crystals, "PBE", cache).static for p in (fitted, again))
    assert np.array_equal(first, second)


def test_the_seed_alone_decides_about_a_network(
    builtin: list[KnownMaterial], cache: FeatureCache, tmp_path: Path
) -> None:
    """Not what was drawn before, and not whether the encoder has to be loaded first."""
    name, rows = "goectp+1-layer", np.arange(8)
    graphs = graphs_of(name, [k.material.structure for k in builtin[:8]], cache)
    targets = torch.tensor([k.tensors.electronic for k in builtin[:8]]).float()
    device, found = torch.device("cpu"), []
    for state, own in ((1, cache), (2, FeatureCache("7net-0", tmp_path))):
        torch.manual_seed(state)
        network, facts = train_one(
            name, own, graphs, targets, rows, rows, Budget(epochs=2), 5, device
        )
        assert facts["steps"] == 2
        assert torch.initial_seed() == state, "and leaves the random state alone"
        found.append(network.state_dict())
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


def test_a_name_is_part_of_what_was_trained(
    builtin: list[KnownMaterial], settings: ModelSettings
) -> None:
    ours = ModelSettings(encoder="7net-0")
    assert "name" not in ours.model_dump(), "as before there were other models"
    assert ModelSettings(**settings.model_dump()) == settings
    hashes = {
        training_hash(builtin, s, 0) for s in (ours, ModelSettings(encoder="7net-0", name="painn"))
    }
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alignn", "no model 'alignn'; choose physics"),
        ("physics+standard", "physics is ours, not a published model"),
        ("painn+pretrained", "painn has no option 'pretrained'; it has: none"),
        ("goectp+5-layer", "it has: standard, 1-layer, pretrained"),
        ("dtnet+layer-1+layer-2", "give one layer"),
    ],
)
def test_wrong_names(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words.replace("+", r"\+").replace("(", r"\(")):
        parse(name)
    with pytest.raises(ValidationError, match=words.split(";")[0].replace("+", r"\+")):
        ModelSettings(name=name)


def test_every_name_can_be_built(cache: FeatureCache) -> None:
    names = [*OPTIONS, *(f"{base}+{option}" for base, own in OPTIONS.items() for option in own)]
    for name in names:
        assert str(parse(name)) == name
        if "pretrained" not in name:
            assert build(name, cache.encoder.layout).n_parameters > 10_000


def test_settings_of_ours_mean_nothing_to_a_published_model() -> None:
    with pytest.raises(ValidationError, match="dtnet keeps its own learning_rate"):
        ModelSettings(name="dtnet", learning_rate=1e-3)


def energies(known: list[KnownMaterial]) -> pd.DataFrame:
    """A table for pretraining, with made-up energies that depend on the elements."""
    rows = []
    for k in known:
        s = k.material.structure
        rows.append(
            {
                "cell": [*s.lattice.abc, *s.lattice.angles],
                "species": [site.specie.symbol for site in s],
                "frac": s.frac_coords.ravel(),
                "formation_energy_per_atom": float(np.mean([site.specie.X for site in s])),
            }
        )
    return pd.DataFrame(rows)


def test_pretraining_is_taken_up(
    builtin: list[KnownMaterial], cache: FeatureCache, tmp_path: Path
) -> None:
    choice = parse("goectp+1-layer+pretrained")
    torch.manual_seed(0)
    network: Any = build("goectp+1-layer", cache.encoder.layout)
    with pytest.raises(UserError, match=r"screen pretrain .* --model goectp\+1-layer"):
        pretrained(network, choice, tmp_path)
    frame = energies(builtin)
    facts = pretrain(network, frame, Budget(epochs=30), 0, torch.device("cpu"))
    assert facts["crystals"] == len(builtin) - 2
    assert facts["steps"] == 30
    save_pretrained(network, choice, tmp_path, facts)
    torch.manual_seed(1)
    fresh = build(str(choice), cache.encoder.layout)
    assert pretrained(fresh, choice, tmp_path) == facts
    for key, value in network.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value)
    with pytest.raises(UserError, match="no column 'species'"):
        pretrain(network, frame.drop(columns="species"), Budget(), 0, torch.device("cpu"))


def test_rows_without_an_energy_are_left_out_of_pretraining(
    builtin: list[KnownMaterial], cache: FeatureCache
) -> None:
    network: Any = build("goectp+1-layer", cache.encoder.layout)
    frame = energies(builtin).astype({"formation_energy_per_atom": object})
    frame.loc[[1, 4, 7], "formation_energy_per_atom"] = [np.nan, None, "unknown"]
    facts = pretrain(network, frame, Budget(epochs=1), 0, torch.device("cpu"))
    assert facts["rows_left_out"] == 3
    assert facts["crystals"] == len(builtin) - 3 - 2
    assert np.isfinite(facts["validation_mae"])
    assert all(value.isfinite().all() for value in network.state_dict().values())
    frame.at[0, "species"] = ["Xx", "O"]
    with pytest.raises(UserError, match="'Xx', which is no element"):
        pretrain(network, frame, Budget(epochs=1), 0, torch.device("cpu"))


def test_missing_pretrained_weights_are_noticed_before_graphs_are_made(
    builtin: list[KnownMaterial], tmp_path: Path
) -> None:
    cache = FeatureCache("7net-0", tmp_path)
    settings = ModelSettings(name="goectp+pretrained", encoder="7net-0", device="cpu")
    with pytest.raises(UserError, match="no pretrained weights of goectp"):
        fit(builtin, settings, 0, cache)
    assert cache._encoder is None and not list(tmp_path.iterdir())
