"""Which elements were picked, as a periodic table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from results.style import HEAT, KNOWN, theme
from results.view import CampaignView

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROWS, _COLUMNS = 9, 18


def elements(view: CampaignView) -> go.Figure | None:
    """Periodic table coloured by the number of calculations that contain each element.

    None where nothing has been picked.
    """
    import plotly.graph_objects as go

    picked = element_counts(view.calculations.drop_duplicates("key")["formula"])
    validated = element_counts(view.validated["formula"])
    if not picked:
        return None
    shape = range(_ROWS)
    roots: list[list[float | None]] = [[None] * _COLUMNS for _ in shape]
    blanks: list[list[float | None]] = [[None] * _COLUMNS for _ in shape]
    symbols = [[""] * _COLUMNS for _ in shape]
    labels = [[""] * _COLUMNS for _ in shape]
    hovers = [[""] * _COLUMNS for _ in shape]
    for symbol, (row, column) in _positions().items():
        count = picked[symbol]
        # Oxygen is in most picks; the root keeps the rest from fading beside it.
        (roots if count else blanks)[row][column] = round(math.sqrt(count), 3)
        (labels if count else symbols)[row][column] = (
            f"<b>{symbol}</b><br>{count}" if count else symbol
        )
        hovers[row][column] = f"{symbol}: picked {count}, validated {validated[symbol]}"
    figure = go.Figure()
    highest = math.sqrt(max(*picked.values(), 2))
    pale = "rgba(127,127,127,0.13)"
    for values, texts, scale, span, font in (
        (blanks, symbols, ((0.0, pale), (1.0, pale)), (0, 1), {"color": KNOWN, "size": 12}),
        (roots, labels, HEAT, (1, highest), {"size": 12}),
    ):
        figure.add_heatmap(
            z=values,
            text=texts,
            hovertext=hovers,
            texttemplate="%{text}",
            hovertemplate="%{hovertext}<extra></extra>",
            colorscale=[list(stop) for stop in scale],
            zmin=span[0],
            zmax=span[1],
            showscale=False,
            hoverongaps=False,
            xgap=2,
            ygap=2,
            textfont=font,
        )
    hidden = {"visible": False, "fixedrange": True}
    figure.layout.template = theme("light")
    figure.update_layout(margin={"l": 4, "r": 4, "t": 4, "b": 4})
    figure.update_xaxes(**hidden)
    figure.update_yaxes(**hidden, autorange="reversed")
    return figure


def element_counts(formulas: Iterable[str]) -> Counter[str]:
    """Number of formulas that contain each element; what is no formula counts for nothing."""
    from pymatgen.core.composition import Composition

    counts: Counter[str] = Counter()
    for formula in formulas:
        try:
            symbols = {element.symbol for element in Composition(formula).elements}
        except (ValueError, KeyError):
            continue
        counts.update(symbols)
    return counts


def _positions() -> dict[str, tuple[int, int]]:
    """Row and column, from 0, of each element up to Lr; the f block fills the last two rows."""
    from pymatgen.core.periodic_table import Element

    places = {}
    for number in range(1, 104):
        element = Element.from_Z(number)
        if 57 <= number <= 71:
            places[element.symbol] = (7, number - 54)
        elif 89 <= number <= 103:
            places[element.symbol] = (8, number - 86)
        else:
            places[element.symbol] = (element.row - 1, element.group - 1)
    return places
