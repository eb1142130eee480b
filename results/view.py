"""Everything that tables, figures and the report of one campaign need, as plain tables.

The rest of the package draws from a :class:`CampaignView` alone, so a report can be made of
anything that fills these tables, and the ledger is read in one place: ``CampaignView.from_ledger``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results.schema import ACCEPTED
from screening.tasks import Task, get_task
from screening.tensors import mean_permittivity

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from results.ledger import Ledger

Array = NDArray[np.float64]

PULLED_FROM = "pulled from"
"""Kind of the ledger's event that says where a campaign's materials came from."""

_MATERIAL = {
    "material_id": "str",
    "structure_hash": "str",
    "formula": "str",
    "n_sites": "float",
    "band_gap": "float",
}
_PREDICTED = {
    "epsilon_mean": "float",
    "epsilon_std": "float",
    "merit_mean": "float",
    "merit_std": "float",
    "acquisition": "float",
    "rank": "float",
}
_TENSORS = {"electronic": "object", "ionic": "object", "functional": "str"}
_DERIVED = {
    "epsilon": "float",
    "epsilon_electronic": "float",
    "epsilon_ionic": "float",
    "refractive_index": "float",
    "lambda_1": "float",
    "lambda_2": "float",
    "lambda_3": "float",
    "merit": "float",
}
_KNOWN = _MATERIAL | _TENSORS
_CANDIDATES = _MATERIAL | _PREDICTED
_CALCULATIONS = (
    {"round": "int", "key": "str"}
    | _MATERIAL
    | _PREDICTED
    | {"status": "str", "verdict": "str", "detail": "str"}
    | _TENSORS
    | {"cpu_s": "float", "wall_s": "float", "shared": "bool"}
    | {"engine": "str", "directory": "str"}
)
_ROUNDS = {
    "number": "int",
    "status": "str",
    "n_training": "float",
    "started_at": "object",
    "finished_at": "object",
    "model_hash": "str",
    "model_dir": "str",
}
PICTURED = 6
"""Validated materials whose structures are shown."""


@dataclass(frozen=True)
class CampaignView:
    """One campaign as tables.

    Lengths of time are in s, band gaps in eV, figures of merit in the unit of the task's label;
    a number that is not known is NaN, a text that is not known is empty.

    Attributes
    ----------
    known
        One row per material whose tensors were known at the start: ``material_id``,
        ``structure_hash``, ``formula``, ``n_sites``, ``band_gap``, ``functional``, ``electronic``,
        ``ionic`` (nested lists or None) and, derived from them, ``epsilon`` (static mean ε̄),
        ``epsilon_electronic``, ``epsilon_ionic``, ``refractive_index``, ``lambda_1`` ≤ ``lambda_2``
        ≤ ``lambda_3`` (eigenvalues of the static tensor) and ``merit``.
    rounds
        One row per round: ``number``, ``status``, ``n_training``, ``started_at``, ``finished_at``.
    metrics, seconds
        Per round number: what the model reported, and ``{step: {"wall_s": …, "cpu_s": …}}``.
    candidates, candidates_round
        Predictions of the last round that has any (``epsilon_mean``, ``epsilon_std``,
        ``merit_mean``, ``merit_std``, ``acquisition``, ``rank``), and that round's number.
    calculations
        One row per selection, in order of round and rank: the material, its prediction, ``key``,
        ``status``, ``verdict`` (empty while it is open), ``detail``, tensors as in ``known`` with
        the same derived columns (NaN unless accepted), ``cpu_s``, ``wall_s``, and ``shared``:
        whether another campaign paid for it.
    structures
        Structures of the best validated materials, by structure hash.
    engine_versions
        Version of the engine that did each validated calculation, by key.
    origin
        Where known tensors and candidates came from, as the pull recorded it.
    """

    name: str
    task: Task
    seed: int
    status: str
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    created_at: datetime | None
    finished_at: datetime | None
    known: pd.DataFrame
    rounds: pd.DataFrame
    metrics: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    seconds: Mapping[int, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    candidates: pd.DataFrame = field(default_factory=pd.DataFrame)
    candidates_round: int | None = None
    calculations: pd.DataFrame = field(default_factory=pd.DataFrame)
    structures: Mapping[str, Structure] = field(default_factory=dict)
    engine_versions: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        calculations = _table(self.calculations, _CALCULATIONS)
        # A refused calculation may carry tensors, as facts; they are no material properties.
        refused = calculations["verdict"] != ACCEPTED
        calculations[["electronic", "ionic"]] = calculations[["electronic", "ionic"]].mask(
            refused, None
        )
        calculations = calculations.sort_values(["round", "rank"], kind="stable", ignore_index=True)
        tables = {
            "known": _with_derived(_table(self.known, _KNOWN), self.task),
            "rounds": _table(self.rounds, _ROUNDS).sort_values("number", ignore_index=True),
            "candidates": _table(self.candidates, _CANDIDATES),
            "calculations": _with_derived(calculations, self.task),
        }
        for name, table in tables.items():
            object.__setattr__(self, name, table)

    @classmethod
    def from_ledger(cls, ledger: Ledger, name: str) -> CampaignView:
        """Read the campaign ``name`` as it stands now; unfinished ones are welcome.

        Raises
        ------
        UserError
            The ledger has no campaign of that name, or its task is not registered.
        """
        known = ledger.known(name)
        campaign = ledger.campaign(name)
        assert campaign is not None, "the ledger has just read what it knew"
        rounds = list(ledger.rounds(name))
        candidates, candidates_round = pd.DataFrame(), None
        for record in sorted(rounds, key=lambda record: record.number, reverse=True):
            candidates = ledger.predictions(record.id)
            if len(candidates):
                candidates_round = record.number
                break
        view = cls(
            name=campaign.name,
            task=get_task(campaign.task),
            seed=campaign.seed,
            status=campaign.status,
            config=campaign.config,
            versions=campaign.versions or {},
            created_at=campaign.created_at,
            finished_at=campaign.finished_at,
            known=known,
            rounds=pd.DataFrame([{c: getattr(record, c) for c in _ROUNDS} for record in rounds]),
            metrics={record.number: record.metrics or {} for record in rounds},
            seconds={record.number: record.seconds or {} for record in rounds},
            candidates=candidates,
            candidates_round=candidates_round,
            calculations=ledger.calculations(name),
            origin=_origin(ledger, name),
        )
        validated = ledger.records(view.validated["key"])
        engines = {k: str((r.output or {}).get("engine_version", "")) for k, r in validated.items()}
        pictured = list(validated.values())[:PICTURED]
        structures = {
            r.material.structure_hash: (r.relaxed or r.material).structure for r in pictured
        }
        object.__setattr__(view, "structures", structures)
        object.__setattr__(view, "engine_versions", engines)
        return view

    @property
    def round_numbers(self) -> list[int]:
        """Numbers of all rounds begun, ascending."""
        numbers = {*self.rounds["number"], *self.calculations["round"]}
        return sorted(int(number) for number in numbers)

    @functools.cached_property
    def validated(self) -> pd.DataFrame:
        """Accepted calculations, best figure of merit first."""
        rows = self.calculations[self.calculations["verdict"] == ACCEPTED].drop_duplicates("key")
        return rows.sort_values("merit", ascending=False, kind="stable", ignore_index=True)

    @functools.cached_property
    def refused(self) -> pd.DataFrame:
        """Calculations that ended with any other verdict."""
        verdict = self.calculations["verdict"]
        rows = self.calculations[(verdict != ACCEPTED) & (verdict != "")]
        return rows.drop_duplicates("key", ignore_index=True)

    @functools.cached_property
    def waiting(self) -> pd.DataFrame:
        """Calculations selected and not judged yet."""
        rows = self.calculations[self.calculations["verdict"] == ""]
        return rows.drop_duplicates("key", ignore_index=True)

    @property
    def best_known(self) -> pd.Series | None:
        """The material with the best figure of merit among those known at the start."""
        return _best(self.known)

    @property
    def best_validated(self) -> pd.Series | None:
        """The validated material with the best figure of merit."""
        return _best(self.validated)


def _origin(ledger: Ledger, name: str) -> Mapping[str, Any]:
    """Detail of the event in which the flow records its sources."""
    events = ledger.events(name)
    found = events.loc[events["kind"] == PULLED_FROM, "detail"]
    return dict(found.iloc[0]) if len(found) else {}


def _best(table: pd.DataFrame) -> pd.Series | None:
    if not table["merit"].notna().any():
        return None
    return table.iloc[int(table["merit"].argmax())]


def _table(given: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The named columns with one kind of missing value each, whatever the source left out."""
    table: dict[str, pd.Series] = {}
    for name, kind in columns.items():
        values: Sequence[Any] = list(given[name]) if name in given else [None] * len(given)
        series = pd.Series(values, dtype=object)
        if kind == "bool":
            series = series.map(lambda value: value is not None and bool(value)).astype(bool)
        elif kind == "str":
            series = series.where(series.notna(), "").astype(str)
        elif kind != "object":
            series = pd.to_numeric(series, errors="coerce").astype(np.dtype(kind))
        table[name] = series
    return pd.DataFrame(table, index=pd.RangeIndex(len(given)))


def _with_derived(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    electronic, ionic = _stack(table["electronic"]), _stack(table["ionic"])
    static = electronic + ionic
    derived = np.full((len(table), len(_DERIVED)), np.nan)
    derived[:, 0] = mean_permittivity(static)
    derived[:, 1] = mean_permittivity(electronic)
    derived[:, 2] = mean_permittivity(ionic)
    derived[:, 3] = np.sqrt(np.where(derived[:, 1] >= 0.0, derived[:, 1], np.nan))
    whole = np.isfinite(static).all(axis=(1, 2))
    gaps = table["band_gap"].to_numpy(dtype=float)
    derived[whole, 4:7] = np.linalg.eigvalsh(static[whole])
    derived[whole, 7] = task.figure_of_merit(gaps[whole], static[whole])
    derived[~np.isfinite(derived)] = np.nan
    return table.join(pd.DataFrame(derived, columns=list(_DERIVED)))


def _stack(column: pd.Series) -> Array:
    tensors = np.full((len(column), 3, 3), np.nan)
    for i, value in enumerate(column):
        if isinstance(value, list | tuple | np.ndarray):
            tensors[i] = value
    return tensors
