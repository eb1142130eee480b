"""The figures of a campaign, as plotly figures.

Each function returns None where there is nothing to show yet. Positions on logarithmic axes are
given to plotly in the units of the data, ranges and annotations in decades, as it wants them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from results.points import add_points, label, round_marker
from results.style import (
    CANDIDATE,
    KNOWN,
    LINE,
    REFUSED,
    log_range,
    log_ticks,
    rounded,
    theme,
)
from results.text import formula_html, label_html, label_symbol, label_unit, number
from results.view import CampaignView

if TYPE_CHECKING:
    import plotly.graph_objects as go

MANY = 2000
"""Points from which a cloud is drawn by WebGL; fewer are sharper, and print better, as SVG."""

FEW = 6
"""Rounds up to which each gets a long tick label and each record its name."""

EPSILON = "static permittivity ε̄"
GAP = "band gap E<sub>g</sub> (eV)"


@dataclass(frozen=True)
class Calibration:
    """How the predictions fared, over the validated materials.

    Attributes
    ----------
    n
        Validated materials with a prediction.
    mae
        Mean absolute error of ε̄; NaN for n = 0.
    median_relative
        Median of |error| / DFPT value.
    coverage
        Share within ±1.64 σ, 0.90 for a calibrated Gaussian; NaN where no σ is known.
    """

    n: int
    mae: float
    median_relative: float
    coverage: float


def calibration(view: CampaignView) -> Calibration:
    """Compare predicted and validated static mean permittivities."""
    rows = view.validated.dropna(subset=["epsilon", "epsilon_mean"])
    if rows.empty:
        return Calibration(0, math.nan, math.nan, math.nan)
    error = (rows["epsilon_mean"] - rows["epsilon"]).abs()
    sigma = rows["epsilon_std"]
    within = (error <= 1.64 * sigma)[sigma.notna()]
    return Calibration(
        n=len(rows),
        mae=float(error.mean()),
        median_relative=float((error / rows["epsilon"]).median()),
        coverage=float(within.mean()) if len(within) else math.nan,
    )


def landscape(view: CampaignView) -> go.Figure | None:
    """Everything known, predicted and validated, with contours of the figure of merit.

    For ``high-k`` the static permittivity against the band gap, where equal merit lies on
    hyperbolae; for any other task the figure of merit against the permittivity.
    """
    import plotly.graph_objects as go

    by_gap = view.task.name == "high-k"
    xs, ys = ("band_gap", "epsilon") if by_gap else ("epsilon", "merit")
    xp, yp = ("band_gap", "epsilon_mean") if by_gap else ("epsilon_mean", "merit_mean")
    refused, waiting = view.refused, view.waiting
    shown = [(view.known, xs, ys), (view.candidates, xp, yp), (view.validated, xs, ys)]
    shown += [(refused, xp, yp), (waiting, xp, yp)]
    points = pd.concat([table[[x, y]].set_axis(["x", "y"], axis=1) for table, x, y in shown])
    points = points[(points["x"] > 0) & (points["y"] > 0)].dropna()
    if points.empty:
        return None
    x_range = [0.0, 1.05 * float(points["x"].max())] if by_gap else log_range(points["x"])
    y_range = log_range(points["y"])

    # All or nothing: a browser lays whatever WebGL draws over everything that it does not.
    fast = len(points) > MANY
    figure = go.Figure()
    cloud = {"size": 3 if fast else 4, "color": CANDIDATE, "opacity": 0.5}
    add_points(figure, view, view.candidates, xp, yp, "candidates (predicted)", cloud, fast)
    known = {"size": 3.5 if fast else 5, "color": KNOWN, "opacity": 0.6}
    add_points(figure, view, view.known, xs, ys, "known at the start", known, fast)
    merits = points["x"] * points["y"] if by_gap else points["y"]
    _add_contours(figure, view, merits, x_range, y_range, by_gap, fast)
    open_marker = {"size": 10, "color": LINE, "symbol": "hexagon-open", "line": {"width": 1.6}}
    add_points(figure, view, waiting, xp, yp, "waiting (predicted)", open_marker, fast)
    thick = {"width": 2, "color": REFUSED}
    cross = {"size": 9, "color": REFUSED, "symbol": "x-thin", "line": thick}
    add_points(figure, view, refused, xp, yp, "refused (predicted)", cross, fast)
    for round_number in view.round_numbers:
        rows = view.validated[view.validated["round"] == round_number]
        name = f"validated, round {round_number}"
        add_points(figure, view, rows, xs, ys, name, round_marker(round_number), fast)
    for row, dx, dy in ((view.best_known, -34, -26), (view.best_validated, 34, -30)):
        if row is not None:
            x, y = float(row[xs]), float(row[ys])
            _point_at(figure, row, x if by_gap else math.log10(x), math.log10(y), dx, dy)
    y_title = EPSILON if by_gap else label_html(view.task.label)
    ticks = log_ticks(*y_range)
    figure.layout.template = theme("light")
    figure.update_layout(hovermode="closest")
    figure.update_yaxes(type="log", range=y_range, title_text=y_title, tickvals=ticks)
    figure.update_xaxes(range=x_range, title_text=GAP)
    if not by_gap:
        figure.update_yaxes(showgrid=False)
        figure.update_xaxes(type="log", title_text=EPSILON, tickvals=log_ticks(*x_range))
    return figure


def progress(view: CampaignView) -> go.Figure | None:
    """Figure of merit of each validated calculation, and the best so far, by round."""
    import plotly.graph_objects as go

    rows = view.validated.dropna(subset=["merit"])
    if rows.empty:
        return None
    rows = rows.assign(position=_spread(view, rows))
    numbers, known = view.round_numbers, view.best_known
    merits = [*rows["merit"], *([] if known is None else [known["merit"]])]
    y_axis = _merit_axis(merits)

    def place(merit: float) -> float:
        return math.log10(merit) if y_axis["type"] == "log" else merit

    figure = go.Figure()
    ticks = {n: _round_tick(view, n) for n in numbers}
    if known is not None:
        ticks = {0: "start", **ticks}
        _add_start(figure, view, known, place(float(known["merit"])))
    steps, records = _best_so_far(rows, list(ticks), known)
    figure.add_scatter(
        x=[x for x, _ in steps],
        y=rounded(y for _, y in steps),
        mode="lines",
        line={"color": LINE, "width": 2, "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )
    # Many labels would lie on each other; the last record is the one that counts.
    for record in records if len(numbers) <= FEW else records[-1:]:
        text = f"{formula_html(record['formula'])}, {number(record['merit'])}"
        x, y = float(record["position"]), place(float(record["merit"]))
        label(figure, x, y, text, yanchor="bottom", yshift=8)
    for round_number in numbers:
        of_round = rows[rows["round"] == round_number]
        name, marker = f"round {round_number}", round_marker(round_number)
        add_points(figure, view, of_round, "position", "merit", name, marker)
    figure.layout.template = theme("light")
    figure.update_layout(hovermode="closest", showlegend=False)
    figure.update_xaxes(
        range=[min(ticks) - 0.5, max(ticks) + 0.5],
        tickvals=list(ticks),
        ticktext=list(ticks.values()),
        tickangle=0,
        showgrid=False,
    )
    if len(numbers) > FEW:
        figure.update_xaxes(title_text="round, validated / picked")
    figure.update_yaxes(title_text=label_html(view.task.label), **y_axis)
    return figure


def parity(view: CampaignView) -> go.Figure | None:
    """Predicted against validated static mean permittivity, with error bars of one σ."""
    import plotly.graph_objects as go

    rows = view.validated.dropna(subset=["epsilon", "epsilon_mean"])
    rows = rows[(rows["epsilon"] > 0) & (rows["epsilon_mean"] > 0)]
    if rows.empty:
        return None
    # An error bar that reaches zero would be drawn to minus infinity.
    sigma = rows["epsilon_std"].fillna(0.0)
    rows = rows.assign(down=np.minimum(sigma, 0.9 * rows["epsilon_mean"]), up=sigma)
    low_high = log_range([*rows["epsilon"], *rows["epsilon_mean"]], margin=0.12)
    ends = [10 ** low_high[0], 10 ** low_high[1]]
    figure = go.Figure()
    figure.add_scatter(
        x=ends,
        y=ends,
        mode="lines",
        line={"color": LINE, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
    )
    for round_number in view.round_numbers:
        of_round = rows[rows["round"] == round_number]
        bars = {
            "type": "data",
            "array": rounded(of_round["up"]),
            "arrayminus": rounded(of_round["down"]),
            "symmetric": False,
            "thickness": 1.2,
            "width": 0,
        }
        marker = round_marker(round_number)
        name = f"round {round_number}"
        add_points(figure, view, of_round, "epsilon", "epsilon_mean", name, marker, error_y=bars)
    ticks = log_ticks(*low_high)
    axis: dict[str, Any] = {"type": "log", "range": low_high, "tickvals": ticks}
    figure.layout.template = theme("light")
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(**axis, title_text="ε̄ from DFPT", constrain="domain")
    figure.update_yaxes(**axis, title_text="ε̄ predicted", scaleanchor="x", constrain="domain")
    return figure


def _add_contours(
    figure: go.Figure,
    view: CampaignView,
    merits: pd.Series,
    x_range: list[float],
    y_range: list[float],
    by_gap: bool,
    fast: bool,
) -> None:
    """Lines of equal figure of merit, each with its value at the right edge."""
    import plotly.graph_objects as go

    symbol, unit = label_html(label_symbol(view.task.label)), label_unit(view.task.label)
    kind = go.Scattergl if fast else go.Scatter
    right = x_range[1]
    visible = []
    for level in contour_levels(merits):
        height = math.log10(level / right) if by_gap else math.log10(level)
        if y_range[0] <= height <= y_range[1]:
            visible.append((level, height))
    for i, (level, height) in enumerate(visible):
        if by_gap:
            gaps = np.geomspace(level / 10 ** y_range[1], right, 80)
            line: tuple[Iterable[float], Iterable[float]] = (gaps, level / gaps)
        else:
            line = ([10 ** x_range[0], 10 ** x_range[1]], [level, level])
        figure.add_trace(
            kind(
                x=rounded(line[0]),
                y=rounded(line[1]),
                mode="lines",
                line={"color": LINE, "width": 1.2, "dash": "dash"},
                hoverinfo="skip",
                showlegend=False,
            )
        )
        text = f"{level:,g} {html.escape(unit)}".rstrip()
        if i == len(visible) - 1:
            text = f"{symbol} = {text}"
        label(figure, right, height, text, xanchor="right", yanchor="middle", size=11)


def contour_levels(merits: Iterable[float], most: int = 6) -> list[float]:
    """Round values of the figure of merit for contours: the highest few that the data reach."""
    values = np.asarray([m for m in merits if math.isfinite(m) and m > 0])
    if not len(values):
        return []
    low, high = np.log10(np.quantile(values, 0.1)), np.log10(values.max())
    return log_ticks(float(low), float(high), least=3)[-most:]


def _merit_axis(merits: Iterable[float]) -> dict[str, Any]:
    """Axis with room for labels above; logarithmic where one far ahead would flatten the rest."""
    values = list(map(float, merits))
    low, high = min(values), max(values)
    if low > 0.0 and high > 30.0 * low:
        low, high = log_range(values)
        high += 0.08 * (high - low)
        return {"type": "log", "range": [low, high], "tickvals": log_ticks(low, high)}
    if 0.0 < low < 0.35 * high:
        low = 0.0
    span = (high - low) or abs(high) or 1.0
    return {"type": "linear", "range": [low - (0.08 * span if low else 0.0), high + 0.16 * span]}


def _spread(view: CampaignView, rows: pd.DataFrame) -> pd.Series:
    """Horizontal place of each row beside its round, by its rank among the round's picks."""
    picks = view.calculations.groupby("round")["rank"].agg(["min", "max"])
    lowest, highest = (rows["round"].map(picks[name]) for name in ("min", "max"))
    width = (highest - lowest).where(highest > lowest, 1.0)
    middle = 0.5 * (highest > lowest)
    return rows["round"] + 0.6 * ((rows["rank"] - lowest) / width - middle)


def _add_start(figure: go.Figure, view: CampaignView, known: pd.Series, height: float) -> None:
    """The best material known at the start: a dot, its name, and a line to compare with."""
    merit = float(known["merit"])
    base = {"color": LINE, "dash": "dash", "width": 1.2}
    figure.add_hline(y=merit, line=base, layer="below")
    text = f"best known:<br>{formula_html(known['formula'])}<br>{number(merit)}"
    below: dict[str, Any] = {"yanchor": "top", "yshift": -6, "bgcolor": "rgba(0,0,0,0)"}
    left: dict[str, Any] = {"xanchor": "left", "xshift": 4, "align": "left"}
    label(figure, -0.5, height, text, **below, **left)
    start = known.to_frame().T.assign(position=0)
    dot = {"size": 9, "color": KNOWN}
    add_points(figure, view, start, "position", "merit", "known at the start", dot)


def _best_so_far(
    rows: pd.DataFrame, slots: list[int], known: pd.Series | None
) -> tuple[list[tuple[float, float]], list[pd.Series]]:
    """Corners of the line of the best so far, and the validated materials that raised it."""
    highest = -math.inf if known is None else float(known["merit"])
    steps, records = [], []
    for slot in slots:
        top = rows[rows["round"] == slot].head(1)
        if len(top) and float(top["merit"].iloc[0]) > highest:
            highest = float(top["merit"].iloc[0])
            records.append(top.iloc[0])
        if math.isfinite(highest):
            steps.append((slot - 0.5, highest))
    return [*steps, (slots[-1] + 0.5, highest)], records


def _round_tick(view: CampaignView, round_number: int) -> str:
    chosen = int((view.calculations["round"] == round_number).sum())
    good = int((view.validated["round"] == round_number).sum())
    if len(view.round_numbers) > FEW:
        return f"{round_number}<br>{good}/{chosen}"
    return f"round {round_number}<br>{good} of {chosen}<br>validated"


def _point_at(figure: go.Figure, row: pd.Series, x: float, y: float, dx: int, dy: int) -> None:
    text = formula_html(row["formula"])
    figure.add_annotation(x=x, y=y, text=text, showarrow=True, ax=dx, ay=dy, standoff=5)
