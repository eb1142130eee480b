"""How far predictions are from what physics demands (turning, choice of cell, point group), and
how fast they are made.

A violation is the largest element of the difference, relative to the largest element of the tensor.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.cache import FeatureCache
from screening.symmetry import asymmetry, point_group_rotations

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]
Predict = Callable[[Sequence["Structure"], FeatureCache], Array]
"""Crystals → tensors (n, 3, 3) in their frames."""

RATE = "screened_per_cpu_second"
"""Name of the throughput in cards. Older ones have ``materials_per_cpu_second``, of crystals whose
features lay on disk."""
CRYSTALS = 30
"""So many crystals are looked at, every third of them a supercell, the others sheared cells."""


def measured(
    predict: Predict, structures: Sequence[Structure], cache: FeatureCache, seed: int = 0
) -> dict[str, Any]:
    """What a model violates and how fast it screens, as they stand in a card.

    Returns
    -------
    dict
        ``violations``: ``rotation``, ``cell`` and ``point_group`` → [median, largest];
        ``screened_per_cpu_second``: crystals whose tensors are predicted in a second of processor
        time, from their structures alone: features (and force constants, where ``predict`` takes
        them) go to a cache of their own, which is empty at first and deleted.
    """
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(structures))[:CRYSTALS]
    crystals = [structures[i] for i in chosen]
    turns = np.stack([random_rotation(random) for _ in crystals])
    with tempfile.TemporaryDirectory() as directory:
        own = FeatureCache(cache.encoder_name, Path(directory), cache.device)
        own._encoder = cache.encoder
        # First, so that what has to be loaded does not count.
        turned = predict([_turned(s, r) for s, r in zip(crystals, turns, strict=True)], own)
        start = time.process_time()
        plain = predict(crystals, own)
        seconds = time.process_time() - start
        anew = predict([_anew(s, n, random) for n, s in enumerate(crystals)], own)
    scale = np.abs(plain).max(axis=(1, 2))
    expected = turns @ plain @ np.swapaxes(turns, 1, 2)
    found = {
        "rotation": np.abs(turned - expected).max(axis=(1, 2)) / scale,
        "cell": np.abs(anew - plain).max(axis=(1, 2)) / scale,
        "point_group": np.array(
            [asymmetry(t, point_group_rotations(s)) for t, s in zip(plain, crystals, strict=True)]
        ),
    }
    return {
        RATE: float(f"{len(crystals) / seconds:.3g}"),
        "violations": {
            name: [float(f"{v:.2g}") for v in (np.median(values), values.max())]
            for name, values in found.items()
        },
    }


def random_rotation(random: np.random.Generator) -> Array:
    """Proper or improper, (3, 3)."""
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.diag(r)))


def _turned(structure: Structure, rotation: Array) -> Structure:
    from pymatgen.core import Structure as Made

    lattice = structure.lattice.matrix @ rotation.T
    return Made(lattice, structure.species, structure.frac_coords)


def _anew(structure: Structure, number: int, random: np.random.Generator) -> Structure:
    """The same crystal by another cell: a supercell of two, or sheared lattice vectors."""
    if number % 3 == 0:
        matrix = np.diag(random.permutation([2, 1, 1]))
    else:
        first, second = random.permutation(3)[:2]
        matrix = np.eye(3, dtype=int)
        matrix[first, second] = random.choice([-1, 1])
    return structure.make_supercell(matrix, in_place=False)
