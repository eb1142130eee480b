"""The figures of a campaign as PNG, for pages that show pictures and nothing that moves.

Drawn on white, so that they read on a light and on a dark page alike.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from results.style import CANDIDATE, KNOWN, LINE, REFUSED, round_colour
from results.view import CampaignView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (7.2, 4.3)
"""Inches; with DPI the width at which a page shows a picture without shrinking it."""
DPI = 110
MARKERS = ("o", "s", "D", "^", "*", "p")
LEVELS = np.linspace(0.05, 0.95, 19)
"""Nominal coverages of the calibration curve."""


def data_uri(picture: bytes) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def landscape(view: CampaignView) -> bytes | None:
    """Known, predicted and validated materials; None where there is nothing to show."""
    by_gap = view.task.name == "high-k"
    measured = ("band_gap", "epsilon") if by_gap else ("epsilon", "merit")
    predicted = ("band_gap", "epsilon_mean") if by_gap else ("epsilon_mean", "merit_mean")
    figure, axes = _axes()
    shown = [
        _cloud(axes, view.candidates, predicted, CANDIDATE, "candidates (predicted)"),
        _cloud(axes, view.known, measured, KNOWN, "known at the start"),
    ]
    for number in view.round_numbers:
        rows = view.validated[view.validated["round"] == number]
        shown.append(_points(axes, rows, measured, number, f"validated, round {number}"))
    refused = view.refused.dropna(subset=list(predicted))
    if len(refused):
        axes.scatter(
            refused[predicted[0]], refused[predicted[1]], marker="x", color=REFUSED,
            label="refused (predicted)", zorder=4,
        )  # fmt: skip
        shown.append(True)
    if not any(shown):
        return None
    axes.set(yscale="log", xscale="linear" if by_gap else "log")
    axes.set_xlabel("band gap $E_g$ (eV)" if by_gap else "static permittivity ε̄")
    axes.set_ylabel("static permittivity ε̄" if by_gap else _label(view))
    return _png(figure, axes)


def progress(view: CampaignView) -> bytes | None:
    """Figure of merit of every validated material by round, and the best so far."""
    rows = view.validated.dropna(subset=["merit"])
    if rows.empty:
        return None
    figure, axes = _axes()
    numbers = view.round_numbers
    best = -math.inf
    if view.best_known is not None:
        best = float(view.best_known["merit"])
        axes.axhline(best, color=LINE, linestyle="--", linewidth=1, label="best known at the start")
    steps = []
    for number in numbers:
        merits = rows.loc[rows["round"] == number, "merit"]
        _points(axes, rows[rows["round"] == number], ("round", "merit"), number, f"round {number}")
        best = max([best, *merits])
        steps.append(best)
    axes.step(numbers, steps, where="mid", color="#24292f", linewidth=1.4, label="best so far")
    axes.set_xticks(numbers)
    axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
    axes.set_xlabel("round")
    axes.set_ylabel(_label(view))
    return _png(figure, axes)


def parity(view: CampaignView) -> bytes | None:
    """Predicted against validated permittivity, with one σ."""
    rows = _compared(view)
    if rows.empty:
        return None
    figure, axes = _axes()
    low = 0.8 * float(rows[["epsilon", "epsilon_mean"]].min().min())
    high = 1.25 * float(rows[["epsilon", "epsilon_mean"]].max().max())
    axes.plot([low, high], [low, high], "--", color=LINE, linewidth=1)
    for number in view.round_numbers:
        of_round = rows[rows["round"] == number]
        if len(of_round):
            # A bar that reaches zero would go on for ever on a logarithmic axis.
            up = of_round["epsilon_std"].fillna(0.0)
            down = np.minimum(up, 0.9 * of_round["epsilon_mean"])
            axes.errorbar(
                of_round["epsilon"], of_round["epsilon_mean"], yerr=[down, up],
                fmt=_marker(number), color=round_colour(number), label=f"round {number}",
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set_xlabel("ε̄ from DFPT")
    axes.set_ylabel("ε̄ predicted ± σ")
    return _png(figure, axes)


def calibration(view: CampaignView) -> bytes | None:
    """Share of validated materials within an interval, against the share it promises."""
    shares = coverage(view)
    if shares is None:
        return None
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], "--", color=LINE, linewidth=1, label="calibrated")
    axes.plot(LEVELS, shares, "o-", color=round_colour(1), markersize=4, label="validated so far")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("interval promises to hold")
    axes.set_ylabel("interval held")
    return _png(figure, axes)


def coverage(view: CampaignView) -> list[float] | None:
    """For each of ``LEVELS``, the share of validated materials within that interval around ε̄."""
    from statistics import NormalDist

    rows = _compared(view)
    rows = rows[rows["epsilon_std"] > 0]
    if rows.empty:
        return None
    distance = ((rows["epsilon_mean"] - rows["epsilon"]).abs() / rows["epsilon_std"]).to_numpy()
    widths = [NormalDist().inv_cdf(0.5 + level / 2) for level in LEVELS]
    return [float((distance <= width).mean()) for width in widths]


def _compared(view: CampaignView) -> pd.DataFrame:
    rows = view.validated.dropna(subset=["epsilon", "epsilon_mean"])
    return rows[(rows["epsilon"] > 0) & (rows["epsilon_mean"] > 0)]


def _axes() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="#e7e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _cloud(axes: Axes, table: pd.DataFrame, columns: Sequence[str], colour: str, name: str) -> bool:
    rows = table.dropna(subset=list(columns))
    rows = rows[(rows[columns[0]] > 0) & (rows[columns[1]] > 0)]
    if len(rows):
        style: dict[str, Any] = {"s": 14, "alpha": 0.6, "linewidths": 0, "rasterized": True}
        axes.scatter(rows[columns[0]], rows[columns[1]], color=colour, label=name, **style)
    return bool(len(rows))


def _points(
    axes: Axes, table: pd.DataFrame, columns: Sequence[str], number: int, name: str
) -> bool:
    rows = table.dropna(subset=list(columns))
    if len(rows):
        axes.scatter(
            rows[columns[0]], rows[columns[1]], s=44, marker=_marker(number),
            color=round_colour(number), edgecolors="#222222", linewidths=0.6, label=name, zorder=3,
        )  # fmt: skip
    return bool(len(rows))


def _marker(number: int) -> str:
    return MARKERS[(number - 1) % len(MARKERS)]


def _label(view: CampaignView) -> str:
    return view.task.label.replace("E_g", "$E_g$").replace("λmax/λmin", "λ$_{max}$/λ$_{min}$")


def _png(figure: Figure, axes: Axes) -> bytes:
    from matplotlib.ticker import LogFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":  # 30, not 3 × 10¹
            axis.set_major_formatter(LogFormatter())
            axis.set_minor_formatter(LogFormatter(minor_thresholds=(2.5, 0.6)))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.01), ncols=3, fontsize=8, frameon=False,
            borderaxespad=0,
        )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
