"""What to change when a calculation failed: the setting that its failure asks for.

Each rung answers one kind of failure; a kind that has run out of rungs ends the ladder. The number
of attempts is bounded by the engine's ``max_attempts`` as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import StrEnum

from dft.abinit_input import Tuning
from dft.abinit_settings import FINER
from dft.settings import GateThresholds

EMPTY_BANDS = 4
"""Of a ground state that was not reached with the occupied ones alone. With one pass over the bands
per cycle ZnO as rock salt ran away without them (25 Ha, 4×4×4 k-points), at any mixing; with two it
is reached, in 36 cycles instead of 21."""
SHALLOW_THZ = -1.5
"""An imaginary mode above this may be noise of a coarse mesh; a deeper one is an instability."""


class Failure(StrEnum):
    """Kinds of failure that call for different remedies."""

    GROUND_STATE = "ground state not converged"
    RESPONSE = "response not converged"
    SYMMETRY = "symmetry not recognised"
    MESH = "mesh too coarse for so narrow a gap"
    OVERLAP = "PAW spheres overlap"
    NEUTRALITY = "Born charges not neutral"
    MODE = "imaginary or soft mode"
    PROGRAM = "program failed"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was wrong with an attempt, and the numbers that the remedy depends on.

    Attributes
    ----------
    failure
        Its kind.
    detail
        What happened, for people.
    lowest_thz
        Lowest optical frequency, where that is the failure.
    can_relax
        Whether symmetry leaves atoms any freedom to move.
    """

    failure: Failure
    detail: str
    lowest_thz: float | None = None
    can_relax: bool = False


def classify(message: str) -> Failure:
    """The kind of failure behind an error message of ABINIT."""
    text = message.lower()
    if "overlap" in text and "paw" in text:
        return Failure.OVERLAP
    if any(word in text for word in ("symmetr", "tolsym", "symrel", "bravais", "chkprim", "group")):
        return Failure.SYMMETRY
    return Failure.PROGRAM


def doubtful_mode(lowest_thz: float | None) -> bool:
    """Whether the gate would refuse a lattice with this lowest optical frequency."""
    return lowest_thz is not None and lowest_thz < GateThresholds().soft_thz


def doubtful_charges(sum_per_atom: float) -> bool:
    """Whether the gate would refuse Born charges that add up to so much, in e per atom."""
    return sum_per_atom > GateThresholds().born_charge_sum


def next_rung(
    tuning: Tuning, finding: Finding, earlier: Sequence[Failure]
) -> tuple[Tuning, str] | None:
    """Parameters of the next attempt and why; None if nothing promises to help.

    Parameters
    ----------
    tuning
        Parameters of the attempt that failed.
    finding
        What was wrong with it.
    earlier
        Kinds of the failures before this one.
    """
    count = list(earlier).count(finding.failure)
    match finding.failure:
        case Failure.GROUND_STATE if count < 2:
            mixing = (0.3, 0.1)[count]
            return dataclasses.replace(
                tuning, mixing=mixing, scf_steps=tuning.scf_steps * 2, lines=8, empty=EMPTY_BANDS
            ), (
                f"mix in {mixing:g} of the residual only, allow {tuning.scf_steps * 2} cycles and "
                f"{EMPTY_BANDS} empty bands"
            )
        case Failure.RESPONSE if count < 2:
            mixing = (0.4, 0.2)[count]
            tolerance = tuning.scf_tolerance / 100
            return dataclasses.replace(
                tuning, mixing=mixing, lines=8, scf_tolerance=tolerance,
                response_steps=tuning.response_steps * 2,
            ), f"ground state to {tolerance:.0e}, mix in {mixing:g}, twice the cycles"  # fmt: skip
        case Failure.SYMMETRY if count < 2:
            if tuning.symmetry_tolerance is not None and count == 0:
                return dataclasses.replace(
                    tuning, symmetry_tolerance=1e-3
                ), "recognise symmetry within 1e-3"
            return dataclasses.replace(tuning, symmetry_tolerance=None), "no symmetry"
        case Failure.OVERLAP if count < 1:
            return dataclasses.replace(
                tuning, overlap_percent=25.0
            ), "allow PAW spheres to overlap by 25 %"
        case Failure.MESH if tuning.refine:
            spacing = round(tuning.k_spacing * FINER, 4)
            return dataclasses.replace(
                tuning, k_spacing=spacing, refine=False
            ), f"finer mesh ({spacing:g} 1/Å) for the narrow gap"
        case Failure.NEUTRALITY if count == 0:
            # The sum falls with the mesh; a higher cutoff alone leaves it as it is.
            spacing = _denser(tuning)
            return dataclasses.replace(tuning, k_spacing=spacing), f"finer mesh ({spacing:g} 1/Å)"
        case Failure.NEUTRALITY if count == 1:
            return _finer(tuning)
        case Failure.MODE:
            return _unstable(tuning, finding, count)
        case _:
            return None


def _unstable(tuning: Tuning, finding: Finding, count: int) -> tuple[Tuning, str] | None:
    lowest = finding.lowest_thz
    if tuning.relax == "none" and finding.can_relax:
        return dataclasses.replace(tuning, relax="positions"), "relax the atomic positions first"
    if lowest is not None and lowest > SHALLOW_THZ and count < 1:
        return _finer(tuning)
    return None


def _finer(tuning: Tuning) -> tuple[Tuning, str]:
    ecut, spacing = round(tuning.ecut * 1.25), _denser(tuning)
    return dataclasses.replace(
        tuning, ecut=float(ecut), k_spacing=spacing, fft_box=2.0
    ), f"finer mesh ({spacing:g} 1/Å) and higher cutoff ({ecut} Ha)"


def _denser(tuning: Tuning) -> float:
    return round(tuning.k_spacing * 0.75, 3)
