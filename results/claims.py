"""The part of the ledger that says which machine has a calculation."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from results import schema as t
from results.rounds import RoundLedger
from results.schema import CalculationStatus


class ClaimLedger(RoundLedger):
    """Claims; see :class:`results.ledger.Ledger`."""

    def claim(self, keys: Collection[str], place: str) -> dict[str, str | None]:
        """Take calculations for the place where they are to run, unless others have them.

        Whoever wants to run a calculation claims it first, so that no two machines run the same;
        on one machine its directory sees to that. A place may claim what it has again. All are
        taken in one transaction.

        Parameters
        ----------
        place
            The machine that their directories are on, in words that stay the same.

        Returns
        -------
        dict[str, str or None]
            The place that has each, by key; None where it is finished.

        Raises
        ------
        LookupError
            No such calculation; none of them was taken.
        """
        with self._database.writing() as connection:
            owners: dict[str, str | None] = {}
            taken = []
            for key, (status, owner) in locked(connection, keys).items():
                owners[key] = None if status == CalculationStatus.FINISHED else owner
                if status == CalculationStatus.PLANNED:
                    owners[key] = place
                    taken.append(key)
            connection.execute(
                update(t.Calculation)
                .where(t.Calculation.key.in_(taken))
                .values(
                    status=CalculationStatus.SUBMITTED.value,
                    handle=place,
                    submitted_at=datetime.now(UTC),
                )
            )
            return owners

    def release(self, key: str) -> bool:
        """Give a claimed calculation back, for another place to take; False where there is none.

        Raises
        ------
        LookupError
            No such calculation.
        """
        with self._database.writing() as connection:
            status, _ = locked(connection, [key])[key]
            if status != CalculationStatus.SUBMITTED:
                return False
            connection.execute(
                update(t.Calculation)
                .where(t.Calculation.key == key)
                .values(status=CalculationStatus.PLANNED.value, handle=None, submitted_at=None)
            )
            return True


def locked(
    connection: Connection, keys: Collection[str]
) -> dict[str, tuple[CalculationStatus, str | None]]:
    """Status and handle of calculations, which nobody else changes until the transaction ends.

    Raises
    ------
    LookupError
        One of them is not in the ledger.
    """
    # In one order, so that two who want the same never wait for each other.
    rows = connection.execute(
        select(t.Calculation.key, t.Calculation.status, t.Calculation.handle)
        .where(t.Calculation.key.in_(keys))
        .order_by(t.Calculation.key)
        .with_for_update(key_share=True)
    ).all()
    found = {row.key: (CalculationStatus(row.status), row.handle) for row in rows}
    if missing := sorted(set(keys) - found.keys()):
        raise LookupError(f"there is no calculation {missing[0]} in the ledger")
    return found
