"""One attempt at a crystal's dielectric tensors: ABINIT with one set of parameters."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dft import abinit_parse as parse
from dft.abinit_input import Inputs, Tuning, anaddb
from dft.abinit_run import (
    AbinitError,
    NotStartedError,
    Programs,
    StepRecord,
    Steps,
    perturbations,
)
from dft.abinit_settings import NARROW_EV
from dft.abinit_symmetry import Operations, completed
from dft.gamma import charge_excess, largest_acoustic, lowest_optical
from dft.ladder import Failure, Finding, classify, doubtful_charges, doubtful_mode
from screening.io import atomic_write
from screening.symmetry import cell_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from dft.pseudopotentials import Pseudopotential

OUTCOME = "outcome.json"
RELAX, SCF, GAP, DDK, RESPONSE = "1-relax", "2-ground-state", "3-gap", "4-ddk", "5-response"
DATABASE = "completed_DDB"
ANALYSES = ("6-analysis-raw", "7-analysis-lattice", "8-analysis")
FREE_TO_MOVE = 1e-4
"""Å: what symmetry must leave of a random displacement for relaxing positions to make sense."""


@dataclass
class Outcome:
    """What an attempt found; plain values, as they go to ``outcome.json``.

    Attributes
    ----------
    facts
        Fields of :class:`~dft.engine.CalculationOutput`, as JSON.
    cost
        See :attr:`dft.engine.CalculationOutput.cost`.
    finding
        What was wrong, or None.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    finding: Finding | None = None
    wall_s: float = 0.0

    @property
    def gave_tensors(self) -> bool:
        """Whether there is at least ε∞ to judge."""
        return self.facts.get("electronic") is not None

    def to_json(self) -> str:
        """The content of ``outcome.json``."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Outcome | None:
        """What a finished attempt found; None if it is not finished."""
        try:
            data = json.loads(path.read_bytes())
            finding = data.pop("finding")
            if finding is not None:
                finding = Finding(**{**finding, "failure": Failure(finding["failure"])})
            return cls(**data, finding=finding)
        except (OSError, ValueError, TypeError, KeyError):
            return None


class Attempt:
    """All steps with one set of parameters, in ``directory``.

    Parameters
    ----------
    directory
        Made if it does not exist; an interrupted attempt goes on in it.
    structure
        The crystal.
    pseudopotentials
        By element.
    tuning
        The parameters.
    programs
        How to start ABINIT.
    """

    def __init__(
        self, directory: Path, structure: Structure,
        pseudopotentials: dict[str, Pseudopotential], tuning: Tuning, programs: Programs,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.structure = structure
        self.pseudopotentials = pseudopotentials
        self.tuning = tuning
        self.steps = Steps(directory, programs)
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Do what is not done yet.

        Raises
        ------
        NotStartedError
            ABINIT does not start, which is nobody's outcome.
        OSError
            No space is left.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        known = Outcome.read(self.directory / OUTCOME)
        if known is None:
            try:
                self.outcome.finding = self._run()
            except NotStartedError:
                raise
            except AbinitError as error:
                self.outcome.finding = Finding(classify(error.reason), str(error))
            atomic_write(self.directory / OUTCOME, self.outcome.to_json())
        # Also where it was interrupted between the two.
        self.steps.discard_bulk()
        return known or self.outcome

    def _run(self) -> Finding | None:
        facts = self.outcome.facts
        structure = self._relax()
        inputs = self._inputs(structure)
        self.outcome.cost |= {"n_electrons": inputs.n_electrons, "volume": structure.volume}
        ground = self._step(SCF, inputs.ground_state(), {})
        density, orbitals = (self.directory / SCF / f"runo_{name}" for name in ("DEN", "WFK"))
        self._step(GAP, inputs.gap(), {"in_DEN": density})
        bands = parse.bands(self.directory / GAP / "runo_EIG.nc", inputs.occupied)
        facts["band_gap"] = bands.gap
        self.outcome.cost["n_kpoints"] = bands.n_kpoints
        # A metal often fails to converge with fixed occupations; that it is one comes first.
        facts["converged"] = ground.converged or bands.gap <= 0
        if bands.gap <= 0 and (ground.converged or self.tuning.empty):
            return None
        if not ground.converged:
            return Finding(
                Failure.GROUND_STATE, f"no self-consistency in {inputs.tuning.scf_steps}"
            )
        if bands.direct_gap < NARROW_EV and self.tuning.refine:
            return Finding(Failure.MESH, f"direct gap of {bands.direct_gap:.2f} eV")
        operations = Operations.read(self.directory / SCF / "runo_GSR.nc")
        along = operations.directions()
        ddk = self._step(DDK, inputs.ddk(along), {"in_WFK": orbitals})
        links = {"in_WFK": orbitals}
        for number in (3 * len(structure) + 1 + direction for direction in along):
            links[f"in_1WF{number}"] = self.directory / DDK / f"runo_1WF{number}"
        again = self.steps.restartable(RESPONSE)
        response = self._step(RESPONSE, inputs.response(restart=again), links)
        self.outcome.cost["n_perturbations"] = perturbations(self.directory / RESPONSE)
        facts["converged"] = ddk.converged and response.converged
        calculated = self.directory / RESPONSE / "runo_DDB"
        database = calculated.with_name(DATABASE)
        text = calculated.read_text(encoding="utf-8")
        atomic_write(database, completed(text, operations, along))
        finding = self._analyse(structure, database)
        if not facts["converged"]:
            where = "derivatives in k" if not ddk.converged else "response"
            return Finding(Failure.RESPONSE, f"{where} not converged")
        return finding

    def _relax(self) -> Structure:
        if self.tuning.relax == "none":
            return self.structure
        structure = self.structure
        # The plane waves belong to the first cell: a second run makes up for what it changed.
        runs = ("", "-again") if self.tuning.relax == "cell" else ("",)
        for suffix in runs:
            name = RELAX + suffix
            step = self._step(name, self._inputs(structure).relaxation(), {})
            if not step.converged:
                raise AbinitError(name, "forces did not vanish in the steps allowed")
            structure = parse.relaxed(self.directory / name / "runo_GSR.nc", structure)
        self.outcome.facts["relaxed_structure"] = json.loads(json.dumps(structure.as_dict()))
        return structure

    def _inputs(self, structure: Structure) -> Inputs:
        files = {e: p.path.name for e, p in self.pseudopotentials.items()}
        electrons = sum(self.pseudopotentials[s.specie.symbol].valence for s in structure)
        is_paw = next(iter(self.pseudopotentials.values())).is_paw
        return Inputs(structure, files, "../../paw", round(electrons), is_paw, self.tuning)

    def _step(self, name: str, text: str, links: dict[str, Path]) -> StepRecord:
        record = self.steps.run(name, text, links)
        cost = self.outcome.cost
        cost.setdefault("steps", {})[name] = round(record.cpu_s, 2)
        cost["cpu_s"] = round(sum(cost["steps"].values()), 2)
        cost["restarts"] = cost.get("restarts", 0) + record.restarts
        self.outcome.wall_s = round(self.outcome.wall_s + record.wall_s, 2)
        return record

    def _analyse(self, structure: Structure, database: Path) -> Finding | None:
        """Tensors, charges and frequencies; a finding if the gate would not like them."""
        facts = self.outcome.facts
        raw = self._anaddb(0, database, sum_rules=False, ionic=False)
        lattice = self._anaddb(1, database, sum_rules=True, ionic=False)
        facts["electronic"] = lattice.electronic.tolist()
        # As calculated: how far they are from neutrality is for the gate to see.
        facts["born_charges"] = raw.born_charges.tolist()
        facts["frequencies_thz"] = lattice.frequencies_thz.tolist()
        facts["acoustic_thz"] = largest_acoustic(raw.frequencies_thz)
        lowest = lowest_optical(lattice.frequencies_thz)
        facts["min_optical_thz"] = lowest
        if lowest is None:
            facts["ionic"] = np.zeros((3, 3)).tolist()
        elif lowest > 0:
            full = self._anaddb(2, database, sum_rules=True, ionic=True)
            if full.static is not None:
                facts["ionic"] = (full.static - full.electronic).tolist()
        total = charge_excess(raw.born_charges)
        if doubtful_charges(total):
            return Finding(Failure.NEUTRALITY, f"Born charges add up to {total:.3f} e per atom")
        if doubtful_mode(lowest):
            detail = f"lowest optical mode at {lowest:.2f} THz"
            return Finding(Failure.MODE, detail, lowest, can_relax(structure))
        return None

    def _anaddb(
        self, number: int, database: Path, *, sum_rules: bool, ionic: bool
    ) -> parse.Response:
        text = anaddb(sum_rules=sum_rules, ionic=ionic)
        return parse.response(self.steps.analyse(ANALYSES[number], text, database))


def can_relax(structure: Structure) -> bool:
    """Whether any displacement of the atoms, other than a translation, keeps the symmetry."""
    import spglib

    cell: Any = cell_of(structure)
    found = spglib.get_symmetry(cell, symprec=0.01)
    if found is None:
        return True
    lattice, positions, _ = cell
    shifts = np.random.default_rng(0).normal(size=positions.shape)
    total = np.zeros_like(positions)
    for rotation, translation in zip(found["rotations"], found["translations"], strict=True):
        images = positions @ rotation.T + translation
        difference = images[:, None] - positions[None]
        difference -= np.round(difference)
        target = np.linalg.norm(difference @ lattice, axis=-1).argmin(axis=1)
        total[target] += shifts @ rotation.T
    allowed = total / len(found["rotations"])
    allowed -= allowed.mean(axis=0)
    return bool(np.abs(allowed @ lattice).max() > FREE_TO_MOVE)
