"""The part of the ledger that says which machine has a calculation."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from results import schema as t
from results.rounds import RoundLedger
from results.schema import CalculationStatus


class ClaimLedger(RoundLedger):
    """Claims; see :class:`results.ledger.Ledger`."""

    def claim(self, key: str, place: str) -> str | None:
        """Take a calculation for the place where it is going to run, unless another one has it.

        Whoever wants to run a calculation claims it first, so that no two machines run the same;
        on one machine its directory sees to that. A place may claim what it has again.

        Parameters
        ----------
        place
            The machine that its directory is on, in words that stay the same.

        Returns
        -------
        str or None
            The place that has it; None where it is finished.

        Raises
        ------
        LookupError
            No such calculation.
        """
        with self._database.writing() as connection:
            status, owner = locked(connection, key)
            if status == CalculationStatus.FINISHED:
                return None
            if owner is None or status == CalculationStatus.PLANNED:
                connection.execute(
                    update(t.Calculation)
                    .where(t.Calculation.key == key)
                    .values(
                        status=CalculationStatus.SUBMITTED.value,
                        handle=place,
                        submitted_at=datetime.now(UTC),
                    )
                )
                return place
            return owner

    def release(self, key: str) -> bool:
        """Give a claimed calculation back, for another place to take; False where there is none.

        Raises
        ------
        LookupError
            No such calculation.
        """
        with self._database.writing() as connection:
            status, _ = locked(connection, key)
            if status != CalculationStatus.SUBMITTED:
                return False
            connection.execute(
                update(t.Calculation)
                .where(t.Calculation.key == key)
                .values(status=CalculationStatus.PLANNED.value, handle=None, submitted_at=None)
            )
            return True


def locked(connection: Connection, key: str) -> tuple[CalculationStatus, str | None]:
    """Status and handle of a calculation, which nobody else changes until the transaction ends."""
    row = connection.execute(
        select(t.Calculation.status, t.Calculation.handle)
        .where(t.Calculation.key == key)
        .with_for_update(key_share=True)
    ).one_or_none()
    if row is None:
        raise LookupError(f"there is no calculation {key} in the ledger")
    return CalculationStatus(row.status), row.handle
