"""Band gaps for materials whose source gives none, only where a person asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from screening.errors import UserError
from screening.folders import read_gaps
from screening.material import Material
from screening.pulling import PullContext


def give_gaps(
    materials: Sequence[Material],
    table: Path | None,
    assumed: float | None,
    context: PullContext,
    what: str,
) -> list[Material]:
    """Materials with the gaps of a table, and else with the assumed one.

    Parameters
    ----------
    table
        CSV (material_id, band_gap in eV): measured, or predicted by a model of the user's.
    assumed
        Gap in eV for materials that have none after that; None leaves them without.
    what
        Name of the source, for messages.

    Raises
    ------
    UserError
        The table cannot be read or names a material that is not there.
    """
    gaps = read_gaps(table) if table is not None else {}
    by_id = {m.material_id: m for m in materials}
    if strangers := sorted(set(gaps) - set(by_id)):
        raise UserError(
            f"{table} gives a band gap for '{strangers[0]}', which {what} does not have; "
            "correct the id or take it out."
        )
    for material_id, gap in gaps.items():
        by_id[material_id].band_gap = gap
    missing = [m for m in materials if m.band_gap is None]
    if not missing:
        return list(materials)
    of = f"{len(missing)} of {len(materials)} materials of {what} have no band gap"
    if assumed is None:
        context.note(
            f"{of}; a task that needs one leaves them out. Give their gaps (a column band_gap or "
            "a CSV as band_gaps) or an assumed_band_gap to use them."
        )
        return list(materials)
    for material in missing:
        material.band_gap = assumed
        material.source = f"{material.source}, band gap assumed"
    context.note(f"{of}; {assumed:g} eV is assumed for them, as asked.")
    return list(materials)
