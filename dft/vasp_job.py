"""The job behind the VASP engine; imported where calculations run.

Each attempt is atomate2's job in a directory of its own: its inputs, VASP under custodian with all
its handlers, and the TaskDoc made of the outputs. What custodian cannot repair is tried again with
another setting, if there is one that the failure asks for.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from custodian.custodian import ValidationError
from jobflow.core.job import job

from dft import attempts as book
from dft.calculation import Calculation
from dft.engine import CalculationOutput
from dft.execution import STORAGE_ERRORS, failed, os_errno
from dft.gamma import charge_excess, largest_acoustic, lowest_optical
from dft.ladder import doubtful_charges, doubtful_mode
from dft.replay_job import note
from dft.vasp_presets import cutoff, input_set
from dft.vasp_settings import VaspSettings
from screening.io import atomic_write, disk_is_full

if TYPE_CHECKING:
    from pymatgen.core import Structure

NAME = "vasp"
FUNCTIONAL = "PBE"
OUTCOME = "outcome.json"
DENSER, HIGHER = 1.33, 1.25
"""By how much the mesh, along each axis, and the cutoff are raised where charges do not add up."""
TAG_BYTES = 64
"""At either end of a file, enough to see whether it is whole."""
POLL_S, MONITOR_S = 1, 60
"""How often custodian looks whether VASP has ended, and whether something goes wrong in it."""


@job
def calculate(
    structure: Structure, settings: dict[str, Any], potcar_spec: bool = False
) -> dict[str, Any]:
    """Climb the ladder of attempts; the output is a :class:`~dft.engine.CalculationOutput`."""
    note("start")
    try:
        chosen = VaspSettings.model_validate(settings)
        return climb(structure, chosen, potcar_spec=potcar_spec).to_dict()
    finally:
        note("end")


class _NotStartedError(Exception):
    """VASP does not begin: it is not there, or something that it needs is not."""


@dataclass(frozen=True)
class Rung:
    """What one attempt does.

    Attributes
    ----------
    incar
        Tags that replace those of the preset.
    relax
        Whether the cell is relaxed first.
    why
        What is different from the attempt before, for people.
    denser
        Factor by which the mesh has more points along each axis than that of the preset.
    """

    incar: dict[str, Any]
    relax: bool
    why: str
    denser: float = 1.0


def climb(
    structure: Structure, settings: VaspSettings, *, potcar_spec: bool = False
) -> CalculationOutput:
    """Attempt after attempt, until one succeeds or nothing promises to help."""
    order = _sorting(structure)
    ordered = structure.from_sites([structure[i] for i in order])
    rung = Rung(dict(settings.incar), settings.relax == "cell", "as the preset says")
    attempts: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    for number in range(1, settings.max_attempts + 1):
        print(f"attempt {number}: {rung.why}")  # noqa: T201 - goes to run.log
        place = Path(f"attempt-{number}").absolute()
        chosen = {
            "preset": settings.preset, "incar": rung.incar, "relax": rung.relax,
            "denser": rung.denser,
        }  # fmt: skip
        book.begin(place, number, rung.why, chosen)
        try:
            found = _attempt(place, ordered, settings, rung, potcar_spec)
        except _NotStartedError as error:
            return failed(Calculation(Path.cwd()), str(error), external=True)
        facts.append(found)
        failure = _failure(found)
        attempts.append(
            {
                "number": number, "why": rung.why, "failure": failure, "settings": chosen,
                "cpu_s": found["cpu_s"], "wall_s": found["wall_s"],
                "corrections": found["corrections"],
            }
        )  # fmt: skip
        book.end(place, attempts[-1])
        following = None if failure is None else _next_rung(settings, rung, found, number)
        if following is None:
            break
        rung = following
    good = [f for f in facts if f.get("electronic") is not None and f["converged"]]
    return _output((good or facts)[-1], attempts, order)


def _attempt(
    place: Path, structure: Structure, settings: VaspSettings, rung: Rung, potcar_spec: bool
) -> dict[str, Any]:
    """Facts of one attempt; one that is finished is not repeated."""
    try:
        return dict(json.loads((place / OUTCOME).read_bytes()))
    except (OSError, ValueError):
        pass
    begun, before = time.monotonic(), _cpu()
    facts: dict[str, Any] = {"converged": False, "error": None}
    try:
        if rung.relax:
            document = _run(place / "relax", structure, settings, rung, potcar_spec, relax=True)
            if document.state != "successful":
                raise RuntimeError("the relaxation did not converge")
            structure = document.structure
            facts["relaxed_structure"] = json.loads(json.dumps(structure.as_dict()))
        facts |= _facts(_run(place / "response", structure, settings, rung, potcar_spec))
    except Exception as error:  # custodian, atomate2 and the parsers raise anything
        if os_errno(error) in STORAGE_ERRORS or disk_is_full(place):
            raise OSError(28, os.strerror(28), str(place)) from error
        said = _missing(place) if isinstance(error, ValidationError) else None
        said = said or f"{type(error).__name__}: {error}"
        text = " ".join(said.split())[:400].rstrip(".")
        if _never_began(place):
            raise _NotStartedError(text) from error
        seen = _seen_by_custodian(place)
        # Custodian ends with an exception where its remedies did not bring convergence.
        if not any("unconverged" in error.lower() for error in seen[-1:]):
            facts["error"] = f"{text} (custodian saw: {', '.join(seen)})" if seen else text
    facts["corrections"] = _seen_by_custodian(place)
    facts |= {"cpu_s": round(_cpu() - before, 2), "wall_s": round(time.monotonic() - begun, 2)}
    atomic_write(place / OUTCOME, json.dumps(facts, indent=1) + "\n")
    return facts


def _run(
    place: Path, structure: Structure, settings: VaspSettings, rung: Rung, potcar_spec: bool,
    *, relax: bool = False,
) -> Any:  # fmt: skip
    """One VASP run in ``place``, as atomate2 does it; returns its TaskDoc.

    A run that was interrupted is begun anew: VASP cannot go on inside a response.
    """
    import shutil

    from atomate2.vasp.jobs.core import DielectricMaker, RelaxMaker
    from jobflow.core.store import JobStore
    from jobflow.managers.local import run_locally
    from maggma.stores import MemoryStore

    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    kind: Any = RelaxMaker if relax else DielectricMaker
    maker = kind(
        input_set_generator=input_set(
            settings.preset, rung.incar, structure, relaxation=relax, denser=rung.denser
        ),
        write_input_set_kwargs={"potcar_spec": True} if potcar_spec else {},
        run_vasp_kwargs={
            # The Γ-only program has no response to electric fields: never let it be chosen.
            "vasp_cmd": settings.command,
            "vasp_gamma_cmd": settings.command,
            "max_errors": settings.max_corrections,
            "custodian_kwargs": {
                "max_errors_per_job": settings.max_corrections,
                "polling_time_step": POLL_S,
                "monitor_freq": round(MONITOR_S / POLL_S),
            },
        },
        stop_children_kwargs={"handle_unsuccessful": True},
    )
    work = maker.make(structure)
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    responses = run_locally(
        work, store=store, create_folders=False, root_dir=place, raise_immediately=True, log=False
    )
    return responses[work.uuid][1].output


def _seen_by_custodian(place: Path) -> list[str]:
    """Names of the errors that custodian found and acted upon, in the order of its log."""
    import gzip

    found: list[str] = []
    for path in sorted(place.glob("*/custodian.json*")):
        data = path.read_bytes()
        try:
            runs = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        except (OSError, ValueError):
            continue
        for run in runs:
            for correction in run.get("corrections", []):
                found += [str(error) for error in correction.get("errors", [])]
    return list(dict.fromkeys(found))


def _last_run(place: Path) -> Path:
    return next((place / n for n in ("response", "relax") if (place / n).is_dir()), place)


def _never_began(place: Path) -> bool:
    """Whether VASP had its inputs and did not open OUTCAR, its first act."""
    run = _last_run(place)
    return (run / "INCAR").exists() and not any(run.glob("OUTCAR*"))


def _missing(place: Path) -> str | None:
    """Why custodian could not read the last run's ``vasprun.xml``; None if it looks whole."""
    run = _last_run(place)
    try:
        with (run / "vasprun.xml").open("rb") as file:
            begin = file.read(TAG_BYTES)
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAG_BYTES))
            end = file.read()
    except FileNotFoundError:
        last = _text(run / "std_err.txt").rpartition("\n")[2]
        return f"VASP left no vasprun.xml; {last or 'it was killed'}"
    if not begin.lstrip().startswith(b"<"):
        return "vasprun.xml is no XML"
    if not end.rstrip().endswith(b"</modeling>"):
        return "vasprun.xml breaks off: VASP ended while it wrote"
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _facts(document: Any) -> dict[str, Any]:
    """What a TaskDoc says, as fields of :class:`~dft.engine.CalculationOutput`."""
    calculation = document.calcs_reversed[0]
    output = calculation.output
    charges = (output.outcar or {}).get("born")
    frequencies = getattr(output, "normalmode_frequencies", None)
    facts: dict[str, Any] = {
        "converged": document.state == "successful",
        "electronic": _plain(output.epsilon_static),
        "ionic": _plain(output.epsilon_ionic),
        "born_charges": None if charges is None or not len(charges) else _plain(charges),
        "band_gap": output.bandgap,
        "version": str(calculation.vasp_version),
        "cost": {
            "volume": float(document.structure.volume),
            "n_kpoints": calculation.input.nkpoints,
        },
    }
    electrons = (calculation.input.parameters or {}).get("NELECT")
    if electrons is not None:
        facts["cost"]["n_electrons"] = float(electrons)
    if frequencies is not None and len(frequencies):
        values = np.sort(np.array(frequencies, dtype=float))
        facts["frequencies_thz"] = values.tolist()
        facts["min_optical_thz"] = lowest_optical(values)
        facts["acoustic_thz"] = largest_acoustic(values)
    return facts


def _failure(facts: dict[str, Any]) -> str | None:
    """Why an attempt is not good enough, or None."""
    if facts["error"] is not None:
        return str(facts["error"])
    if facts.get("band_gap") is not None and facts["band_gap"] <= 0:
        return None  # a metal stays one
    if not facts["converged"]:
        return "electronic self-consistency not reached"
    if _charged(facts):
        excess = charge_excess(np.array(facts["born_charges"]))
        return f"Born charges add up to {excess:.3f} e per atom"
    if doubtful_mode(facts.get("min_optical_thz")):
        return f"lowest optical mode at {facts['min_optical_thz']:.2f} THz"
    return None


def _charged(facts: dict[str, Any]) -> bool:
    charges = facts.get("born_charges")
    return charges is not None and doubtful_charges(charge_excess(np.array(charges)))


def _next_rung(
    settings: VaspSettings, rung: Rung, facts: dict[str, Any], count: int
) -> Rung | None:
    """The setting that the failure asks for; None if nothing promises to help.

    Within a run custodian has already tried its own remedies.
    """

    def changed(why: str, **tags: Any) -> Rung | None:
        if all(rung.incar.get(name) == value for name, value in tags.items()):
            return None
        return replace(rung, incar=rung.incar | tags, why=why)

    error = (facts["error"] or "").lower()
    if error:
        if any(word in error for word in ("lrf_commutator", "commutator", "lepsilon")):
            return changed("LPEAD: derivatives in k by finite differences", LPEAD=True)
        if any(word in error for word in ("symmetry", "rhosyg", "posmap", "pricel", "sgrcon")):
            return changed("symmetry recognised within 1e-6", SYMPREC=1e-6)
        if any(word in error for word in ("brmix", "edddav", "zbrent", "unconverged", "nelm")):
            return changed("slower but safer minimisation", ALGO="Normal", NELM=200)
        return None
    if not facts["converged"]:
        if count == 1:
            return changed("slower but safer minimisation", ALGO="Normal", NELM=200)
        return changed("all bands at once, small steps", ALGO="All", NELM=300, TIME=0.1)
    if _charged(facts):
        # As with ABINIT: the sum falls with the mesh, and the cutoff comes second.
        if rung.denser == 1:
            return replace(rung, denser=DENSER, why="a third more k-points along each axis")
        if rung.denser == DENSER:
            encut = round(HIGHER * rung.incar.get("ENCUT", cutoff(settings.preset)))
            return replace(
                rung, incar=rung.incar | {"ENCUT": encut}, denser=DENSER**2,
                why=f"a third more again, and a cutoff of {encut} eV",
            )  # fmt: skip
        return None
    if not rung.relax:
        return replace(rung, relax=True, why="relax cell and positions tightly first")
    return None


def _output(
    facts: dict[str, Any], attempts: list[dict[str, Any]], order: Sequence[int]
) -> CalculationOutput:
    facts = dict(facts)
    version = facts.pop("version", "")
    facts.pop("corrections", None)
    cost = facts.pop("cost", {}) | {"cpu_s": round(sum(a["cpu_s"] for a in attempts), 2)}
    back = np.argsort(order).tolist()
    charges = facts.get("born_charges")
    if charges is not None and len(charges) == len(back):
        facts["born_charges"] = [charges[i] for i in back]
    if (relaxed := facts.get("relaxed_structure")) is not None:
        from pymatgen.core import Structure

        crystal = Structure.from_dict(relaxed)
        moved = Structure.from_sites([crystal[i] for i in back])
        facts["relaxed_structure"] = json.loads(json.dumps(moved.as_dict()))
    record = CalculationOutput.failure(NAME, version).to_dict() | {"timed_out": False}
    record |= facts | {
        "functional": FUNCTIONAL if facts["error"] is None else "",
        "attempts": attempts,
        "cost": cost,
    }
    return CalculationOutput.from_dict(record)


def _sorting(structure: Structure) -> list[int]:
    """Atoms in the order in which POSCAR and POTCAR need them, one block per element."""
    return sorted(
        range(len(structure)), key=lambda i: (structure[i].specie.X, str(structure[i].specie))
    )


def _plain(tensor: Any) -> Any:
    return None if tensor is None else np.asarray(tensor, dtype=float).tolist()


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
