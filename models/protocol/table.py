"""The tensor table as arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
    """

    known: list[KnownMaterial]
    electronic: Array
    ionic: Array
    groups: list[str]
    systems: list[str]
    digest: str
    refused: int

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

    @classmethod
    def read(cls, path: Path) -> TensorTable:
        """Read a table as :func:`screening.tables.read_known` does, with its crystal systems.

        Rows whose tensor cannot be trusted (not invariant under the point group, …) are left out
        and counted in ``refused``.

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
            [str(k.material.structure.composition.reduced_formula) for k in known],
            [systems[(k.material.material_id, k.functional)] for k in known],
            hashlib.sha256(path.read_bytes()).hexdigest()[:16],
            len(refused),
        )
