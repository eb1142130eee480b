"""What an engine is, and the one record every calculation ends in."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from screening.io import stable_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobflow.core.flow import Flow

    from dft.cost import Cost, Done
    from screening.material import Material

Array = NDArray[np.float64]


class Engine(Protocol):
    """A way to calculate dielectric tensors.

    The flow it makes runs in the calculation's directory, in another process and maybe on another
    machine, long after the engine object is gone: everything it needs is in the flow or in that
    directory.
    """

    @property
    def name(self) -> str:
        """Short name, for people and for the ledger."""
        ...

    @property
    def settings_hash(self) -> str:
        """Hash of :meth:`settings` and the name; see :func:`settings_hash`."""
        ...

    @property
    def elements(self) -> frozenset[str]:
        """Symbols of the elements that it can calculate; others are set aside beforehand."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that changes the answer and nothing that does not, as plain JSON."""
        ...

    def flow(self, material: Material) -> Flow:
        """The calculation as a jobflow flow.

        Its output must be one reference, to ``CalculationOutput.to_dict()``. What the engine finds
        out about a failure goes into that record; an exception ends as the record's ``error``.
        """
        ...

    def costs(self, materials: Sequence[Material], done: Done = tuple) -> list[Cost | None]:
        """What calculating each will take in processor time; None where nobody can say.

        Parameters
        ----------
        done
            Gives what calculations of this engine with these settings took; only engines that
            learn from them ask.
        """
        ...


def settings_hash(name: str, settings: dict[str, Any]) -> str:
    """Identity of an engine with its settings: 32 hexadecimal digits."""
    return stable_hash({"engine": name, "settings": settings})


@dataclass(frozen=True, eq=False, kw_only=True)
class CalculationOutput:
    """Raw facts from one run of an engine; whether to believe them is the gate's decision.

    Attributes
    ----------
    electronic, ionic
        ε∞ and the lattice contribution (relative permittivity), shape (3, 3), in the Cartesian
        frame of the calculated structure; None where the run did not give them. They are kept as
        the engine gave them, whatever their shape or content.
    born_charges
        Born effective charges in e, shape (atoms, 3, 3), or None: polarisation along the first
        axis of each matrix for a displacement along the second, as in VASP's output and phonopy.
    min_optical_thz
        Lowest optical frequency at Γ in THz, negative where it is imaginary.
    band_gap
        Band gap of this run in eV.
    converged
        Whether every self-consistency cycle reached its goal.
    functional
        Exchange-correlation functional, ``"PBE"`` or ``"PBEsol"``; empty if the run failed.
    engine, engine_version
        Which program gave the answer.
    error
        What went wrong, in the engine's words; None if nothing did.
    timed_out
        Whether the run was stopped at its time limit.
    external
        Whether what went wrong came from outside: stopped by a person or a budget, a program that
        could not be started, a machine that failed.
    cpu_s, wall_s
        Processor and wall time of the run, including all its processes.
    unsupported
        Why the engine did not even try, or None.
    frequencies_thz
        All frequencies at Γ in THz, shape (3 atoms,); with the acoustic sum rule imposed where the
        engine does that (ABINIT), as calculated otherwise (VASP).
    acoustic_thz
        Largest frequency of a rigid translation without the sum rule: its violation.
    relaxed_structure
        The structure that the tensors belong to, as pymatgen's dictionary, if the run relaxed it.
    attempts
        One record per attempt: ``number``, ``settings``, ``why`` (what is different from the one
        before), ``failure`` (or null), ``cpu_s``, ``wall_s``.
    cost
        What a cost model needs: ``n_electrons``, ``volume`` (Å³), ``n_kpoints``,
        ``n_perturbations``, ``cpu_s`` and ``steps`` (CPU seconds by step); what the engine knows.
    """

    electronic: Array | None = None
    ionic: Array | None = None
    born_charges: Array | None = None
    min_optical_thz: float | None = None
    band_gap: float | None = None
    converged: bool
    functional: str
    engine: str
    engine_version: str
    error: str | None = None
    timed_out: bool = False
    external: bool = False
    cpu_s: float = 0.0
    wall_s: float = 0.0
    unsupported: str | None = None
    frequencies_thz: Array | None = None
    acoustic_thz: float | None = None
    relaxed_structure: dict[str, Any] | None = None
    attempts: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    cost: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def conclusive(self) -> bool:
        """Whether it says anything about the crystal; what does not may be asked again."""
        return not (self.timed_out or self.external)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; numbers that are not finite become null, for JSON has no NaN."""
        record: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            record[field.name] = _finite(value.tolist() if _is_array(value) else value)
        return record

    @classmethod
    def from_dict(cls, data: Any) -> CalculationOutput:
        """Inverse of :meth:`to_dict`; a null inside a tensor becomes NaN.

        Raises
        ------
        ValueError
            Not such a record: a field is missing, unknown or of the wrong type. The fields that
            the first release did not have may be missing.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or not names - _LATER <= set(data) <= names:
            raise ValueError("not the record of a calculation")
        for kind, fields in _TYPES.items():
            for name in set(fields) & set(data):
                if not isinstance(data[name], kind) or (
                    isinstance(data[name], bool) and kind is not bool
                ):
                    raise ValueError(f"'{name}' of the calculation's record has the wrong type")
        return cls(**{n: _read(v) if n in _ARRAYS else v for n, v in data.items()})

    @classmethod
    def failure(
        cls,
        engine: str,
        engine_version: str = "",
        *,
        error: str | None = None,
        unsupported: str | None = None,
        external: bool = False,
    ) -> CalculationOutput:
        """The record of a run that gave no answer: timed out, if no other reason is given."""
        return cls(
            converged=False,
            functional="",
            engine=engine,
            engine_version=engine_version,
            error=error,
            timed_out=error is None and unsupported is None,
            external=external,
            unsupported=unsupported,
        )


_LATER = frozenset(
    (
        "unsupported", "external", "frequencies_thz", "acoustic_thz", "relaxed_structure",
        "attempts", "cost",
    )
)  # fmt: skip
_ARRAYS = ("electronic", "ionic", "born_charges", "frequencies_thz")
_NUMBER = (int, float)
_TYPES: dict[Any, tuple[str, ...]] = {
    bool: ("converged", "timed_out", "external"),
    str: ("functional", "engine", "engine_version"),
    (str, type(None)): ("error", "unsupported"),
    _NUMBER: ("cpu_s", "wall_s"),
    (*_NUMBER, type(None)): ("min_optical_thz", "band_gap", "acoustic_thz"),
    (list, type(None)): _ARRAYS,
    (dict, type(None)): ("relaxed_structure",),
    list: ("attempts",),
    dict: ("cost",),
}


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray)


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(element) for element in value]
    if isinstance(value, dict):
        return {name: _finite(element) for name, element in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    try:
        return np.array(value, dtype=float)
    except (TypeError, ValueError):
        # Ragged rows or text: an answer was given, and the gate has to see that it is no tensor.
        return np.full((3, 3), np.nan)
