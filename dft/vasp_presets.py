"""INCAR, KPOINTS and POTCAR choices of the publications, as atomate2 input sets."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from dft.units import EV_PER_HARTREE
from dft.vasp_settings import Preset

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from pymatgen.io.vasp.sets import VaspInputSet

RESPONSE: dict[str, Any] = {"IBRION": 8, "LEPSILON": True, "NSW": 1}
"""Density-functional perturbation theory for fields and displacements, symmetry used."""

PAPERS: dict[Preset, dict[str, Any]] = {
    # DTNet, npj Comput. Mater. 2024, Methods: PBE, 600 eV, 3,000 k-points per reciprocal atom.
    "dtnet": {
        "ALGO": "Fast", "EDIFF": 1e-7, "ENCUT": 600, "GGA": "Pe", "ISMEAR": 0, "LREAL": False,
        "NELM": 100, "PREC": "Accurate", "SIGMA": 0.05, "LCHARG": False, "LWAVE": False,
        "LORBIT": 11,
    },
    # GoeCTP 2026: 700 eV, EDIFF 1e-8, EDIFFG -0.001, k-spacing 0.03 (2π/Å), Γ-centred.
    "goectp": {
        "ALGO": "Fast", "EDIFF": 1e-8, "EDIFFG": -0.001, "ENCUT": 700, "GGA": "Pe", "ISMEAR": 0,
        "LREAL": False, "NELM": 100, "PREC": "Accurate", "SIGMA": 0.05, "LCHARG": False,
        "LWAVE": False, "LORBIT": 11, "KSPACING": round(0.03 * 2 * math.pi, 6), "KGAMMA": True,
    },
    # Petousis et al., Sci. Data 4 (2017) 160134, and the Materials Project's documentation
    # (Dielectric Constants): PBE+U, 600 eV, 3,000 k-points per reciprocal atom. What they do not
    # name is that of the project's own static set.
    "mp": {"ENCUT": 600},
}  # fmt: skip

GRID_DENSITY = 3000
"""k-points per reciprocal atom of dtnet and mp."""

RELAXATION: dict[str, Any] = {
    "IBRION": 2, "ISIF": 3, "NSW": 99, "EDIFFG": -0.001, "LEPSILON": None, "LPEAD": None,
}  # fmt: skip
"""Cell and positions, tightly: residual forces show up as imaginary modes."""
FORCES_EDIFF = 1e-7
"""eV. The project's 1e-5 eV for the response leaves forces too rough for that."""


def input_set(
    preset: Preset,
    incar: dict[str, Any],
    structure: Structure,
    *,
    relaxation: bool = False,
    denser: float = 1.0,
) -> VaspInputSet:
    """The input set of a preset, with single tags replaced.

    Spin is polarised where ions have open shells or a Hubbard U, as the Materials Project chooses
    them, and not otherwise: without moments it only doubles the cost.

    Parameters
    ----------
    preset
        Whose settings.
    incar
        Tags that replace those of the preset; None takes a tag out.
    structure
        The crystal, for the choice of spin.
    relaxation
        The relaxation before the response instead of the response.
    denser
        Factor by which the mesh has more points along each axis than the preset asks for.
    """
    from atomate2.vasp.sets.core import StaticSetGenerator
    from pymatgen.io.vasp.sets import MPRelaxSet, MPStaticSet

    step = dict(RELAXATION) if relaxation else {}
    points = {"grid_density": GRID_DENSITY * denser**3}
    if preset == "mp":
        if relaxation:
            step["EDIFF"] = FORCES_EDIFF
        return MPStaticSet(
            lepsilon=True,
            user_incar_settings={**PAPERS[preset], **step, **incar},
            user_kpoints_settings=points,
        )
    project = MPRelaxSet.CONFIG
    hubbard = {k: v for k, v in project["INCAR"].items() if k.startswith("LDAU")}
    config = {
        "INCAR": {**copy.deepcopy(hubbard), "MAGMOM": project["INCAR"]["MAGMOM"]},
        "KPOINTS": {},
        "POTCAR": project["POTCAR"],
        "POTCAR_FUNCTIONAL": project["POTCAR_FUNCTIONAL"],
    }
    tags = {
        **PAPERS[preset], **RESPONSE, "LPEAD": None, "ISPIN": 2 if needs_spin(structure) else 1,
        **step, **incar,
    }  # fmt: skip
    if tags["ISPIN"] == 1:
        tags["MAGMOM"] = None
    if tags.get("KSPACING"):
        tags["KSPACING"] = round(tags["KSPACING"] / denser, 6)
    return StaticSetGenerator(
        lepsilon=not relaxation,
        config_dict=config,
        user_incar_settings=tags,
        user_kpoints_settings=points if preset == "dtnet" else {},
    )


def cutoff(preset: Preset) -> float:
    """Kinetic energy of the plane waves, in eV, that a preset asks for."""
    return float(PAPERS[preset]["ENCUT"])


def demand(preset: Preset, incar: dict[str, Any], structure: Structure) -> dict[str, float]:
    """What the cost of a response calculation depends on; see :func:`dft.cost.features`."""
    from dft.cost import features
    from dft.kmesh import Mesh

    inputs = input_set(preset, incar, structure).get_input_set(structure, potcar_spec=True)
    tags, mesh = inputs["INCAR"], inputs.get("KPOINTS")
    if mesh is None:
        # As VASP does: so many points that their distance (Å⁻¹, 2π included) is not larger.
        lengths = structure.lattice.reciprocal_lattice.abc
        divisions = [max(1, math.ceil(length / tags["KSPACING"])) for length in lengths]
    else:
        divisions = [int(n) for n in mesh.kpts[0]]
    electrons = tags.get("ISPIN", 1) * sum(valence(site.specie) for site in structure)
    return features(
        structure, electrons, tags["ENCUT"] / EV_PER_HARTREE, Mesh.around_gamma(divisions)
    )


def valence(element: Any) -> int:
    """Electrons outside closed inner shells, whatever POTCAR is chosen: a measure of cost."""
    if element.is_lanthanoid or element.is_actinoid:
        return 11
    return int(element.group if element.group <= 12 else element.group - 10)


def needs_spin(structure: Structure) -> bool:
    """Whether the crystal has ions with open shells, or elements that get a Hubbard U."""
    from dft.electrons import open_shell

    return open_shell(structure) is not None or bool(hubbard_u(structure))


def hubbard_u(structure: Structure) -> dict[str, float]:
    """U in eV by element, as the Materials Project applies it: oxides and fluorides only."""
    from pymatgen.io.vasp.sets import MPRelaxSet

    table = MPRelaxSet.CONFIG["INCAR"]["LDAUU"]
    symbols = sorted({site.specie for site in structure}, key=lambda specie: specie.X)
    anion = symbols[-1].symbol
    values = table.get(anion, {})
    return {s.symbol: values[s.symbol] for s in symbols if values.get(s.symbol)}
