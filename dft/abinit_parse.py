"""Reading ABINIT's netCDF files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dft.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]

THZ_PER_EV = 241.7989242084


@dataclass(frozen=True)
class Bands:
    """The edges of the bands on the mesh of the calculation.

    Attributes
    ----------
    gap
        Lowest empty minus highest occupied energy in eV; negative where bands overlap.
    direct_gap
        The same at one k-point.
    n_kpoints
        Points in the irreducible wedge.
    """

    gap: float
    direct_gap: float
    n_kpoints: int


@dataclass(frozen=True)
class Response:
    """What anaddb says.

    Attributes
    ----------
    electronic
        ε∞, (3, 3), Cartesian.
    static
        ε of the relaxed lattice, (3, 3), or None where it was not asked for.
    born_charges
        In e, (atoms, 3, 3): first index of each matrix the polarisation, second the displacement.
    frequencies_thz
        (3 atoms,), at Γ without the splitting by long-range fields, ascending, negative =
        imaginary.
    """

    electronic: Array
    static: Array | None
    born_charges: Array
    frequencies_thz: Array


def bands(path: Path, occupied: int) -> Bands:
    """Band edges from an ``_EIG.nc`` file without spin."""
    energies = _read(path, "Eigenvalues")[0] * EV_PER_HARTREE
    valence, conduction = energies[:, occupied - 1], energies[:, occupied]
    return Bands(
        gap=float(conduction.min() - valence.max()),
        direct_gap=float((conduction - valence).min()),
        n_kpoints=len(energies),
    )


def relaxed(path: Path, structure: Structure) -> Structure:
    """``structure`` with the lattice and positions of a ``_GSR.nc`` file."""
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as NewStructure

    lattice = Lattice(_read(path, "primitive_vectors") * ANGSTROM_PER_BOHR)
    return NewStructure(lattice, structure.species, _read(path, "reduced_atom_positions"))


def response(prefix: Path) -> Response:
    """Tensors, charges and frequencies that anaddb wrote."""
    tensors = Path(f"{prefix}_anaddb.nc")
    frequencies = _read(Path(f"{prefix}_PHBST.nc"), "phfreqs")[0] * THZ_PER_EV
    return Response(
        electronic=_read(tensors, "emacro_cart"),
        static=_read(tensors, "emacro_cart_rlx", missing=None),
        # There the displacement comes first.
        born_charges=_read(tensors, "becs_cart").swapaxes(1, 2),
        frequencies_thz=np.sort(frequencies),
    )


def _read(path: Path, name: str, missing: Any = ...) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        if name not in file and missing is not ...:
            return missing
        return np.array(file[name][()], dtype=float)
