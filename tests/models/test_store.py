"""Ensembles on disk: exact, whole or refused, and never trained twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import store
from models.cache import FeatureCache
from models.ensemble import Ensemble
from models.files import load, save
from models.settings import ModelSettings
from models.store import fit_or_reuse
from screening.errors import UserError
from screening.material import KnownMaterial
from screening.tensors import DielectricTensors


@pytest.fixture(scope="module")
def saved(trained: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the trained ensemble lies; not to be changed."""
    directory = tmp_path_factory.mktemp("saved") / "model"
    save(trained, directory)
    return directory


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_a_saved_ensemble_comes_back_exactly(
    trained: Ensemble, saved: Path, cache: FeatureCache, prototypes: dict[str, Any]
) -> None:
    loaded = load(saved)
    assert loaded.settings == trained.settings
    assert loaded.layout == trained.layout
    assert loaded.metrics == trained.metrics
    assert loaded.training_hash == trained.training_hash
    crystals = list(prototypes.values())
    for functional in ("PBE", "PBEsol"):
        first = trained.predict(crystals, functional, cache)
        again = loaded.predict(crystals, functional, cache)
        assert np.array_equal(first.electronic, again.electronic)
        assert np.array_equal(first.ionic, again.ionic)
    assert {p.name for p in saved.iterdir()} == {"model.json", "model.safetensors"}


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        manifest = json.loads((model / "model.json").read_text())
        change(manifest)
        (model / "model.json").write_text(json.dumps(manifest))

    return damage


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        content = (model / name).read_bytes()
        (model / name).write_bytes(content[: int(keep * len(content))])

    return damage


def flip_a_bit(model: Path) -> None:
    content = bytearray((model / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 64
    (model / "model.safetensors").write_bytes(bytes(content))


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes(content) and None


def put_a_directory_there(model: Path) -> None:
    (model / "model.json").unlink()
    (model / "model.json").mkdir()


KEYS = ("settings", "layout", "training_hash", "metrics", "format", "digest")
DAMAGES: dict[str, Callable[[Path], None]] = {
    "weights cut short": cut("model.safetensors", 0.7),
    "weights cut to nothing": cut("model.safetensors", 0.0),
    "a bit of the weights": flip_a_bit,
    "weights of zeros": replace("model.safetensors", bytes(10_000)),
    "manifest cut short": cut("model.json", 0.5),
    "manifest empty": cut("model.json", 0.0),
    "manifest no JSON": replace("model.json", b"once upon a time"),
    "manifest no text": replace("model.json", b"\xff\xfe\x00"),
    "manifest a list": replace("model.json", b"[1, 2]"),
    "manifest a directory": put_a_directory_there,
    "an unknown setting": edit(lambda m: m["settings"].update(colour="blue")),
    "an impossible setting": edit(lambda m: m["settings"].update(members=-1)),
    "another size": edit(lambda m: m["settings"].update(members=3)),
    "another layout": edit(lambda m: m["layout"].update(scalars=7)),
    **{f"manifest without {key}": edit(lambda m, key=key: m.pop(key)) for key in KEYS},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_is_refused(model: Path, damage: Callable[[Path], None]) -> None:
    damage(model)
    with pytest.raises(UserError, match=f"{model} is damaged.*train again"):
        load(model)


def test_a_model_of_another_format_is_refused(model: Path) -> None:
    edit(lambda manifest: manifest.update(format=99))(model)
    with pytest.raises(
        UserError, match=f"{model} has format 99.*reads formats 2 to 4.*train it again"
    ):
        load(model)


def test_an_earlier_format_is_upgraded(
    model: Path, cache: FeatureCache, prototypes: dict[str, Any]
) -> None:
    """Format 2 did not say which elements it was trained on: none counts as a stranger."""
    from safetensors.torch import load_file, save_file

    before = load(model)
    tensors = load_file(model / "model.safetensors")
    del tensors["domain.numbers"]
    save_file(tensors, model / "model.safetensors")
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    edit(lambda manifest: manifest.update(format=2, digest=digest))(model)
    after = load(model)
    crystals = [prototypes["NaCl"], prototypes["SrTiO3"]]
    new = after.predict(crystals, "PBE", cache)
    salt = before.predict(crystals[:1], "PBE", cache)  # of known elements
    assert np.allclose(salt.static, new.static[:, :1], rtol=1e-5)
    before.domain.numbers.fill_(1)
    old = before.predict(crystals, "PBE", cache)
    assert np.allclose(old.distance - new.distance, [2, 3], atol=1e-5)


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors", "everything"])
def test_an_absent_model_is_refused(model: Path, missing: str) -> None:
    shutil.rmtree(model) if missing == "everything" else (model / missing).unlink()
    with pytest.raises(UserError, match=f"no trained model in {model}"):
        load(model)


def test_new_weights_do_not_pass_under_an_old_manifest(
    model: Path, tmp_path: Path, wild: Callable[..., Ensemble]
) -> None:
    """As after a crash between the two files of an ensemble that replaces another."""
    save(wild(1.0, 1.0), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", model)
    with pytest.raises(UserError, match="damaged"):
        load(model)


def test_a_place_that_cannot_be_written_is_named(trained: Ensemble, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        save(trained, tmp_path / "file" / "model")


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Training hash of every training that really happens."""
    done: list[str] = []
    original = store.fit

    def counted(*args: Any) -> Ensemble:
        ensemble = original(*args)
        done.append(ensemble.training_hash)
        return ensemble

    monkeypatch.setattr(store, "fit", counted)
    return done


@pytest.fixture
def get(
    builtin: list[KnownMaterial], quick: ModelSettings, fresh_cache: FeatureCache
) -> Callable[..., Ensemble]:
    """``get(directory, known=…, seed=…, any setting=…)``: trained or reused."""
    few = builtin[:12]

    def obtain(directory: Path, known: Any = few, seed: int = 0, **settings: Any) -> Ensemble:
        changed = quick.model_copy(update={"min_steps": 2, "max_steps": 2, **settings})
        return fit_or_reuse(known, changed, seed, fresh_cache, directory)

    return obtain


def test_the_same_training_happens_once(
    get: Callable[..., Ensemble],
    fits: list[str],
    tmp_path: Path,
    builtin: list[KnownMaterial],
    fresh_cache: FeatureCache,
) -> None:
    crystals = [k.material.structure for k in builtin[:12]]
    first = get(tmp_path / "a")
    expected = first.predict(crystals, "PBE", fresh_cache)
    for directory in ("a", "b", "b"):
        again = get(tmp_path / directory, known=builtin[:12][::-1])
        assert again.training_hash == first.training_hash
        assert np.array_equal(again.predict(crystals, "PBE", fresh_cache).static, expected.static)
        assert load(tmp_path / directory).training_hash == first.training_hash
    assert len(fits) == 1


def test_another_training_is_another_ensemble(
    get: Callable[..., Ensemble], fits: list[str], tmp_path: Path, builtin: list[KnownMaterial]
) -> None:
    """Each replaces what lay in the directory before."""
    for change in ({}, {"known": builtin[:13]}, {"seed": 1}, {"dropout": 0.3}):
        ensemble = get(tmp_path / "a", **change)
        assert load(tmp_path / "a").training_hash == ensemble.training_hash
    assert len(fits) == len(set(fits)) == 4
    get(tmp_path / "a")
    assert len(fits) == 4


def test_rows_that_teach_nothing_do_not_make_another_training(
    get: Callable[..., Ensemble], fits: list[str], tmp_path: Path, builtin: list[KnownMaterial]
) -> None:
    empty = dataclasses.replace(builtin[12], tensors=DielectricTensors(None, None))
    for directory in ("a", "a", "b"):
        get(tmp_path / directory, known=[*builtin[:12], empty])
    get(tmp_path / "b")
    assert len(fits) == 1


@pytest.mark.parametrize("both", [False, True])
def test_damaged_ensembles_are_given_up(
    get: Callable[..., Ensemble],
    fits: list[str],
    tmp_path: Path,
    fresh_cache: FeatureCache,
    both: bool,
) -> None:
    wanted = get(tmp_path / "a").training_hash
    store = fresh_cache.root / "models" / wanted
    flip_a_bit(tmp_path / "a")
    if both:
        cut("model.json", 0.5)(store)
    get(tmp_path / "a")
    assert len(fits) == (2 if both else 1)
    for place in (tmp_path / "a", store):
        assert load(place).training_hash == wanted


def test_a_full_disk_is_no_reason_to_train_again(
    get: Callable[..., Ensemble], fits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(tmp_path / "a")

    def full(self: Ensemble, directory: Path) -> None:
        raise UserError(f"The disk is full: {directory}")

    monkeypatch.setattr(store, "save", full)
    with pytest.raises(UserError, match="The disk is full"):
        get(tmp_path / "b")
    assert len(fits) == 1
