"""The job behind the replay engine; imported where calculations run, so it imports little."""

from __future__ import annotations

import dataclasses
import datetime
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from jobflow.core.job import job

from dft.engine import CalculationOutput
from dft.verdict import Verdict

EXECUTIONS = "executions.log"
"""One line when a calculation really starts and one when it ends, in its directory."""


@job
def replay(
    answer: dict[str, Any], n_sites: int, failure: str | None, delay_s: float, stall_s: float
) -> dict[str, Any]:
    """Give ``answer`` after ``delay_s`` seconds, or fail as told.

    Parameters
    ----------
    answer
        A :class:`CalculationOutput` as a dictionary.
    n_sites
        Atoms of the structure.
    failure
        Verdict that the answer is spoiled to earn, or None.
    stall_s
        How long a calculation told to time out hangs.

    Raises
    ------
    RuntimeError
        Told to end in an engine error.
    """
    note("start")
    try:
        output = CalculationOutput.from_dict(answer)
        if failure is not None and output.error is None:
            if failure == Verdict.ENGINE_ERROR:
                raise RuntimeError("the replay engine was told to fail")
            if failure == Verdict.TIMEOUT:
                time.sleep(stall_s)
            output = spoil(output, Verdict(failure), n_sites)
        time.sleep(delay_s)
        return output.to_dict()
    finally:
        note("end")


def spoil(output: CalculationOutput, failure: Verdict, n_sites: int) -> CalculationOutput:
    """Change the raw facts as a run that fails in this way would have left them.

    What else might be wrong with the known answer is put right first, so that the gate has one
    reason to refuse it and no other.
    """
    electronic = np.eye(3) * 3.0 if output.electronic is None else output.electronic
    ionic = np.eye(3) if output.ionic is None else output.ionic
    sound = dataclasses.replace(
        output,
        electronic=electronic,
        ionic=ionic,
        born_charges=None,
        min_optical_thz=None,
        band_gap=None,
        converged=True,
    )
    return dataclasses.replace(sound, **_damage(failure, electronic, ionic, n_sites))


def _damage(
    failure: Verdict, electronic: np.ndarray, ionic: np.ndarray, n_sites: int
) -> dict[str, Any]:
    lowest = float(np.linalg.eigvalsh(electronic)[0])
    skewed, holed = electronic.copy(), electronic.copy()
    # One element off the diagonal: wrong in every crystal system, triclinic included.
    skewed[0, 1] += 0.4 * float(np.linalg.norm(electronic, 2))
    holed[2, 2] = np.nan
    damages: dict[Verdict, dict[str, Any]] = {
        Verdict.UNCONVERGED: {"converged": False},
        Verdict.METALLIC: {"band_gap": 0.0},
        Verdict.ELECTRONIC_IS_IDENTITY: {"electronic": np.eye(3)},
        Verdict.IMAGINARY_MODE: {"min_optical_thz": -1.5},
        Verdict.SOFT_MODE: {"min_optical_thz": 0.1},
        Verdict.NOT_SYMMETRIC: {"electronic": skewed},
        Verdict.EIGENVALUE_BELOW_1: {"electronic": electronic - (lowest - 0.5) * np.eye(3)},
        Verdict.IONIC_EIGENVALUE_BELOW_0: {
            "ionic": ionic - (float(np.linalg.eigvalsh(ionic)[0]) + 0.5) * np.eye(3)
        },
        Verdict.NOT_FINITE: {"electronic": holed},
        Verdict.BORN_CHARGES_NOT_NEUTRAL: {"born_charges": np.tile(np.eye(3), (n_sites, 1, 1))},
        Verdict.INCOMPLETE: {"ionic": None},
        Verdict.TIMEOUT: {"timed_out": True},
        Verdict.UNSUPPORTED: {"unsupported": "the replay engine was told to refuse it"},
    }
    return damages[failure]


def note(event: str) -> None:
    """Append one line, in one write, so that lines of two processes could never mix."""
    now = datetime.datetime.now(datetime.UTC).isoformat()
    with Path(EXECUTIONS).open("ab", buffering=0) as log:
        log.write(f"{now} {event} pid={os.getpid()}\n".encode())
