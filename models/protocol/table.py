"""The tensor table as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.fitting import composition_of
from screening.material import KnownMaterial

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TensorTable:
    """Materials with at least one known part, row by row.

    Attributes
    ----------
    electronic, ionic
        True tensors (n, 3, 3); not a number where unknown.
    groups
        Reduced formulas.
    systems
        Crystal systems.
    digest
        First 16 hexadecimal digits of the file's SHA-256.
    refused
        Number of rows left out.
    means, means_digest
        Materials of which only means are known, to be trained on and never tested on; and of their
        file.
    """

    known: list[KnownMaterial]
    electronic: Array
    ionic: Array
    groups: list[str]
    systems: list[str]
    digest: str
    refused: int
    means: tuple[KnownMaterial, ...] = ()
    means_digest: str = ""

    @property
    def material_ids(self) -> list[str]:
        """Identifiers, one per row; a material known in two functionals has two rows."""
        return [k.material.material_id for k in self.known]

    def truth(self, part: str) -> Array:
        """True tensors of ``electronic``, ``ionic`` or ``static``."""
        if part == "static":
            return self.electronic + self.ionic
        return self.electronic if part == "electronic" else self.ionic

    def labelled(self, part: str) -> NDArray[np.bool_]:
        """Rows whose part is known."""
        return np.asarray(np.isfinite(self.truth(part)).all(axis=(1, 2)))

    def means_like(self, wanted: Callable[[KnownMaterial], bool]) -> TensorTable:
        """The same table with a part of the means."""
        return replace(self, means=tuple(k for k in self.means if wanted(k)))

    @classmethod
    def read(cls, path: Path, means: Path | None = None) -> TensorTable:
        """Read a table as :func:`screening.tables.read_known` does, with its crystal systems.

        Rows whose tensor cannot be trusted (not invariant under the point group, …) are left out
        and counted in ``refused``.

        Parameters
        ----------
        means
            Table with the columns ``mean_electronic`` and ``mean_ionic``.

        Raises
        ------
        UserError
            No table there, or nothing usable in it.
        """
        from screening.tables import read_frame, usable_from_frame

        frame = read_frame(path)
        known, refused = usable_from_frame(frame, str(path))
        columns = zip(
            frame["material_id"], frame["functional"], frame["crystal_system"], strict=True
        )
        systems = {(str(i), str(f)): str(system) for i, f, system in columns}
        missing = np.full((3, 3), np.nan)
        return cls(
            known,
            np.stack([missing if (e := k.tensors.electronic) is None else e for k in known]),
            np.stack([missing if (e := k.tensors.ionic) is None else e for k in known]),
            [composition_of(k) for k in known],
            [systems[(k.material.material_id, k.functional)] for k in known],
            digest_of(path),
            len(refused),
            () if means is None else tuple(usable_from_frame(read_frame(means), str(means))[0]),
            "" if means is None else digest_of(means),
        )


def digest_of(path: Path) -> str:
    """First 16 hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
