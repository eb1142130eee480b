"""Crystals with their reduced features on disk: read back as they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models.cache import FeatureCache
from models.crystal import Crystal


def files(cache: FeatureCache) -> list[Path]:
    return sorted(p for p in (cache.root / "crystals").rglob("*") if p.is_file())


def test_what_is_read_back_is_what_was_made(
    fresh_cache: FeatureCache, prototypes: dict[str, Any], encoded: list[int]
) -> None:
    structures = [prototypes[name] for name in ("NaCl", "Te", "wurtzite", "rutile")]
    structures.append(prototypes["rutile"] * (1, 1, 2))
    layout = fresh_cache.encoder.layout
    made = fresh_cache.reduced(structures)
    assert len(files(fresh_cache)) == 5 and len(encoded) == 4
    second = FeatureCache("7net-0", fresh_cache.root)
    read = second.reduced(structures[::-1])[::-1]
    assert second._encoder is None
    for structure, (crystal, features), (again, same) in zip(structures, made, read, strict=True):
        fresh = Crystal.of(structure)
        for name, value in vars(fresh).items():
            if name == "cell":
                assert all(np.array_equal(a, b) for a, b in zip(value, again.cell, strict=True))
            else:
                assert np.array_equal(value, getattr(again, name)), name
                one, other = getattr(crystal, name), getattr(again, name)
                assert value.dtype == one.dtype == other.dtype
                assert one.strides == other.strides  # sums run in the same order: same last digit
        assert features.shape == (len(crystal.representatives), layout.width)
        assert np.array_equal(features, same)
        rows = fresh.reduced(fresh_cache.features([structure])[0], layout)
        assert np.array_equal(features, rows.astype(np.float16))


def test_a_damaged_record_is_made_again(
    fresh_cache: FeatureCache, prototypes: dict[str, Any]
) -> None:
    fresh_cache.reduced([prototypes["Te"]])
    (path,) = files(fresh_cache)
    content = path.read_bytes()
    for damaged in (content[:-1], b"", bytes([*content[:-1], content[-1] ^ 1])):
        path.write_bytes(damaged)
        fresh_cache.reduced([prototypes["Te"]])
        assert path.read_bytes() == content


def test_progress_counts_what_was_there(
    fresh_cache: FeatureCache, prototypes: dict[str, Any]
) -> None:
    structures = [prototypes[name] for name in ("NaCl", "Te", "rutile")]
    fresh_cache.reduced(structures[:2])
    told: list[tuple[int, int]] = []
    fresh_cache.reduced(structures, lambda done, total: told.append((done, total)))
    assert told[0] == (2, 3) and told[-1] == (3, 3)


def test_a_twin_equal_but_for_the_last_digits_has_its_own_geometry(
    fresh_cache: FeatureCache, prototypes: dict[str, Any], encoded: list[int]
) -> None:
    """One encoding serves both; what is predicted for one does not depend on who came first."""
    first = prototypes["rutile"]
    twin = first.copy()
    twin.lattice = type(first.lattice)(first.lattice.matrix * (1 + 1e-12))
    fresh_cache.reduced([first])
    ((crystal, features),) = fresh_cache.reduced([twin])
    assert len(encoded) == 1 and len(files(fresh_cache)) == 2
    np.testing.assert_array_equal(crystal.cell[0], Crystal.of(twin).cell[0])
    assert not np.array_equal(crystal.cell[0], Crystal.of(first).cell[0])
    np.testing.assert_array_equal(features, fresh_cache.reduced([first])[0][1])
