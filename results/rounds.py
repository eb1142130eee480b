"""The part of the ledger that holds rounds: trained, predicted, selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, func, select, update

from results import encoding
from results import schema as t
from results.campaigns import CampaignLedger
from results.database import insert_missing, insert_once
from results.records import PlannedCalculation, RoundRecord, Selection
from results.schema import CalculationStatus, RoundStatus
from screening.material import Material

if TYPE_CHECKING:
    import pandas as pd

_PREDICTION = {
    "material_id": "str",
    "structure_hash": "str",
    "formula": "str",
    "n_sites": "int64",
    "band_gap": "float64",
    "electronic": "object",
    "ionic": "object",
    "epsilon_mean": "float64",
    "epsilon_std": "float64",
    "merit_mean": "float64",
    "merit_std": "float64",
    "acquisition": "float64",
    "rank": "int64",
}


class RoundLedger(CampaignLedger):
    """Rounds of campaigns; see :class:`results.ledger.Ledger`.

    Each step of a round is recorded in one transaction that also moves the round's status forward.
    A step that was recorded before is left as it is and the method returns False.
    """

    def start_round(self, campaign: str, number: int) -> RoundRecord:
        """Begin a round, or find it as it stands.

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.writing() as connection:
            row = {
                "campaign_id": self._campaign_id(connection, campaign),
                "number": int(number),
                "status": RoundStatus.STARTED.value,
                "seconds": {},
                "started_at": datetime.now(UTC),
            }
            insert_once(connection, t.Round, row)
            statement = _rounds().where(
                t.Round.campaign_id == row["campaign_id"], t.Round.number == row["number"]
            )
            return _round_record(connection.execute(statement).one())

    def round(self, round_id: int) -> RoundRecord:
        """A round as it stands.

        Raises
        ------
        LookupError
            No such round.
        """
        with self._database.reading() as connection:
            row = connection.execute(_rounds().where(t.Round.id == round_id)).one_or_none()
        if row is None:
            raise LookupError(f"there is no round {round_id} in the ledger")
        return _round_record(row)

    def rounds(self, campaign: str) -> list[RoundRecord]:
        """The rounds of a campaign in their order.

        Raises
        ------
        UserError
            No such campaign.
        """
        with self._database.reading() as connection:
            campaign_id = self._campaign_id(connection, campaign)
            statement = _rounds().where(t.Round.campaign_id == campaign_id)
            rows = connection.execute(statement.order_by(t.Round.number))
            return [_round_record(row) for row in rows]

    def record_training(
        self,
        round_id: int,
        training_hash: str,
        n_training: int,
        model_dir: str | Path,
        model_hash: str,
        metrics: Mapping[str, Any],
    ) -> bool:
        """Record the model of a round.

        Parameters
        ----------
        training_hash, n_training
            Identity and number of the materials learned from.
        model_dir, model_hash
            Where the ensemble lies and the hash of its content.

        Returns
        -------
        bool
            False where it was recorded before.
        """
        with self._database.writing() as connection:
            return _advance(
                connection,
                round_id,
                RoundStatus.TRAINED,
                training_hash=training_hash,
                n_training=int(n_training),
                model_dir=str(model_dir),
                model_hash=model_hash,
                metrics=dict(metrics),
            )

    def record_predictions(self, round_id: int, predictions: pd.DataFrame) -> bool:
        """Record what the ensemble says about every candidate.

        Parameters
        ----------
        predictions
            One row per candidate. Columns ``material_id``, ``structure_hash``, ``formula``,
            ``n_sites``, ``band_gap`` (eV), ``electronic`` and ``ionic`` (3×3, means over the
            members, in the frame of the candidate's structure), ``epsilon_mean`` and
            ``epsilon_std`` (static permittivity, trace/3), ``merit_mean`` and ``merit_std``,
            ``acquisition``, and ``rank`` (an integer, 1 is best). NaN or None where something is
            unknown. Other columns are not recorded.

        Returns
        -------
        bool
            False where predictions were recorded before; nothing is replaced.

        Raises
        ------
        ValueError
            A column is missing.
        """
        missing = sorted(_PREDICTION.keys() - set(predictions.columns))
        if missing:
            raise ValueError(f"the predictions lack the columns {', '.join(missing)}")
        columns = [_prediction_column(predictions, name) for name in _PREDICTION]
        rows = [
            {"round_id": round_id, "position": position, **dict(zip(_PREDICTION, row, strict=True))}
            for position, row in enumerate(zip(*columns, strict=True))
        ]
        with self._database.writing() as connection:
            if not _advance(connection, round_id, RoundStatus.PREDICTED):
                return False
            insert_missing(connection, t.Prediction, rows)
            return True

    def predictions(self, round_id: int) -> pd.DataFrame:
        """The recorded predictions, columns and order as in :meth:`record_predictions`.

        Tensors are nested lists; what is unknown is NaN (None for tensors).
        """
        statement = (
            select(*(getattr(t.Prediction, column) for column in _PREDICTION))
            .where(t.Prediction.round_id == round_id)
            .order_by(t.Prediction.position)
        )
        with self._database.reading() as connection:
            return encoding.frame(connection.execute(statement).all(), _PREDICTION)

    def select(
        self,
        round_id: int,
        selections: Sequence[Selection],
        calculations: Sequence[PlannedCalculation],
        materials: Sequence[Material],
    ) -> bool:
        """Record the picks of a round together with the calculations and structures they need.

        A calculation whose key is in the ledger already, planned by whichever campaign, is shared:
        it keeps its directory, its handle and its result.

        Returns
        -------
        bool
            False where picks were recorded before.

        Raises
        ------
        ValueError
            Selections, calculations and materials do not belong together.
        """
        planned = {calculation.key: calculation for calculation in calculations}
        by_hash = {material.structure_hash: material for material in materials}
        if len({pick.calculation_key for pick in selections}) != len(selections):
            raise ValueError("a calculation is selected twice")
        try:
            chosen = [
                _selection_row(pick, by_hash[planned[pick.calculation_key].structure_hash])
                for pick in selections
            ]
        except KeyError as error:
            raise ValueError(f"nothing is said about {error}, which is selected") from None
        material_rows = [_material_row(key, material) for key, material in by_hash.items()]
        with self._database.writing() as connection:
            if not _advance(connection, round_id, RoundStatus.SELECTED):
                return False
            owner = connection.scalar(select(t.Round.campaign_id).where(t.Round.id == round_id))
            calculation_rows = [_calculation_row(item, owner) for item in planned.values()]
            # In one order for everybody: two campaigns that insert the same keys in different
            # orders would wait for each other.
            material_rows.sort(key=lambda row: row["structure_hash"])
            calculation_rows.sort(key=lambda row: row["key"])
            insert_missing(connection, t.Material, material_rows)
            insert_missing(connection, t.Calculation, calculation_rows)
            insert_missing(connection, t.Selection, [{"round_id": round_id, **r} for r in chosen])
            return True

    def record_seconds(self, round_id: int, step: str, wall_s: float, cpu_s: float) -> bool:
        """Record what a step of a round took; False where it was recorded before.

        Raises
        ------
        LookupError
            No such round.
        """
        with self._database.writing() as connection:
            seconds = connection.scalar(
                select(t.Round.seconds)
                .where(t.Round.id == round_id)
                .with_for_update(key_share=True)
            )
            if seconds is None:
                raise LookupError(f"there is no round {round_id} in the ledger")
            if step in seconds:
                return False
            seconds[step] = {"wall_s": float(wall_s), "cpu_s": float(cpu_s)}
            connection.execute(
                update(t.Round).where(t.Round.id == round_id).values(seconds=seconds)
            )
            return True

    def finish_round(self, round_id: int) -> bool:
        """Close a round whose calculations all have a verdict; False where it was closed before.

        Raises
        ------
        ValueError
            Calculations of the round are still open.
        """
        still_open = (
            select(func.count())
            .select_from(t.Selection)
            .join(t.Calculation, t.Calculation.key == t.Selection.calculation_key)
            .where(
                t.Selection.round_id == round_id,
                t.Calculation.status != CalculationStatus.FINISHED.value,
            )
        )
        with self._database.writing() as connection:
            count = connection.scalar(still_open)
            if count:
                raise ValueError(f"{count} calculations of round {round_id} have no verdict yet")
            return _advance(
                connection, round_id, RoundStatus.FINISHED, finished_at=datetime.now(UTC)
            )


def _rounds() -> Select[Any]:
    return select(t.Round.__table__, t.Campaign.name.label("campaign")).join(
        t.Campaign, t.Campaign.id == t.Round.campaign_id
    )


def _round_record(row: Row[Any]) -> RoundRecord:
    values = dict(row._mapping)
    del values["campaign_id"]
    return RoundRecord(**values | {"status": RoundStatus(values["status"])})


def _advance(connection: Connection, round_id: int, to: RoundStatus, **values: Any) -> bool:
    """Lock a round and move it to its next status; False where it has been there before."""
    status = connection.scalar(
        select(t.Round.status).where(t.Round.id == round_id).with_for_update(key_share=True)
    )
    if status is None:
        raise LookupError(f"there is no round {round_id} in the ledger")
    steps = list(RoundStatus)
    missing = steps.index(to) - steps.index(RoundStatus(status))
    if missing <= 0:
        return False
    if missing > 1:
        raise ValueError(f"round {round_id} is only {status} and cannot be {to} next")
    connection.execute(
        update(t.Round).where(t.Round.id == round_id).values(status=to.value, **values)
    )
    return True


def _prediction_column(predictions: pd.DataFrame, name: str) -> list[Any]:
    values = predictions[name].tolist()
    kind = _PREDICTION[name]
    if kind == "object":
        return [encoding.matrix(value) for value in values]
    if kind == "int64":
        return [int(value) for value in values]
    if kind == "float64":
        return [None if value is None else encoding.scalar(float(value)) for value in values]
    return values


def _selection_row(pick: Selection, material: Material) -> dict[str, Any]:
    return {
        "calculation_key": pick.calculation_key,
        "material_id": material.material_id,
        "band_gap": encoding.scalar(material.band_gap),
        "rank": int(pick.rank),
        "acquisition": encoding.scalar(pick.acquisition),
        "merit_mean": encoding.scalar(pick.merit_mean),
        "merit_std": encoding.scalar(pick.merit_std),
        "epsilon_mean": encoding.scalar(pick.epsilon_mean),
        "epsilon_std": encoding.scalar(pick.epsilon_std),
    }


def _material_row(structure_hash: str, material: Material) -> dict[str, Any]:
    row = {name: encoding.scalar(value) for name, value in material.to_dict().items()}
    return {"structure_hash": structure_hash, **row}


def _calculation_row(planned: PlannedCalculation, campaign_id: int | None) -> dict[str, Any]:
    return {
        "key": planned.key,
        "campaign_id": campaign_id,
        "structure_hash": planned.structure_hash,
        "material_id": planned.material_id,
        "engine": planned.engine,
        "settings": dict(planned.settings),
        "settings_hash": planned.settings_hash,
        "directory": str(planned.directory),
        "status": CalculationStatus.PLANNED.value,
        "planned_at": datetime.now(UTC),
    }
