"""What every engine says of the lattice at Γ, as the gate and the ladders look at it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_ACOUSTIC = 3


def lowest_optical(frequencies_thz: Array) -> float | None:
    """Lowest frequency but for the three nearest to 0, the rigid translations; None without one.

    Parameters
    ----------
    frequencies_thz
        All at Γ in THz, (3 atoms,), negative = imaginary.
    """
    rest = np.delete(frequencies_thz, _acoustic(frequencies_thz))
    return float(rest.min()) if len(rest) else None


def largest_acoustic(frequencies_thz: Array) -> float:
    """The largest in magnitude of the three frequencies nearest to 0, in THz, with its sign."""
    rigid = frequencies_thz[_acoustic(frequencies_thz)]
    return float(rigid[np.abs(rigid).argmax()])


def charge_excess(born_charges: Array) -> float:
    """Spectral norm of the sum of the Born charges (atoms, 3, 3), in e per atom; 0 if exact."""
    return float(np.linalg.norm(born_charges.sum(axis=0), 2)) / len(born_charges)


def _acoustic(frequencies_thz: Array) -> NDArray[np.intp]:
    return np.argsort(np.abs(frequencies_thz))[:N_ACOUSTIC]
