"""The ionic dielectric tensor from Born charges and force constants.

    ε_ionic = 4π e²/(4πε0) / V · Z*ᵀ Φ⁻¹ Z*

over the space of the 3n − 3 optical displacements (Gonze and Lee, Phys. Rev. B 55 (1997) 10355,
eq. 54, at zero frequency, where the masses cancel).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COULOMB = 180.951
"""e²/ε0 in eV·Å."""
FLOOR = 0.05
"""Smallest stiffness of an optical mode in eV/Å² that is told apart from zero."""
POLAR = 0.01
"""Share of the oscillator strength below which a mode counts as not polar."""
CHARGE_MARGIN = 4.0
"""Factor by which predicted charges may fall short of the oscillator strength."""
NO_CHARGE = 1e-6
"""Sum of squared mode charges below which a crystal has no polar mode."""


@dataclass(frozen=True)
class Modes:
    """Optical modes at Γ as ε_ionic sees them; masses play no part.

    Attributes
    ----------
    stiffness
        Eigenvalues of Φ in eV/Å², rising, (3n − 3,).
    vectors
        Displacements, columns, (3n, 3n − 3).
    """

    stiffness: Array
    vectors: Array

    @classmethod
    def of(cls, force_constants: Array) -> Modes:
        """Diagonalise Φ (3n, 3n) in the space without rigid translations."""
        n = len(force_constants) // 3
        rigid = np.tile(np.eye(3), (n, 1)) / np.sqrt(n)
        # The rigid translations are lifted above everything else and cut off at the top.
        lift = 2 * np.abs(force_constants).sum(axis=1).max() + 1.0
        values, vectors = np.linalg.eigh(force_constants + lift * rigid @ rigid.T)
        return cls(values[:-3], vectors[:, :-3])

    def polarities(self, born: Array) -> Array:
        """Dipole per displacement of each mode, (3n − 3, 3), from Z* (n, 3, 3).

        Z*[i, α, β]: polarisation along α when atom i moves along β (phonopy's order).
        """
        return np.asarray(self.vectors.T @ np.swapaxes(born, 1, 2).reshape(-1, 3))

    def ionic(self, born: Array, volume: float, stiffness: Array | None = None) -> Array:
        """ε_ionic (3, 3) for Born charges (n, 3, 3) and a volume in Å³.

        ``stiffness`` replaces that of the modes.
        """
        dipoles = self.polarities(born)
        k = self.stiffness if stiffness is None else stiffness
        return np.asarray(COULOMB / volume * (dipoles.T / k) @ dipoles)

    def regular(self) -> Array:
        """Stiffness that can be divided by.

        A mode of negative stiffness k means that the crystal of the potential wants to distort; in
        Landau's theory the mode has stiffness −2k once it has. Very soft modes are floored.
        """
        folded = np.where(self.stiffness < 0, -2 * self.stiffness, self.stiffness)
        return np.asarray(np.maximum(folded, FLOOR))


def estimate(modes: Modes, born: Array, volume: float) -> tuple[Array, list[float]]:
    """ε_ionic (3, 3) and six numbers that tell how it comes about.

    The numbers, each of order one: 1; logarithms of the mean ε_ionic, of the oscillator strength
    Σ Z*²/V, of the stiffness that divides it, and of the softest polar mode's; and the share of
    modes that had to be floored, plus 1 if a polar mode is unstable.
    """
    stiffness = modes.regular()
    tensor = modes.ionic(born, volume, stiffness)
    strengths = (modes.polarities(born) ** 2).sum(axis=1)
    total = strengths.sum()
    if total <= NO_CHARGE:
        return tensor, [1.0, -4.0, -4.0, 0.0, 0.0, 0.0]
    shares = strengths / stiffness
    softest = modes.stiffness[strengths > POLAR * total].min()
    floored = shares[modes.stiffness < FLOOR].sum() / shares.sum()
    return tensor, [
        1.0,
        float(np.log(np.trace(tensor) / 3 + 0.1)) - 1.5,
        float(np.log(COULOMB / volume * total + 1e-3)) / 2 - 1.5,
        float(np.log(total / shares.sum() + 0.01)) - 2.0,
        float(np.log(max(softest, 0.02))) - 1.0,
        float(floored) + float(softest < 0),
    ]


def largest_mean(born: Array, volume: float) -> float:
    """The most that ε̄_ionic can be for Born charges (n, 3, 3): all strength in the softest mode.

    No constraint for crystals with ions; in those of neutral molecules, whose charges vanish, it
    keeps an uncertain logarithm from promising what there is nothing to make it of.
    """
    return float(CHARGE_MARGIN * COULOMB / volume * np.square(born).sum() / 3 / FLOOR)


def neutral(born: Array) -> Array:
    """Born charges (..., n, 3, 3) whose sum over atoms vanishes (acoustic sum rule)."""
    return np.asarray(born - born.mean(axis=-3, keepdims=True))
