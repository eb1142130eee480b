"""The job behind the ABINIT engine; imported where calculations run."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow.core.flow import Flow
from jobflow.core.job import job
from jobflow.core.maker import Maker

from dft import attempts as book
from dft import pseudopotentials as pseudo
from dft.abinit_attempt import Attempt, Outcome
from dft.abinit_input import Tuning
from dft.abinit_run import NotStartedError, Programs
from dft.abinit_settings import AbinitSettings
from dft.calculation import Calculation
from dft.engine import CalculationOutput
from dft.execution import failed
from dft.ladder import Failure, next_rung
from dft.replay_job import note

if TYPE_CHECKING:
    from pymatgen.core import Structure

NAME = "abinit"
FUNCTIONAL = "PBE"
PAW = "paw"
"""Directory with the pseudopotentials of this calculation, unpacked."""


@dataclass
class AbinitDielectricMaker(Maker):
    """Makes flows that calculate ε∞, the ionic part, Born charges and frequencies at Γ.

    Attributes
    ----------
    name
        Of the flow.
    settings
        :class:`~dft.abinit_settings.AbinitSettings` as JSON.
    """

    name: str = "abinit dielectric"
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self, structure: Structure) -> Flow:
        """The flow for one crystal; it runs in the directory it is started in."""
        work = calculate(structure, self.settings)
        work.name = f"abinit {structure.composition.reduced_formula}"
        return Flow([work], output=work.output, name=work.name)


@job
def calculate(structure: Structure, settings: dict[str, Any]) -> dict[str, Any]:
    """Climb the ladder of attempts; the output is a :class:`~dft.engine.CalculationOutput`."""
    chosen = AbinitSettings.model_validate(settings)
    note("start")
    try:
        return climb(structure, chosen).to_dict()
    finally:
        note("end")


def climb(structure: Structure, settings: AbinitSettings) -> CalculationOutput:
    """Attempt after attempt, until one succeeds or nothing promises to help.

    Raises
    ------
    UserError
        A pseudopotential is missing.
    OSError
        No space is left.
    """
    programs = Programs(settings.command, settings.mpi_processes)
    elements = {site.specie.symbol for site in structure}
    found = _unpack(pseudo.find(settings.pseudopotentials, elements))
    electrons = sum(found[site.specie.symbol].valence for site in structure)
    if round(electrons) % 2:
        # An odd band is half full: whatever the crystal is, without spin it is a metal.
        return _output(Outcome(facts={"band_gap": 0.0, "converged": True}), [], "")
    tuning = Tuning.first(settings, elements, next(iter(found.values())).is_paw)
    why = "as the settings say"
    attempts: list[dict[str, Any]] = []
    outcomes: list[Outcome] = []
    earlier: list[Failure] = []
    for number in itertools.count(1):
        print(f"attempt {number}: {why}")  # noqa: T201 - goes to run.log
        place = Path(f"attempt-{number}").absolute()
        book.begin(place, number, why, tuning.to_dict())
        try:
            outcome = Attempt(place, structure, found, tuning, programs).run()
        except NotStartedError as error:
            return failed(Calculation(Path.cwd()), str(error), external=True)
        outcomes.append(outcome)
        attempts.append(_record(number, tuning, why, outcome))
        book.end(place, attempts[-1])
        rung = None if outcome.finding is None else next_rung(tuning, outcome.finding, earlier)
        if outcome.finding is None or rung is None:
            break
        earlier.append(outcome.finding.failure)
        # A mesh that turns out too coarse ends an attempt early, and is no failure of it.
        if number >= settings.max_attempts + (Failure.MESH in earlier):
            break
        tuning, why = rung
    return _output(_best(outcomes), attempts, version(programs))


def version(programs: Programs) -> str:
    """What ``abinit --version`` says; empty if it cannot be asked."""
    try:
        found = subprocess.run(
            [programs.abinit()[-1], "--version"], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = found.stdout.split()
    return words[-1] if found.returncode == 0 and words else ""


def _unpack(found: dict[str, pseudo.Pseudopotential]) -> dict[str, pseudo.Pseudopotential]:
    folder = Path(PAW)
    folder.mkdir(exist_ok=True)
    return {e: replace(p, path=folder / p.unpack(folder)) for e, p in found.items()}


def _best(outcomes: list[Outcome]) -> Outcome:
    """The last attempt that gave tensors of a converged run, or simply the last."""
    good = [o for o in outcomes if o.gave_tensors and o.facts.get("converged")]
    return (good or outcomes)[-1]


def _record(number: int, tuning: Tuning, why: str, outcome: Outcome) -> dict[str, Any]:
    finding = outcome.finding
    return {
        "number": number,
        "why": why,
        "settings": tuning.to_dict(),
        "failure": None if finding is None else f"{finding.failure}: {finding.detail}",
        "cpu_s": outcome.cost.get("cpu_s", 0.0),
        "wall_s": outcome.wall_s,
        "steps": outcome.cost.get("steps", {}),
    }


def _output(
    outcome: Outcome, attempts: list[dict[str, Any]], engine_version: str
) -> CalculationOutput:
    facts, finding = dict(outcome.facts), outcome.finding
    error = None
    if finding is not None and finding.failure not in (
        Failure.GROUND_STATE, Failure.RESPONSE, Failure.NEUTRALITY, Failure.MODE
    ):  # fmt: skip
        error = finding.detail
    record = CalculationOutput.failure(NAME, engine_version).to_dict() | {"timed_out": False}
    cost = {**outcome.cost, "cpu_s": round(sum(a["cpu_s"] for a in attempts), 2)}
    record |= facts | {
        "functional": FUNCTIONAL if error is None else "",
        "error": error,
        "attempts": attempts,
        "cost": cost,
    }
    return CalculationOutput.from_dict(record)
