"""Materials: crystals with what a screening needs to know about them."""

from __future__ import annotations

import functools
import json
import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from screening.errors import UserError
from screening.io import stable_hash
from screening.tensors import DielectricTensors

if TYPE_CHECKING:
    from pymatgen.core import Structure

NEAREST = 0.5
"""Å; atoms nearer than this lie on top of each other, for the bond of H2 has 0.74."""
OVERLAPS = f"atoms closer than {NEAREST:g} Å to each other"
"""What is wrong with such a structure, in words."""

# Ne and Ar have none; pymatgen asks when it puts a formula in order, and says so each time.
warnings.filterwarnings("ignore", message="No Pauling electronegativity")


class Material:
    """A crystal, its band gap (eV) and its energy above hull (eV/atom).

    The structure may be given as pymatgen's object or as the JSON text of ``Structure.as_dict()``;
    text is parsed on first use, so that a table of 20,000 rows can be filtered without paying for
    the structures it drops.

    Raises
    ------
    UserError
        A band gap that is negative or not finite.
    """

    def __init__(
        self,
        material_id: str,
        structure: Structure | str,
        *,
        formula: str | None = None,
        n_sites: int | None = None,
        band_gap: float | None = None,
        energy_above_hull: float | None = None,
        source: str = "",
    ) -> None:
        self.material_id = material_id
        self._given = structure
        self.band_gap = band_gap
        self.energy_above_hull = energy_above_hull
        self.source = source
        if band_gap is not None:
            require_gap(band_gap, material_id)
        self.formula = formula or self.structure.composition.reduced_formula
        self.n_sites = n_sites if n_sites is not None else len(self.structure)

    @functools.cached_property
    def structure(self) -> Structure:
        """The crystal as pymatgen's ``Structure``.

        Raises
        ------
        UserError
            The text is no structure, or sites are disordered, partially occupied or on top of
            each other.
        """
        structure = self._given
        if isinstance(structure, str):
            structure = self._parsed(structure)
        if not (np.isfinite(structure.frac_coords).all() and structure.volume > 0):
            raise UserError(
                f"The structure of {self.material_id} has a position that is not a number or a "
                "cell without volume; correct it or leave it out."
            )
        if not structure.is_ordered:
            raise UserError(
                f"The structure of {self.material_id} has disordered or partially occupied sites; "
                "give an ordered approximant or leave it out."
            )
        if has_overlaps(structure):
            raise UserError(
                f"The structure of {self.material_id} has {OVERLAPS}; correct it or leave it out."
            )
        return structure

    def _parsed(self, text: str) -> Structure:
        from pymatgen.core import Structure

        try:
            structure = Structure.from_dict(json.loads(text))
            if not len(structure) or not np.isfinite(structure.lattice.matrix).all():
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"The structure of {self.material_id} cannot be read; the column must hold the "
                "JSON of pymatgen's Structure.as_dict()."
            ) from None
        return structure

    @functools.cached_property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the elements, sorted; from the formula, without parsing the structure."""
        from pymatgen.core import Composition

        try:
            elements = Composition(self.formula).elements
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"The formula of {self.material_id}, '{self.formula}', cannot be read; correct it "
                "or leave the column out."
            ) from None
        return tuple(sorted(el.symbol for el in elements))

    @functools.cached_property
    def structure_hash(self) -> str:
        """Identity of the structure as written: 32 hexadecimal digits."""
        return structure_hash(self.structure)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON with the whole structure."""
        structure = json.loads(json.dumps(self.structure.as_dict()))
        return {
            "material_id": self.material_id,
            "formula": self.formula,
            "n_sites": self.n_sites,
            "band_gap": self.band_gap,
            "energy_above_hull": self.energy_above_hull,
            "source": self.source,
            "structure": structure,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Material:
        """Inverse of :meth:`to_dict`."""
        data = dict(data)
        return cls(data.pop("material_id"), json.dumps(data.pop("structure")), **data)

    def __repr__(self) -> str:
        return f"Material({self.material_id}, {self.formula}, {self.n_sites} atoms)"


@dataclass(frozen=True)
class KnownMaterial:
    """A material whose dielectric tensors are known.

    Attributes
    ----------
    functional
        Exchange-correlation functional of the calculation, ``"PBE"`` or ``"PBEsol"``.
    extras
        What else the source says: ``born_charges`` (n × 3 × 3, units of e), ``min_optical_thz``;
        ``cpu_s``, processor seconds that the calculation took; ``mean_electronic`` and
        ``mean_ionic``, a third of the trace of a tensor that is not known.
    asked
        The crystal that the calculation was asked for, where it relaxed it first: ``material`` has
        the structure, and the frame, that the tensors belong to. None if that is the same.
    """

    material: Material
    tensors: DielectricTensors
    functional: str
    extras: dict[str, Any] = field(default_factory=dict)
    asked: Material | None = None

    @property
    def has_been_calculated(self) -> bool:
        """Whether a tensor is known, and not a mean alone, such as a refractive index gives.

        Where there is no ionic part beside the electronic one, whoever calculated them refused it.
        """
        return self.tensors.electronic is not None or self.tensors.ionic is not None


def require_gap(band_gap: float, material_id: str) -> None:
    """Refuse a band gap (eV) that is none.

    Raises
    ------
    UserError
        It is negative or not finite.
    """
    if not 0 <= band_gap < math.inf:
        raise UserError(
            f"The band gap of {material_id} is {band_gap:g} eV; correct it, or leave it out where "
            "it is not known."
        )


def has_overlaps(structure: Structure) -> bool:
    """Whether two atoms, or an atom and its own image, lie on top of each other."""
    return len(structure.get_neighbor_list(NEAREST)[3]) > 0


def structure_hash(structure: Structure) -> str:
    """Hash of lattice (Å), species and fractional positions, rounded to 1e-5.

    Positions are wrapped into the cell. Orientation, choice of cell and order of the atoms count:
    two records with the same hash may exchange tensors and per-atom quantities as they are. Whether
    two records describe the same crystal is a question for :mod:`screening.identity`.
    """
    positions = np.round(np.mod(structure.frac_coords, 1.0), 5) % 1.0
    lattice = np.round(structure.lattice.matrix, 5) + 0.0
    species = [site.specie.Z for site in structure]
    return stable_hash([lattice.tolist(), species, positions.tolist()])
