"""From crystals to what the networks are given: features, band gap, functional, physics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from models.data import Inputs, Normalisation, Rows
from models.force_constants import effort
from models.physics import Modes, estimate, largest_mean
from models.targets import to_target
from screening.progress import Progress

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.cache import FeatureCache, ForceConstantCache
    from models.crystal import Crystal
    from models.encoder import FeatureLayout

Array = NDArray[np.float64]

GAP = slice(1, 4)
"""Columns of the context: whether the band gap is known, and what it is."""
PHYSICS = slice(4, 10)
"""Columns of the context: whether there is a physical estimate, and what it rests on."""
N_CONTEXT = 10


@dataclass
class Examples:
    """Crystals ready for the networks.

    Attributes
    ----------
    context
        (n, ``N_CONTEXT``): 1 for PBEsol; band gap known, and two functions of it; physical estimate
        known, and descriptors of it.
    estimate
        L of the ionic part from Born charges and force constants, (members, n, 3, 3).
    ceiling
        The most that ε̄_ionic can be, (n,); infinite where there is no estimate.
    """

    crystals: list[Crystal]
    rows: Rows
    context: NDArray[np.float32]
    estimate: NDArray[np.float32] = field(init=False)
    ceiling: Array = field(init=False)

    def __post_init__(self) -> None:
        self.ceiling = np.full(len(self.crystals), np.inf)
        self.estimate = np.zeros((1, len(self.crystals), 3, 3), dtype=np.float32)

    @classmethod
    def of(
        cls,
        structures: Sequence[Structure],
        functionals: NDArray[np.int64],
        band_gaps: Sequence[float | None],
        cache: FeatureCache,
        layout: FeatureLayout,
        progress: Progress | None = None,
    ) -> Examples:
        """Encode crystals.

        Parameters
        ----------
        functionals
            0 for PBE, 1 for PBEsol.
        band_gaps
            In eV (PBE); None where unknown.
        """
        known = cache.reduced(structures, progress)
        crystals, features = [c for c, _ in known], [f for _, f in known]
        context = np.zeros((len(crystals), N_CONTEXT), dtype=np.float32)
        context[:, 0] = functionals
        for row, gap in zip(context, band_gaps, strict=True):
            if gap is not None and np.isfinite(gap):
                # Two functions that between them tell small gaps, where ε∞ soars, from large ones.
                row[GAP] = 1.0, np.log(gap + 0.1) - 0.7, 2 / (gap + 0.5) - 1
        return cls(crystals, Rows.of(crystals, features, layout.width), context)

    def within(self, limit: int) -> list[int]:
        """Rows of the crystals whose force constants take at most so much :func:`effort`."""
        return [i for i, crystal in enumerate(self.crystals) if effort(crystal) <= limit]

    def add_physics(
        self, born: Sequence[Array], cache: ForceConstantCache, chosen: Sequence[int],
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        """Estimate the ionic part of the chosen crystals.

        Parameters
        ----------
        born
            Born charges of every crystal, (members, n_atoms, 3, 3).
        chosen
            Rows whose force constants are read, or computed where they are not known yet.
        """
        members = max((len(b) for b in born), default=1)
        tensors = np.zeros((members, len(self.crystals), 3, 3), dtype=np.float32)
        matrices = cache.compute([self.crystals[i].cell for i in chosen])
        for done, (i, matrix) in enumerate(zip(chosen, matrices, strict=True), start=1):
            modes = Modes.of(matrix)
            volume = self.crystals[i].volume
            found = [estimate(modes, charges, volume) for charges in born[i]]
            for member in range(members):
                tensors[member, i] = to_target(found[member % len(found)][0])
            self.ceiling[i] = np.mean([largest_mean(charges, volume) for charges in born[i]])
            self.context[i, PHYSICS] = np.mean([descriptors for _, descriptors in found], axis=0)
            if progress is not None:
                progress(done, len(chosen))
        self.estimate = tensors

    def inputs(
        self,
        normalise: Normalisation,
        layout: FeatureLayout,
        device: torch.device,
        crystals: slice = slice(None),
    ) -> Inputs:
        """Network inputs of consecutive crystals, all of them by default."""
        return self.rows.inputs(normalise, layout, torch.from_numpy(self.context), device, crystals)

    def estimates(self) -> torch.Tensor:
        """The estimate as a tensor."""
        return torch.from_numpy(self.estimate)
