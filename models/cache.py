"""What the potential says about crystals, on disk: content-addressed, shared by any number of
processes.

One file per crystal: 16 bytes of BLAKE2 digest, then the numbers. Files appear whole or not at all;
a damaged one is noticed by its digest and replaced. Features are kept in half precision (relative
error 2e-4), force constants in single. Beside the features of primitive cells stand those of
crystals as they were given, reduced by their symmetry: what a screening reads again and again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.crystal import Crystal
from screening.io import atomic_write, cache_directory, stable_hash
from screening.progress import Progress
from screening.symmetry import Cell, cell_of, primitive_cell

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.encoder import Encoder
    from models.potential import Potential
    from models.settings import EncoderName

Features = NDArray[np.float16]
Reduced = tuple[Crystal, Features]
"""A crystal and the features (r, width) of its representatives."""

DIGEST_BYTES = 16
FORMAT = 1
LARGEST = float(np.finfo(np.float16).max)
"""What half precision holds."""
SAME_CRYSTAL = 5
"""Decimals of lattice (Å) and positions to which two cells have the same features."""
ENCODE_CHUNK = 64
"""Crystals encoded between two writes to disk: what a crash can cost."""


class _Store:
    """Files addressed by the cell they belong to.

    Parameters
    ----------
    decimals
        To which the cell's numbers tell crystals apart; None: to the last bit.
    """

    def __init__(self, directory: Path, decimals: int | None = SAME_CRYSTAL) -> None:
        self.directory = directory
        self.decimals = decimals

    def path(self, cell: Cell) -> Path:
        """Where the numbers of a crystal lie; the name ends with its number of atoms."""
        lattice, positions, species = cell
        numbers = [lattice, positions]
        if self.decimals is not None:
            wrapped = np.round(np.mod(positions, 1.0), self.decimals) % 1.0
            numbers = [np.asarray(np.round(lattice, self.decimals) + 0.0), np.asarray(wrapped)]
        key = stable_hash([*(n.tolist() for n in numbers), species.tolist()])
        return self.directory / key[:2] / f"{key}-{len(species)}"

    def read(self, path: Path) -> bytes | None:
        """What was written, or None where there is nothing or nothing whole."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        return data if data and _digest(data) == digest else None

    def write(self, path: Path, data: bytes) -> None:
        """Write atomically."""
        atomic_write(path, _digest(data) + data)


class FeatureCache:
    """Encodes crystals that have not been seen before and remembers all of them.

    Features belong to the primitive cell in the crystal's own Cartesian frame, so that a supercell
    costs no more than the crystal it repeats.
    """

    def __init__(
        self,
        encoder: EncoderName,
        directory: Path | None = None,
        device: str = "cpu",
        *,
        trained: bool = True,
    ) -> None:
        self.encoder_name = encoder
        self.device = device
        self.trained = trained
        self.root = directory if directory is not None else cache_directory()
        name = f"{encoder}{'' if trained else '-untrained'}-v{FORMAT}"
        self.store = _Store(self.root / "features" / name)
        # Rotations and volume are the structure's own: what is predicted for it must not depend on
        # which twin, equal but for the last digits, was seen first.
        self.reduced_store = _Store(self.root / "crystals" / name, None)
        self._encoder: Encoder | None = None

    @functools.cached_property
    def untrained(self) -> FeatureCache:
        """Features of the same encoder with random weights."""
        return FeatureCache(self.encoder_name, self.root, self.device, trained=False)

    @property
    def encoder(self) -> Encoder:
        """The potential, loaded when the first unknown crystal comes."""
        if self._encoder is None:
            from models.encoder import Encoder

            self._encoder = Encoder(self.encoder_name, self.device, trained=self.trained)
        return self._encoder

    def reduced(
        self,
        structures: Sequence[Structure],
        progress: Progress | None = None,
    ) -> list[Reduced]:
        """Each structure's crystal with the features of its symmetry-inequivalent atoms.

        Parameters
        ----------
        structures
            Ordered crystals of supported elements.
        progress
            Called with (done, total) as the work goes on.
        """
        paths = [self.reduced_store.path(cell_of(structure)) for structure in structures]
        found = [self._read_reduced(path) for path in paths]
        missing = [i for i, entry in enumerate(found) if entry is None]
        done = len(found) - len(missing)

        def more(some: int, _: int) -> None:
            if progress is not None:
                progress(done + some, len(found))

        features = self.features([structures[i] for i in missing], more)
        for i, rows in zip(missing, features, strict=True):
            crystal = Crystal.of(structures[i])
            # Symmetrised rows are no longer than the longest of those that they are a mean of.
            data = _packed(crystal, crystal.reduced(rows, self.encoder.layout).astype(np.float16))
            self.reduced_store.write(paths[i], data)
            # In the memory order in which it will be read: sums round alike.
            found[i] = _unpacked(data)
        return [entry for entry in found if entry is not None]

    def _read_reduced(self, path: Path) -> Reduced | None:
        data = self.reduced_store.read(path)
        return None if data is None else _unpacked(data)

    def features(
        self, structures: Sequence[Structure], progress: Progress | None = None
    ) -> list[Features]:
        """Features of each structure's primitive cell, (n_atoms, width) half-precision rows.

        Parameters
        ----------
        structures
            Ordered crystals of supported elements.
        progress
            Called with (done, total) as the work goes on.
        """
        cells = [primitive_cell(structure) for structure in structures]
        paths = [self.store.path(cell) for cell in cells]
        found = {path: self._read(path) for path in dict.fromkeys(paths)}
        missing = [i for i, path in enumerate(paths) if found[path] is None]
        missing = list({paths[i]: i for i in reversed(missing)}.values())[::-1]
        known = len(cells) - len(missing)
        for start in range(0, len(missing), ENCODE_CHUNK):
            if progress is not None:
                progress(known + start, len(cells))
            chunk = missing[start : start + ENCODE_CHUNK]
            for i, rows in zip(chunk, self.encoder.encode([cells[i] for i in chunk]), strict=True):
                found[paths[i]] = kept = _half_precision(rows)
                self.store.write(paths[i], np.ascontiguousarray(kept).tobytes())
        if progress is not None:
            progress(len(cells), len(cells))
        return [features for path in paths if (features := found[path]) is not None]

    def _read(self, path: Path) -> Features | None:
        data = self.store.read(path)
        n_atoms = int(path.name.rsplit("-", 1)[1])
        if data is None or len(data) % (2 * n_atoms):
            return None
        return np.frombuffer(data, dtype=np.float16).reshape(n_atoms, -1)


class ForceConstantCache:
    """Computes Γ-point force constants of crystals not seen before and remembers all of them."""

    def __init__(
        self, encoder: EncoderName, directory: Path | None = None, device: str = "cpu"
    ) -> None:
        self.encoder_name = encoder
        self.device = device
        root = directory if directory is not None else cache_directory()
        self.store = _Store(root / "force-constants" / f"{encoder}-v{FORMAT}")
        self._potential: Potential | None = None

    @classmethod
    def beside(cls, features: FeatureCache) -> ForceConstantCache:
        """The cache that belongs to a cache of features."""
        return cls(features.encoder_name, features.root, features.device)

    @property
    def potential(self) -> Potential:
        """The potential, loaded when the first unknown crystal comes."""
        if self._potential is None:
            from models.potential import Potential

            self._potential = Potential(self.encoder_name, self.device)
        return self._potential

    def stored(self, cell: Cell) -> NDArray[np.float64] | None:
        """Force constants of a primitive cell, (3n, 3n) in eV/Å², if they were computed before."""
        data = self.store.read(self.store.path(cell))
        size = 3 * len(cell[2])
        if data is None or len(data) != 2 * size * (size + 1):
            return None
        matrix = np.zeros((size, size))
        matrix[np.triu_indices(size)] = np.frombuffer(data, dtype=np.float32)
        return matrix + np.triu(matrix, 1).T

    def compute(self, cells: Sequence[Cell]) -> Iterator[NDArray[np.float64]]:
        """Force constants of primitive cells one after the other, each on disk once it is given."""
        from models.force_constants import force_constants

        for cell in cells:
            found = self.stored(cell)
            if found is None:
                upper = force_constants(cell, self.potential)[np.triu_indices(3 * len(cell[2]))]
                self.store.write(self.store.path(cell), upper.astype(np.float32).tobytes())
                found = self.stored(cell)
            assert found is not None
            yield found


def _packed(crystal: Crystal, features: Features) -> bytes:
    from safetensors.numpy import save

    lattice, positions, species = crystal.cell
    arrays = {**vars(crystal), "lattice": lattice, "positions": positions, "species": species}
    del arrays["cell"]
    arrays["features"] = features
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _unpacked(data: bytes) -> Reduced:
    from safetensors.numpy import load

    arrays = load(data)
    features = arrays.pop("features")
    cell = arrays.pop("lattice"), arrays.pop("positions"), arrays.pop("species")
    return Crystal(cell=cell, **arrays), features


def _half_precision(rows: NDArray[np.float32]) -> Features:
    """Rounded; atoms of crushed crystals, whose features do not fit, are scaled down as a whole.

    The norm of a row does not change with the frame, so the scaling does not break the symmetry.
    """
    size = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)
    return np.asarray(rows * np.minimum(1.0, LARGEST / size)).astype(np.float16)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
