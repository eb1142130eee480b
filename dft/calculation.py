"""A calculation as a directory that a person can read with ``ls`` and ``cat``.

=====================  =========================================================================
``POSCAR``             the structure, full precision, atoms in the order of the material
``calculation.json``   what is asked: material, engine, settings, key
``flow.json``          the same as a serialised jobflow flow; its presence means "ready to run"
``handle.json``        who ran it last, where, since when, and which attempt that was
``run.log``            what the engine printed
``result.json``        the answer, a :class:`~dft.engine.CalculationOutput`; written in one step
``result.json.broken`` an answer that could not be read, moved aside
``cancelled``          present while nobody is to start it; may say why
``job.json``           the cluster's job it belongs to (see :mod:`dft.allocations`)
``spent.json``         CPU seconds of executions that left no result, by when they began
``.lock``              locked by the kernel while the calculation runs
=====================  =========================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft.engine import CalculationOutput, Engine
from dft.locks import PATIENCE_S, is_locked, try_lock, try_lock_file
from screening.errors import UserError
from screening.io import atomic_write, stable_hash
from screening.material import structure_hash

if TYPE_CHECKING:
    from jobflow.core.flow import Flow

    from screening.material import Material


class State(StrEnum):
    """Where a calculation stands, as its directory shows it."""

    PENDING = "pending"
    """Ready to run, and not running."""
    RUNNING = "running"
    DONE = "done"
    """There is a result, good or bad."""
    LOST = "lost"
    """No result, and none will come before it is prepared and submitted again: it was cancelled,
    or its flow is missing."""


@dataclass(frozen=True)
class Handle:
    """Who runs a calculation.

    Attributes
    ----------
    host
        Name of the machine.
    pid
        Process that executes the flow; also the number of the session of everything it starts.
    worker_pid, slot
        The worker that watches over it, and the slot it occupies.
    attempt
        1 for the first execution; more if earlier ones died without leaving a result.
    started_at
        ISO 8601, UTC.
    """

    host: str
    pid: int
    worker_pid: int
    slot: str
    attempt: int
    started_at: str


MOST_ASKED = 20
"""How often a question is asked, over all campaigns, that never comes to an answer."""


def calculation_key(structure_hash: str, settings_hash: str, asked: int = 1) -> str:
    """Identity of the question "this structure with these settings": 32 hexadecimal digits.

    Asked again, because the first result says nothing about the crystal, it is ``asked`` 2.
    """
    question: dict[str, Any] = {"structure": structure_hash, "settings": settings_hash}
    return stable_hash(question if asked == 1 else {**question, "asked": asked})


class Calculation:
    """One directory, named by the key of its calculation."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.flow_path = self.directory / "flow.json"
        self.result_path = self.directory / "result.json"
        self.handle_path = self.directory / "handle.json"
        self.log_path = self.directory / "run.log"
        self.lock_path = self.directory / ".lock"
        self.cancelled_path = self.directory / "cancelled"
        self.spent_path = self.directory / "spent.json"

    @property
    def key(self) -> str:
        """The calculation's key, which is the directory's name."""
        return self.directory.name

    def prepare(self, engine: Engine, material: Material, *, keep: bool = False) -> None:
        """Write what is needed to run; repeats and interruptions do no harm.

        Files that are there and readable are left alone, so that a calculation that runs or has
        run is not touched. While nothing runs, the flow takes on what has changed in how programs
        are started; and a result that says nothing about the crystal is put aside as
        ``result.json.earlier``, to be asked again, unless it is to be kept.

        Raises
        ------
        UserError
            The directory cannot be written.
        ValueError
            The directory is not named after the key of this material and engine.
        """
        question = material.structure_hash, engine.settings_hash
        if self.key not in (calculation_key(*question, n + 1) for n in range(MOST_ASKED)):
            key = calculation_key(*question)
            raise ValueError(f"{self.directory} is not the directory of calculation {key}")
        result = self.result()
        if result is not None and (keep or result.conclusive or not self._reopen()):
            return
        poscar, asked = self.directory / "POSCAR", _poscar(material).encode()
        there = _read(poscar)
        if there != asked and not _describes(there, material):
            atomic_write(poscar, asked)
            there = asked
        if self.description() is None:
            atomic_write(
                self.directory / "calculation.json",
                _lines(
                    {
                        "key": self.key,
                        "material_id": material.material_id,
                        "formula": material.formula,
                        "n_sites": material.n_sites,
                        "source": material.source,
                        "structure_hash": material.structure_hash,
                        "engine": engine.name,
                        "settings": engine.settings(),
                        "settings_hash": engine.settings_hash,
                    }
                ),
            )
        known = _read_json(self.flow_path)
        # Another description of the same crystal may have other axes than the POSCAR here.
        if known is None or there == asked:
            self._write_flow(engine.flow(material), known)

    def description(self) -> dict[str, Any] | None:
        """Content of ``calculation.json``, or None."""
        return _read_json(self.directory / "calculation.json")

    def handle(self) -> Handle | None:
        """Who runs this calculation, or ran it last; None if nobody has yet."""
        try:
            return Handle(**(_read_json(self.handle_path) or {}))
        except TypeError:
            return None

    def write_handle(self, handle: Handle) -> None:
        """Replace ``handle.json``; only for who holds the calculation's lock."""
        atomic_write(self.handle_path, _lines(asdict(handle)))

    def result(self) -> CalculationOutput | None:
        """The answer, or None while there is none.

        A result file that cannot be understood (cut short by a failing disk, say) is moved aside
        and counts as absent, so that the calculation is done again.
        """
        try:
            return self._read_result()
        except ValueError:
            with try_lock(self.lock_path) as held:
                return self.result_under_lock() if held else None

    def result_under_lock(self) -> CalculationOutput | None:
        """As :meth:`result`, for who already holds the calculation's lock."""
        try:
            return self._read_result()
        except ValueError:
            self.result_path.replace(self.result_path.with_name("result.json.broken"))
            return None

    def write_result(self, output: CalculationOutput) -> None:
        """Write the answer in one step; only for who holds the calculation's lock.

        Raises
        ------
        UserError
            The disk is full or not writable; nothing is left behind.
        """
        atomic_write(self.result_path, _lines(output.to_dict()))

    def conclude(self, output: CalculationOutput, patience_s: float = PATIENCE_S) -> bool:
        """Write the answer unless there is one; False where something still runs after a while.

        Raises
        ------
        UserError
            The disk is full or not writable; nothing is left behind.
        """
        with try_lock_file(self.lock_path, patience_s) as held:
            if held is not None and self.result_under_lock() is None:
                self.close_execution()
                cpu_s = max(output.cpu_s, self.spent_s())
                self.write_result(replace(output, cpu_s=cpu_s))
            return held is not None

    def spent_s(self) -> float:
        """CPU seconds of the executions that are over and left no result."""
        return float(sum((_read_json(self.spent_path) or {}).values()))

    def close_execution(self, seconds: float | None = None) -> None:
        """Note what the last execution took, which left no result; repeating it does no harm.

        Where that is not known, by the clock until the last line that it wrote, for nobody knows
        what a killed process has used. Only for who holds the calculation's lock.
        """
        handle = self.handle()
        spent = _read_json(self.spent_path) or {}
        if handle is None or handle.started_at in spent:
            return
        if seconds is None:
            begun = datetime.fromisoformat(handle.started_at).timestamp()
            seconds = max(self._last_written() - begun, 0.0)
        atomic_write(self.spent_path, _lines({**spent, handle.started_at: seconds}))

    def _reopen(self) -> bool:
        """Put a result aside that says nothing about the crystal; whether that was so."""
        with try_lock(self.lock_path) as held:
            result = self.result_under_lock() if held else None
            if result is None or result.conclusive:
                return False
            self.close_execution(max(result.cpu_s - self.spent_s(), 0.0))
            # Attempts that it ended do not count.
            self.handle_path.unlink(missing_ok=True)
            self.result_path.replace(self.result_path.with_name("result.json.earlier"))
            return True

    def _write_flow(self, flow: Flow, known: dict[str, Any] | None) -> None:
        """Write the flow, if it differs from the one there and nothing runs.

        Who has been given a flow knows it by its identity, which is random and stays.
        """
        from monty.json import MontyEncoder

        text = json.dumps(flow, cls=MontyEncoder, indent=1) + "\n"
        if known is None:
            atomic_write(self.flow_path, text)
            return
        for mine, theirs in zip(_identities(json.loads(text)), _identities(known), strict=False):
            text = text.replace(mine, theirs)
        if json.loads(text) == known:
            return
        with try_lock(self.lock_path) as held:
            if held:
                atomic_write(self.flow_path, text)

    def _last_written(self) -> float:
        """When the engine or one of its programs last wrote something."""
        written = 0.0
        for path in (self.log_path, *self.directory.glob("*/**/*")):
            try:
                written = max(written, path.lstat().st_mtime)
            except OSError:
                continue  # removed meanwhile, or never there
        return written

    def state(self) -> State:
        """Where the calculation stands."""
        # The lock is looked at first: a calculation that ends in between is then seen as done.
        running = is_locked(self.lock_path)
        if self.result() is not None:
            return State.DONE
        if running:
            return State.RUNNING
        return State.PENDING if self.is_ready() else State.LOST

    def is_ready(self) -> bool:
        """Whether it is prepared and not cancelled."""
        return self.flow_path.exists() and not self.cancelled_path.exists()

    def require_flow(self) -> None:
        """Make sure that it is prepared.

        Raises
        ------
        UserError
            It is not.
        """
        if not self.flow_path.exists():
            raise UserError(
                f"Calculation {self.key} has no flow.json in {self.directory}; "
                "prepare it before it is submitted."
            )

    def allow(self) -> None:
        """Undo a cancellation; the attempts that it ended do not count."""
        if not self.cancelled_path.exists():
            return
        with try_lock(self.lock_path) as held:
            if held:
                self.close_execution()
                self.handle_path.unlink(missing_ok=True)
        self.cancelled_path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed writer left; only for who holds the calculation's lock."""
        for path in (self.result_path, self.handle_path):
            for stale in self.directory.glob(f".{path.name}.*"):
                stale.unlink(missing_ok=True)

    def _read_result(self) -> CalculationOutput | None:
        content = _read(self.result_path)
        # Both bytes that are no UTF-8 and text that is no JSON raise a ValueError.
        return None if content is None else CalculationOutput.from_dict(json.loads(content))


def _identities(flow: Any) -> list[str]:
    """What jobflow calls a flow and its jobs, in a fixed order."""
    found: list[str] = []
    if isinstance(flow, dict):
        found += [flow["uuid"]] if isinstance(flow.get("uuid"), str) else []
        found += [name for value in flow.values() for name in _identities(value)]
    elif isinstance(flow, list):
        found += [name for value in flow for name in _identities(value)]
    return list(dict.fromkeys(found))


def _lines(record: Mapping[str, Any]) -> str:
    """JSON with one field per line: short enough for ``cat``, and whole to any reader."""
    fields = (
        f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for name, value in record.items()
    )
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _read_json(path: Path) -> dict[str, Any] | None:
    content = _read(path)
    try:
        value = None if content is None else json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(
            f"Cannot read {path} ({error.strerror}); make it readable, "
            "or remove it to have it made again."
        ) from error


def _describes(poscar: bytes | None, material: Material) -> bool:
    """Whether the content of a POSCAR, if there is one, is that of the material."""
    from pymatgen.io.vasp.inputs import Poscar

    if poscar is None:
        return False
    try:
        found = Poscar.from_str(poscar.decode()).structure
    except Exception:  # noqa: BLE001 - the parser raises anything on broken files
        return False
    return structure_hash(found) == material.structure_hash


def _poscar(material: Material) -> str:
    from pymatgen.io.vasp.inputs import Poscar

    comment = " ".join(f"{material.formula} {material.material_id}".split())
    poscar = Poscar(material.structure, comment=comment)
    return str(poscar.get_str(significant_figures=16))
