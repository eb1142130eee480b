"""The part of the ledger that holds calculations, their results and the gate's verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike
from sqlalchemy import Connection, Row, Select, select, update

from results import encoding
from results import schema as t
from results.claims import ClaimLedger, locked
from results.database import insert_once
from results.records import CalculationRecord
from results.schema import ACCEPTED, CalculationStatus
from screening.material import KnownMaterial, Material
from screening.tensors import DielectricTensors

if TYPE_CHECKING:
    import pandas as pd

_EXTRAS = ("born_charges", "min_optical_thz")
"""Raw facts of a calculation that training can use."""

_MATERIAL = (
    "material_id",
    "formula",
    "n_sites",
    "band_gap",
    "energy_above_hull",
    "source",
    "structure",
)

_RECORD = (
    "key",
    "campaign",
    "engine",
    "settings",
    "settings_hash",
    "directory",
    "handle",
    "planned_at",
    "submitted_at",
    "finished_at",
    "cpu_s",
    "wall_s",
    "output",
    "verdict",
    "detail",
    "functional",
)

_CALCULATION = {
    "round": "int64",
    "rank": "int64",
    "material_id": "str",
    "formula": "str",
    "n_sites": "int64",
    "band_gap": "float64",
    "epsilon_mean": "float64",
    "epsilon_std": "float64",
    "merit_mean": "float64",
    "merit_std": "float64",
    "acquisition": "float64",
    "status": "str",
    "verdict": "str",
    "detail": "str",
    "electronic": "object",
    "ionic": "object",
    "functional": "str",
    "cpu_s": "float64",
    "wall_s": "float64",
    "engine": "str",
    "shared": "bool",
    "key": "str",
    "structure_hash": "str",
    "directory": "str",
}


class CalculationLedger(ClaimLedger):
    """Calculations and verdicts; see :class:`results.ledger.Ledger`."""

    def record_result(
        self,
        key: str,
        output: Mapping[str, Any],
        verdict: str,
        detail: str,
        electronic: ArrayLike | None,
        ionic: ArrayLike | None,
        functional: str | None,
    ) -> bool:
        """Record the end of a calculation and what the gate said about it.

        Parameters
        ----------
        output
            The engine's raw facts (JSON-like; NaN is kept); ``cpu_s`` and ``wall_s`` are taken
            from it.
        verdict, detail
            ``"accepted"`` or a reason for the refusal, and one sentence with the numbers.
        electronic, ionic
            The tensors the gate let through, 3×3, in the frame of the calculation's structure.
        functional
            Exchange-correlation functional, ``"PBE"`` or ``"PBEsol"``.

        Returns
        -------
        bool
            False where a result was recorded before; the first one stays.

        Raises
        ------
        LookupError
            No such calculation.
        ValueError
            A tensor is not 3×3, or a result is accepted without tensor or functional.
        """
        row = {
            "calculation_key": key,
            "verdict": verdict,
            "detail": detail,
            "judged_at": datetime.now(UTC),
            "electronic": encoding.matrix(electronic),
            "ionic": encoding.matrix(ionic),
            "functional": functional,
        }
        if verdict == ACCEPTED and (electronic is None or functional is None):
            raise ValueError(f"calculation {key} is accepted without a tensor or a functional")
        with self._database.writing() as connection:
            status, _ = locked(connection, [key])[key]
            if status == CalculationStatus.FINISHED:
                return False
            connection.execute(
                update(t.Calculation)
                .where(t.Calculation.key == key)
                .values(
                    status=CalculationStatus.FINISHED.value,
                    finished_at=row["judged_at"],
                    cpu_s=encoding.scalar(output.get("cpu_s")),
                    wall_s=encoding.scalar(output.get("wall_s")),
                    output=dict(output),
                )
            )
            insert_once(connection, t.Verdict, row)
            return True

    def calculation(self, key: str) -> CalculationRecord | None:
        """The calculation with that key, if there is one."""
        return self.records([key]).get(key)

    def records(self, keys: Iterable[str]) -> dict[str, CalculationRecord]:
        """Calculations by key, in the order of the keys; those that do not exist are left out."""
        wanted = list(dict.fromkeys(keys))
        with self._database.reading() as connection:
            statement = _records().where(t.Calculation.key.in_(wanted))
            found = {row.key: _record(row) for row in connection.execute(statement)}
        return {key: found[key] for key in wanted if key in found}

    def finished(self, engine: str, settings_hash: str) -> list[CalculationRecord]:
        """All that an engine has finished with some settings, for whatever campaign."""
        with self._database.reading() as connection:
            statement = _records().where(
                t.Calculation.engine == engine,
                t.Calculation.settings_hash == settings_hash,
                t.Calculation.status == CalculationStatus.FINISHED.value,
            )
            return [_record(row) for row in connection.execute(statement)]

    def pending(self, campaign: str) -> list[CalculationRecord]:
        """Calculations that a campaign waits for, by round and rank.

        Among them may be some that another campaign planned; they lie in the directory that the
        record names.

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.reading() as connection:
            statement = (
                _records()
                .join(t.Selection, t.Selection.calculation_key == t.Calculation.key)
                .join(t.Round, t.Round.id == t.Selection.round_id)
                .where(
                    t.Round.campaign_id == self._campaign_id(connection, campaign),
                    t.Calculation.status != CalculationStatus.FINISHED.value,
                )
                .order_by(t.Round.number, t.Selection.rank, t.Calculation.key)
            )
            records = [_record(row) for row in connection.execute(statement)]
        return list({record.key: record for record in records}.values())

    def calculations(self, campaign: str) -> pd.DataFrame:
        """What a campaign asked for and what came of it, one row per selection, by round and rank.

        Returns
        -------
        DataFrame
            ``round``, ``rank``, ``material_id``, ``formula``, ``n_sites``, ``band_gap`` (eV); as
            predicted: ``epsilon_mean``, ``epsilon_std``, ``merit_mean``, ``merit_std``,
            ``acquisition``; as calculated: ``status``, ``verdict``, ``detail``, ``electronic``,
            ``ionic`` (nested lists 3×3 or None), ``functional``, ``cpu_s``, ``wall_s``;
            ``engine``, ``shared`` (paid for by another campaign), ``key``, ``structure_hash``,
            ``directory``. NaN where there is nothing yet.

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.reading() as connection:
            campaign_id = self._campaign_id(connection, campaign)
            return _table(connection, _selected().where(t.Round.campaign_id == campaign_id))

    def selections(self, round_id: int) -> pd.DataFrame:
        """The picks of one round, by rank; columns as in :meth:`calculations`."""
        with self._database.reading() as connection:
            return _table(connection, _selected().where(t.Round.id == round_id))

    def refused(self, campaign: str) -> pd.DataFrame:
        """Finished calculations that the gate refused; columns as in :meth:`calculations`.

        Raises
        ------
        UserError
            No such campaign.
        """
        table = self.calculations(campaign)
        judged = table["verdict"].notna()
        return table[judged & (table["verdict"] != ACCEPTED)].reset_index(drop=True)

    def accepted(self, campaign: str, before_round: int) -> list[KnownMaterial]:
        """What a campaign has learned in the rounds before ``before_round``, to train on.

        Returns
        -------
        list of KnownMaterial
            Only results the gate accepted, sorted by structure hash; ``extras`` holds the Born
            charges and the lowest optical frequency (THz) where the engine gave them.

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.reading() as connection:
            statement = (
                _records(
                    t.Selection.material_id.label("own_id"), t.Selection.band_gap.label("own_gap")
                )
                .join(t.Selection, t.Selection.calculation_key == t.Calculation.key)
                .join(t.Round, t.Round.id == t.Selection.round_id)
                .where(
                    t.Round.campaign_id == self._campaign_id(connection, campaign),
                    t.Round.number < before_round,
                    t.Verdict.verdict == ACCEPTED,
                )
                .order_by(t.Round.number, t.Selection.rank)
            )
            rows = connection.execute(statement).all()
        first: dict[str, Row[Any]] = {}
        for row in rows:
            first.setdefault(row.structure_hash, row)
        return [_known(first[structure_hash]) for structure_hash in sorted(first)]


def _records(*extra: Any) -> Select[Any]:
    """Calculations with their material, verdict and owner."""
    return (
        select(
            t.Calculation.__table__,
            *(getattr(t.Material, name).label(f"m_{name}") for name in _MATERIAL),
            t.Campaign.name.label("campaign"),
            t.Verdict.verdict,
            t.Verdict.detail,
            t.Verdict.electronic,
            t.Verdict.ionic,
            t.Verdict.functional,
            *extra,
        )
        .select_from(t.Calculation)
        .join(t.Material, t.Material.structure_hash == t.Calculation.structure_hash)
        .join(t.Campaign, t.Campaign.id == t.Calculation.campaign_id)
        .outerjoin(t.Verdict, t.Verdict.calculation_key == t.Calculation.key)
    )


def _material(row: Row[Any]) -> Material:
    return Material.from_dict({name: row._mapping[f"m_{name}"] for name in _MATERIAL})


def _relaxed(row: Row[Any], asked: Material) -> Material | None:
    """The crystal as the calculation has relaxed it; None if it took it as it was."""
    structure = (row.output or {}).get("relaxed_structure")
    if structure is None:
        return None
    values = {name: getattr(asked, name) for name in _MATERIAL if name != "structure"}
    return Material.from_dict({**values, "structure": structure})


def _record(row: Row[Any]) -> CalculationRecord:
    values = {name: row._mapping[name] for name in _RECORD}
    material = _material(row)
    return CalculationRecord(
        material=material,
        relaxed=_relaxed(row, material),
        tensors=DielectricTensors.from_dict({"electronic": row.electronic, "ionic": row.ionic}),
        status=CalculationStatus(row.status),
        **values,
    )


def _known(row: Row[Any]) -> KnownMaterial:
    """An accepted result under the id and with the band gap that the campaign's source gives.

    What was relaxed comes with the structure that the tensors belong to.
    """
    asked = _material(row)
    asked.material_id, asked.band_gap = row.own_id, row.own_gap
    relaxed = _relaxed(row, asked)
    output = row.output or {}
    return KnownMaterial(
        material=relaxed or asked,
        asked=asked if relaxed else None,
        tensors=DielectricTensors.from_dict({"electronic": row.electronic, "ionic": row.ionic}),
        functional=row.functional,
        extras={name: output[name] for name in _EXTRAS if output.get(name) is not None},
    )


def _selected() -> Select[Any]:
    """One row per selection with the columns of ``_CALCULATION``."""
    columns: dict[str, Any] = {
        "round": t.Round.number,
        "formula": t.Material.formula,
        "n_sites": t.Material.n_sites,
        "status": t.Calculation.status,
        "verdict": t.Verdict.verdict,
        "detail": t.Verdict.detail,
        "electronic": t.Verdict.electronic,
        "ionic": t.Verdict.ionic,
        "functional": t.Verdict.functional,
        "cpu_s": t.Calculation.cpu_s,
        "wall_s": t.Calculation.wall_s,
        "engine": t.Calculation.engine,
        "shared": (t.Calculation.campaign_id != t.Round.campaign_id).label("shared"),
        "key": t.Calculation.key,
        "structure_hash": t.Calculation.structure_hash,
        "directory": t.Calculation.directory,
    }
    return (
        select(
            *(
                columns[name] if name in columns else getattr(t.Selection, name)
                for name in _CALCULATION
            )
        )
        .select_from(t.Selection)
        .join(t.Round, t.Round.id == t.Selection.round_id)
        .join(t.Calculation, t.Calculation.key == t.Selection.calculation_key)
        .join(t.Material, t.Material.structure_hash == t.Calculation.structure_hash)
        .outerjoin(t.Verdict, t.Verdict.calculation_key == t.Calculation.key)
        .order_by(t.Round.number, t.Selection.rank, t.Calculation.key)
    )


def _table(connection: Connection, statement: Select[Any]) -> pd.DataFrame:
    return encoding.frame(connection.execute(statement).all(), _CALCULATION)
