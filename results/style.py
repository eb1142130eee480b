"""Colours and the look that all figures share, on a light and on a dark page.

Colours are those of Okabe and Ito, which people with any common colour blindness can tell apart;
rounds differ in shape as well. All of them stand out from white and from near-black, so a theme
changes only text, lines and background.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

CANDIDATE = "#56b4e9"
KNOWN = "#80848a"
REFUSED = "#d55e00"
LINE = "#8a8d91"
HEAT = (
    (0.0, "#cfe3f2"),
    (0.25, "#8fc1e3"),
    (0.6, "#2e86c1"),
    (1.0, "#0b4f82"),
)
"""Colour scale of a count, from few to many."""

_ROUNDS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#9a6324")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "pentagon")

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"

_LADDERS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 2, 5),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 3, 4, 5, 6, 7, 8, 9),
    tuple(step / 10 for step in range(10, 100)),
)
"""Steps within a decade, from coarse to fine."""

_THEMES = {
    "light": {"text": "#24292f", "grid": "#e7e9ec", "axis": "#8a9099", "page": "#ffffff"},
    "dark": {"text": "#d7dbe0", "grid": "#2b3138", "axis": "#6b737c", "page": "#15181c"},
}


def round_colour(number: int) -> str:
    """Colour of everything that belongs to round ``number`` (from 1), in every figure."""
    return _ROUNDS[(number - 1) % len(_ROUNDS)]


def round_symbol(number: int) -> str:
    """Marker of round ``number``; colour and marker together repeat after 30 rounds."""
    return _SYMBOLS[(number - 1) % len(_SYMBOLS)]


def theme(name: str) -> dict[str, Any]:
    """The plotly template ``"light"`` or ``"dark"``, as JSON."""
    colours = _THEMES[name]
    axis = {
        "gridcolor": colours["grid"],
        "linecolor": colours["axis"],
        "tickcolor": colours["axis"],
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": colours["text"]},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
            "hoverlabel": {
                "bgcolor": colours["page"],
                "bordercolor": colours["axis"],
                "font": {"color": colours["text"], "family": FONT},
                "align": "left",
            },
            "modebar": {
                "bgcolor": "rgba(0,0,0,0)",
                "color": colours["axis"],
                "activecolor": colours["text"],
            },
            "annotationdefaults": {
                "bgcolor": f"{colours['page']}cc",
                "arrowcolor": colours["axis"],
                "arrowwidth": 1,
                "arrowhead": 0,
                "font": {"size": 12, "color": colours["text"]},
            },
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "itemsizing": "constant",
                "font": {"size": 12},
            },
        }
    }


def rounded(values: Iterable[Any], digits: int = 4) -> list[float | None]:
    """Numbers with ``digits`` significant digits, None for what is not finite.

    Four digits are finer than a pixel; a figure of 14,000 points written in full is three times
    the size.
    """
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in map(float, values)]


def log_range(values: Iterable[float], margin: float = 0.08) -> list[float]:
    """Range of a logarithmic axis, in decades, that shows all positive ``values``."""
    logs = [math.log10(value) for value in values if math.isfinite(value) and value > 0]
    if not logs:
        return [0.0, 2.0]
    low, high = min(logs), max(logs)
    pad = max(margin * (high - low), 0.05)
    return [low - pad, high + pad]


def log_ticks(low: float, high: float, *, least: int = 5) -> list[float]:
    """Round values between 10^``low`` and 10^``high``: decades, or finer to have ``least``."""
    ticks: list[float] = []
    for steps in _LADDERS:
        decades = range(math.floor(low), math.ceil(high) + 1)
        ladder = (round(step * 10.0**n, 9) for n in decades for step in steps)
        ticks = [value for value in ladder if 10**low <= value <= 10**high]
        if len(ticks) >= least:
            break
    return ticks
