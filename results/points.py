"""Points of a figure: what they look like and what hovering over them tells."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import pandas as pd

from results.style import round_colour, round_symbol, rounded
from results.text import MISSING, formula_html, label_html, label_symbol, label_unit
from results.view import CampaignView

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FACTS = ("band_gap", "epsilon", "merit", "epsilon_mean", "epsilon_std", "merit_mean", "merit_std")
"""Columns that the hover text shows where a table has them."""


def add_points(
    figure: go.Figure,
    view: CampaignView,
    table: pd.DataFrame,
    x: str,
    y: str,
    name: str,
    marker: dict[str, Any],
    fast: bool = False,
    **options: Any,
) -> None:
    """Add the rows of ``table`` that have both coordinates; hovering tells what each one is.

    ``fast`` draws by WebGL, which is the only way for thousands of points.
    """
    import plotly.graph_objects as go

    rows = table[table[x].notna() & table[y].notna()]
    if rows.empty:
        return
    kind = go.Scattergl if fast else go.Scatter
    figure.add_trace(
        kind(
            x=rounded(rows[x]),
            y=rounded(rows[y]),
            mode="markers",
            name=name,
            marker=marker,
            text=[
                f"{formula_html(formula)} · {html.escape(material_id)}"
                for formula, material_id in zip(rows["formula"], rows["material_id"], strict=True)
            ],
            customdata=_facts(rows),
            meta={"columns": [name for name in _FACTS if name in rows]},
            hovertemplate=_hover(view, rows) + f"<extra>{name}</extra>",
            **options,
        )
    )


def _facts(rows: pd.DataFrame) -> list[list[float | str]]:
    columns = [rounded(rows[name], 3) for name in _FACTS if name in rows]
    return [[MISSING if v is None else v for v in values] for values in zip(*columns, strict=True)]


def _hover(view: CampaignView, rows: pd.DataFrame) -> str:
    """Template of the hover text over the columns that ``_facts`` collects."""
    place = {name: i for i, name in enumerate(name for name in _FACTS if name in rows)}

    def value(name: str) -> str:
        return f"%{{customdata[{place[name]}]}}"

    symbol, unit = label_html(label_symbol(view.task.label)), label_unit(view.task.label)
    merit = f"{symbol} {{}} {html.escape(unit)}".rstrip()
    lines = ["<b>%{text}</b>", f"E<sub>g</sub> {value('band_gap')} eV"]
    if "epsilon" in place and rows["epsilon"].notna().any():
        lines.append(f"ε̄ {value('epsilon')}, {merit.format(value('merit'))}")
    if "epsilon_mean" in place:
        predicted = f"{value('merit_mean')} ± {value('merit_std')}"
        epsilon = f"{value('epsilon_mean')} ± {value('epsilon_std')}"
        lines.append(f"predicted ε̄ {epsilon}, {merit.format(predicted)}")
    return "<br>".join(lines)


def round_marker(round_number: int) -> dict[str, Any]:
    """Marker of the validated materials of one round."""
    return {
        "size": 10,
        "color": round_colour(round_number),
        "symbol": round_symbol(round_number),
        "line": {"width": 0.8, "color": "rgba(20,20,20,0.65)"},
    }


def label(
    figure: go.Figure, x: float, y: float, text: str, *, size: int = 12, **options: Any
) -> None:
    """Write ``text`` at a point; on a logarithmic axis its coordinate is in decades."""
    figure.add_annotation(x=x, y=y, text=text, showarrow=False, font={"size": size}, **options)
