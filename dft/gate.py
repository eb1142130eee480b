"""The gate: which calculated tensors may be believed, and learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dft.engine import CalculationOutput
from dft.gamma import charge_excess
from dft.settings import GateThresholds
from dft.verdict import Verdict
from screening.symmetry import point_group_rotations, project
from screening.tensors import DielectricTensors, mean_permittivity

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["Judgement", "Verdict", "judge", "second_look"]

Array = NDArray[np.float64]
Refusal = tuple[Verdict, str]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the gate says about a calculation.

    Attributes
    ----------
    verdict
        Accepted, or the first reason found for a refusal.
    detail
        One sentence for people, with the numbers.
    tensors
        If accepted: symmetric and exactly invariant under the crystal's point group, in the frame
        of the structure. None if refused, for nothing may be learned from a refused calculation.
    """

    verdict: Verdict
    detail: str
    tensors: DielectricTensors | None = None

    @property
    def accepted(self) -> bool:
        """Whether the tensors may be used."""
        return self.verdict is Verdict.ACCEPTED


def judge(
    structure: Structure, output: CalculationOutput, thresholds: GateThresholds | None = None
) -> Judgement:
    """Accept or refuse the outcome of a calculation.

    The checks go from "the run failed" over "the run does not describe this crystal" to "the
    numbers are impossible"; the first that fails names the verdict. No check depends on the frame:
    structure and tensors turned together get the same verdict.

    A calculation without ionic part is refused as ``incomplete`` even where ε∞ is good: the static
    tensor, on which every task is judged, is not known, and a label that is sometimes half there
    would make "validated" mean two things. Where a mode is imaginary or soft, that is the verdict.

    Parameters
    ----------
    structure
        The calculated structure, in whose Cartesian frame the tensors are written; a run that
        relaxed it says so, and is judged by what it made of it.
    output
        What the engine found.
    thresholds
        Limits, the defaults if None; each gives its reason.
    """
    if output.relaxed_structure is not None:
        from pymatgen.core import Structure as Relaxed

        structure = Relaxed.from_dict(output.relaxed_structure)
    refusal = _refusal(structure, output, thresholds or GateThresholds())
    if refusal is not None:
        return Judgement(*refusal)
    rotations = point_group_rotations(structure)
    electronic, ionic = (project(part, rotations) for _, part in _parts(output))
    static = mean_permittivity(electronic + ionic)
    detail = (
        f"All checks passed: mean ε∞ {mean_permittivity(electronic):.4g}, mean static ε "
        f"{static:.4g}, noise removed by symmetry at most {_noise(output, rotations):.1e}."
    )
    return Judgement(Verdict.ACCEPTED, detail, DielectricTensors(electronic, ionic))


def second_look(
    judgement: Judgement,
    predicted: float,
    spread: float,
    thresholds: GateThresholds | None = None,
) -> str | None:
    """Why a person should look at an accepted result again; None if there is no reason.

    The result stays accepted: a model that is wrong is what calculations are there to find, but
    its surprise is the cheapest sign of a calculation that went wrong in a way no check knows.

    Parameters
    ----------
    judgement
        What the gate said.
    predicted, spread
        The model's mean permittivity (trace/3 of the static tensor) and its standard deviation.
    thresholds
        Limits, the defaults if None.
    """
    limits = thresholds or GateThresholds()
    tensors = judgement.tensors
    if tensors is None or tensors.static is None or not predicted > 0 or not np.isfinite(spread):
        return None
    found = float(mean_permittivity(tensors.static))
    ratio = max(found / predicted, predicted / found)
    off = abs(found - predicted)
    if ratio < limits.second_look_ratio or off < limits.second_look_sigmas * spread:
        return None
    return (
        f"Second look: the calculated mean permittivity {found:.3g} is far from the predicted "
        f"{predicted:.3g} ± {spread:.2g}."
    )


def _refusal(
    structure: Structure, output: CalculationOutput, limits: GateThresholds
) -> Refusal | None:
    """The first check that fails; each may rely on those before it."""
    failure = _run(output)
    if failure is not None:
        return failure
    electronic = output.electronic
    if electronic is None:
        # An engine that finds no gap goes no further.
        return _gap(output.band_gap, limits) or (
            Verdict.INCOMPLETE, "The run gave no electronic tensor.",
        )  # fmt: skip
    return (
        _shape(structure, output)
        or _gap(output.band_gap, limits)
        or _insulator(electronic, limits)
        or _modes(electronic, output.min_optical_thz, limits)
        or _symmetric(structure, output, limits)
        or _eigenvalues(electronic, output.ionic, limits)
        or _neutral(output.born_charges, limits)
    )


def _run(output: CalculationOutput) -> Refusal | None:
    if output.unsupported is not None:
        return Verdict.UNSUPPORTED, f"Not calculated: {output.unsupported.rstrip('.')}."
    if output.timed_out:
        return Verdict.TIMEOUT, f"Stopped at the time limit after {output.wall_s:.0f} s."
    if output.error is not None:
        return Verdict.ENGINE_ERROR, f"The engine failed: {output.error.rstrip('.')}."
    if not output.converged:
        return Verdict.UNCONVERGED, "The run ended before it was self-consistent."
    return None


def _shape(structure: Structure, output: CalculationOutput) -> Refusal | None:
    for name, part in _parts(output):
        if part.shape != (3, 3):
            return Verdict.NOT_FINITE, f"The {name} tensor has the shape {part.shape}."
        if not np.isfinite(part).all():
            count = int((~np.isfinite(part)).sum())
            return Verdict.NOT_FINITE, f"{count} of 9 elements of the {name} tensor are no numbers."
    charges = output.born_charges
    if charges is not None:
        wanted = (len(structure), 3, 3)
        if charges.shape != wanted or not np.isfinite(charges).all():
            return Verdict.ENGINE_ERROR, (
                f"The Born charges are not {wanted[0]} finite 3×3 tensors, one per atom "
                f"(their shape is {charges.shape})."
            )
    return None


def _gap(band_gap: float | None, limits: GateThresholds) -> Refusal | None:
    gap = _number(band_gap)
    if gap is not None and gap <= limits.metallic_gap:
        return Verdict.METALLIC, (
            f"The band gap of the run is {gap:.3f} eV, not above {limits.metallic_gap:g} eV."
        )
    return None


def _insulator(electronic: Array, limits: GateThresholds) -> Refusal | None:
    largest = float(np.linalg.eigvalsh((electronic + electronic.T) / 2)[2])
    if largest > limits.metallic_electronic:
        return Verdict.METALLIC, (
            f"The largest eigenvalue of ε∞ is {largest:.4g}, above "
            f"{limits.metallic_electronic:g}: the gap closed in the run."
        )
    distance = _norm(electronic - np.eye(3))
    if distance <= limits.identity_distance:
        return Verdict.ELECTRONIC_IS_IDENTITY, (
            f"ε∞ differs from the identity by {distance:.1e} only: "
            "the response was never calculated."
        )
    return None


def _modes(
    electronic: Array, min_optical_thz: float | None, limits: GateThresholds
) -> Refusal | None:
    lowest = _number(min_optical_thz)
    if lowest is None:
        return None
    aside = f"mean ε∞ is {mean_permittivity(electronic):.4g}"
    if lowest < limits.imaginary_thz:
        return Verdict.IMAGINARY_MODE, (
            f"The lowest optical mode at Γ is imaginary ({lowest:.2f} THz, below "
            f"{limits.imaginary_thz:g} THz): the crystal is not stable in this structure and its "
            f"ionic part means nothing ({aside})."
        )
    if lowest < limits.soft_thz:
        return Verdict.SOFT_MODE, (
            f"The lowest optical mode at Γ is at {lowest:.2f} THz, below {limits.soft_thz:g} THz: "
            f"the ionic part, which goes as 1/ω², is not determined ({aside})."
        )
    return None


def _symmetric(
    structure: Structure, output: CalculationOutput, limits: GateThresholds
) -> Refusal | None:
    rotations = point_group_rotations(structure)
    for name, part in _parts(output):
        skew = _norm(part - part.T) / 2 / _scale(part)
        if skew > limits.max_skew:
            return Verdict.NOT_SYMMETRIC, (
                f"The {name} tensor is not symmetric: its antisymmetric part is {skew:.1%} of its "
                f"largest eigenvalue, more than {limits.max_skew:.1%}."
            )
        symmetric = (part + part.T) / 2
        deviation = _norm(symmetric - project(symmetric, rotations)) / _scale(part)
        if deviation > limits.max_point_group_deviation:
            return Verdict.NOT_SYMMETRIC, (
                f"The {name} tensor violates the point group of the crystal "
                f"({len(rotations)} operations) by {deviation:.1%} of its largest eigenvalue, more "
                f"than {limits.max_point_group_deviation:.1%}."
            )
    return None


def _eigenvalues(electronic: Array, ionic: Array | None, limits: GateThresholds) -> Refusal | None:
    smallest = _smallest(electronic)
    if smallest < 1 - limits.electronic_slack:
        return Verdict.EIGENVALUE_BELOW_1, (
            f"The smallest eigenvalue of ε∞ is {smallest:.4g}; electrons only screen, "
            "so that it cannot be below 1."
        )
    if ionic is None:
        return Verdict.INCOMPLETE, (
            f"The run gave no ionic part (mean ε∞ is {mean_permittivity(electronic):.4g}), "
            "and names no unstable mode."
        )
    smallest = _smallest(ionic)
    if smallest < -limits.ionic_slack:
        return Verdict.IONIC_EIGENVALUE_BELOW_0, (
            f"The smallest eigenvalue of the ionic part is {smallest:.4g}; "
            "the lattice of a stable crystal cannot lower the permittivity."
        )
    return None


def _neutral(charges: Array | None, limits: GateThresholds) -> Refusal | None:
    if charges is None:
        return None
    excess = charge_excess(charges)
    if excess > limits.born_charge_sum:
        return Verdict.BORN_CHARGES_NOT_NEUTRAL, (
            f"The Born charges add up to {excess:.3f} e per atom instead of 0, "
            f"more than {limits.born_charge_sum:g} e."
        )
    return None


def _parts(output: CalculationOutput) -> list[tuple[str, Array]]:
    """The tensors that are there, by name."""
    both = (("electronic", output.electronic), ("ionic", output.ionic))
    return [(name, part) for name, part in both if part is not None]


def _noise(output: CalculationOutput, rotations: Array) -> float:
    return max(_norm(part - project(part, rotations)) / _scale(part) for _, part in _parts(output))


def _number(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _norm(tensor: Array) -> float:
    """Spectral norm: the same in every frame, unlike the largest element."""
    return float(np.linalg.norm(tensor, 2))


def _scale(tensor: Array) -> float:
    return max(_norm(tensor), 1.0)


def _smallest(tensor: Array) -> float:
    return float(np.linalg.eigvalsh((tensor + tensor.T) / 2)[0])
