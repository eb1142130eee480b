"""Features on disk: computed once, whole or absent, shared."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.cache import FeatureCache
from screening.errors import UserError


@pytest.fixture
def crystals(prototypes: dict[str, Any]) -> list[Any]:
    """Crystals of 2, 3, 4 and 6 atoms."""
    return [prototypes[name] for name in ("NaCl", "Te", "wurtzite", "rutile")]


def files(cache: FeatureCache) -> list[Path]:
    return sorted(p for p in cache.root.rglob("*") if p.is_file())


def test_a_crystal_is_encoded_once(
    fresh_cache: FeatureCache, crystals: list[Any], encoded: list[int]
) -> None:
    first = fresh_cache.features(crystals)
    assert sorted(encoded) == [2, 3, 4, 6]
    again = fresh_cache.features(crystals[::-1])[::-1]
    assert len(encoded) == 4
    assert len(files(fresh_cache)) == 4
    for a, b, crystal in zip(first, again, crystals, strict=True):
        assert a.shape == (len(crystal), fresh_cache.encoder.layout.width)
        assert a.dtype == np.float16
        assert np.array_equal(a, b)


def test_features_are_the_encoder_s_to_half_precision(
    fresh_cache: FeatureCache, crystals: list[Any]
) -> None:
    from screening.symmetry import cell_of

    exact = fresh_cache.encoder.encode([cell_of(c) for c in crystals])
    for kept, rows in zip(fresh_cache.features(crystals), exact, strict=True):
        assert np.abs(kept - rows).max() < 5e-4 * np.abs(rows).max()


def test_an_encoder_with_random_weights_is_always_the_same_and_has_a_place_of_its_own(
    fresh_cache: FeatureCache, crystals: list[Any]
) -> None:
    random = fresh_cache.untrained.features(crystals[:2])
    trained = fresh_cache.features(crystals[:2])
    assert len(files(fresh_cache)) == 4
    again = FeatureCache(
        fresh_cache.encoder_name, fresh_cache.root / "again", trained=False
    ).features(crystals[:2])
    for found, other, known in zip(random, again, trained, strict=True):
        assert found.std() > 0 and np.array_equal(found, other)
        assert found.shape == known.shape and not np.allclose(found, known, atol=0.1)


def test_features_too_large_for_half_precision_are_scaled_as_a_whole(
    fresh_cache: FeatureCache, prototypes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each atom by itself and all its numbers alike, so that nothing depends on the frame."""
    rows = np.ones((2, 2048), np.float32)
    rows[1, :3] = 3e6, -4e6, 12e6  # of length 13e6
    monkeypatch.setattr(fresh_cache.encoder, "encode", lambda _: [rows])
    found = fresh_cache.features([prototypes["NaCl"]])[0].astype(float)
    assert np.array_equal(found[0], rows[0])
    assert np.allclose(found[1], rows[1] * 65504 / 13e6, rtol=1e-3)


def test_another_process_finds_what_this_one_computed(
    fresh_cache: FeatureCache, crystals: list[Any], encoded: list[int]
) -> None:
    first = fresh_cache.features(crystals)
    encoded.clear()
    second = FeatureCache("7net-0", fresh_cache.root)
    for a, b in zip(first, second.features(crystals), strict=True):
        assert np.array_equal(a, b)
    assert second._encoder is None  # the potential was not even loaded


def test_a_supercell_costs_no_more_than_its_crystal(
    fresh_cache: FeatureCache, prototypes: dict[str, Any], encoded: list[int]
) -> None:
    perovskite = prototypes["SrTiO3"]
    fresh_cache.features([perovskite])
    fresh_cache.features([perovskite * (2, 1, 1), perovskite * [[1, 1, 0], [0, 1, 1], [1, 0, 1]]])
    assert encoded == [5]
    for crystal in prototypes.values():
        encoded.clear()
        fresh_cache.features([crystal * (1, 2, 2)])
        assert sum(encoded) <= len(crystal)


def test_a_turned_or_changed_crystal_is_another_one(
    fresh_cache: FeatureCache,
    prototypes: dict[str, Any],
    encoded: list[int],
    rotation: Callable[..., np.ndarray],
    turned: Callable[..., Any],
) -> None:
    rutile = prototypes["rutile"]
    strained = rutile.copy()
    strained.apply_strain(0.001)
    other = rutile.copy()
    other.replace_species({"Ti": "Sn"})
    fresh_cache.features([rutile, turned(rutile, rotation(1, False)), strained, other])
    assert len(encoded) == len(files(fresh_cache)) == 4


def test_noise_of_the_last_digits_makes_no_other_crystal(
    fresh_cache: FeatureCache, prototypes: dict[str, Any], encoded: list[int]
) -> None:
    from pymatgen.core import Lattice, Structure

    quartz = prototypes["quartz"]
    lattice = Lattice(quartz.lattice.matrix + 1e-9)
    noisy = Structure(lattice, quartz.species, quartz.frac_coords - 1e-9)
    fresh_cache.features([quartz])
    fresh_cache.features([noisy])
    assert len(encoded) == 1


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut, id="cut short"),
        pytest.param(flip, id="one bit"),
        pytest.param(lambda content: content[:0], id="empty"),
        pytest.param(lambda content: content[:16], id="digest alone"),
        pytest.param(lambda content: content + b"\0\0", id="longer"),
        pytest.param(lambda content: b"\0" * len(content), id="zeros"),
    ],
)
def test_a_damaged_file_is_noticed_and_replaced(
    fresh_cache: FeatureCache,
    crystals: list[Any],
    encoded: list[int],
    damage: Callable[[bytes], bytes],
) -> None:
    first = fresh_cache.features(crystals)
    path = files(fresh_cache)[0]
    content = path.read_bytes()
    path.write_bytes(damage(content))
    encoded.clear()
    again = fresh_cache.features(crystals)
    assert len(encoded) == 1
    assert path.read_bytes() == content
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)


def test_work_is_kept_when_a_run_dies(
    fresh_cache: FeatureCache, crystals: list[Any], encoded: list[int], monkeypatch: Any
) -> None:
    monkeypatch.setattr("models.cache.ENCODE_CHUNK", 2)

    def die(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fresh_cache.features(crystals, die)
    assert len(files(fresh_cache)) == 2
    fresh_cache.features(crystals)
    assert sorted(encoded) == [2, 3, 4, 6]


def test_progress_is_told(fresh_cache: FeatureCache, crystals: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setattr("models.cache.ENCODE_CHUNK", 2)
    fresh_cache.features(crystals[:1])
    told: list[tuple[int, int]] = []
    fresh_cache.features(crystals, lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (3, 4), (4, 4)]


SCRIPT = """
import sys
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

from models.cache import FeatureCache


class Stub:
    def encode(self, cells):
        print("encoded", flush=True)
        return [np.full((len(s), 2048), lattice[0, 0], np.float32) for lattice, _, s in cells]


seed = int(sys.argv[2])
sizes = np.random.default_rng(seed).permutation(np.arange(3.0, 8.0, 0.0625))
cache = FeatureCache("7net-0", Path(sys.argv[1]))
cache._encoder = Stub()
print("ready", flush=True)
sys.stdin.readline()
for size in sizes:
    crystal = Structure(Lattice.cubic(size), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    rows = cache.features([crystal])[0]
    assert rows.shape == (2, 2048) and (rows == size).all()
"""


def test_two_processes_may_fill_the_same_cache(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(2)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [process.communicate()[0].count("encoded") for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    shared = FeatureCache("7net-0", tmp_path)
    assert len(files(shared)) == 80  # and no temporary files are left
    assert 80 <= sum(counts) <= 160


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, cache: FeatureCache, crystals: list[Any]
) -> None:
    (tmp_path / "file").write_text("in the way")
    blocked = FeatureCache("7net-0", tmp_path / "file")
    blocked._encoder = cache.encoder
    with pytest.raises(UserError, match="file"):
        blocked.features(crystals)


def test_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCREEN_CACHE", "/somewhere/else")
    assert FeatureCache("7net-0").root == Path("/somewhere/else")
    monkeypatch.delenv("SCREEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert FeatureCache("7net-0").root == Path("/cache/dielectric-screen")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert FeatureCache("7net-0").root == Path.home() / ".cache" / "dielectric-screen"
