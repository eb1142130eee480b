"""The figures show the numbers of the view, at the right place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results.periodic import element_counts, elements
from results.plots import MANY, calibration, contour_levels, landscape, parity, progress
from results.style import log_ticks, round_colour, round_symbol, rounded
from results.text import duration, fixed, formula_html, label_html, label_symbol, label_unit, number


def traces(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if (trace.name or "").startswith(name)]


def points(found: list[Any]) -> list[tuple[float, float]]:
    return sorted(pair for trace in found for pair in zip(trace.x, trace.y, strict=True))


def expected(x: pd.Series, y: pd.Series) -> list[tuple[float, float]]:
    return sorted(zip(rounded(x), rounded(y), strict=True))


@pytest.mark.parametrize(
    ("task", "x", "y"), [("high-k", "band_gap", "epsilon"), ("anisotropy", "epsilon", "merit")]
)
def test_landscape_shows_every_material_once(example: Any, task: str, x: str, y: str) -> None:
    view = example.view(task)
    figure = landscape(view)
    xp, yp = (name if name == "band_gap" else f"{name}_mean" for name in (x, y))
    assert points(traces(figure, "validated")) == expected(view.validated[x], view.validated[y])
    assert points(traces(figure, "known")) == expected(view.known[x], view.known[y])
    assert points(traces(figure, "refused")) == expected(view.refused[xp], view.refused[yp])
    cloud = points(traces(figure, "candidates"))
    assert cloud == expected(view.candidates[xp], view.candidates[yp])
    shown = [(a, b) for trace in figure.data if trace.mode == "markers" for a, b in points([trace])]
    top, right = 10 ** figure.layout.yaxis.range[1], figure.layout.xaxis.range[1]
    right = right if task == "high-k" else 10**right
    assert all(0 < a < right and 0 < b < top for a, b in shown)


def test_contours_are_hyperbolae_with_their_values(example: Any) -> None:
    figure = landscape(example.view())
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    labels = [a.text for a in figure.layout.annotations if not a.showarrow]
    assert len(lines) == len(labels) >= 3
    for line, label in zip(lines, labels, strict=True):
        level = float(label.split("= ")[-1].removesuffix(" eV").replace(",", ""))
        assert np.allclose(np.multiply(line.x, line.y), level, rtol=2e-3)
    assert labels[-1].startswith("E<sub>g</sub>·ε̄ = ")


def test_contours_of_the_anisotropy_are_level(example: Any) -> None:
    figure = landscape(example.view("anisotropy"))
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(lines) >= 3
    assert all(len(set(line.y)) == 1 for line in lines)


def test_many_points_are_drawn_by_webgl_and_few_are_not(example: Any) -> None:
    few, many = (landscape(example.view(n_candidates=n)) for n in (100, MANY))
    assert {trace.type for trace in few.data} == {"scatter"}
    assert {trace.type for trace in many.data} == {"scattergl"}


def test_progress_never_falls_and_starts_at_the_best_known(example: Any) -> None:
    view = example.view()
    figure = progress(view)
    (line,) = (trace for trace in figure.data if trace.mode == "lines")
    assert list(line.y) == sorted(line.y)
    assert line.y[0] == rounded([view.best_known["merit"]])[0]
    merits = [view.best_known["merit"], *view.validated["merit"]]
    assert line.y[-1] == rounded([max(merits)])[0]
    dots = [y for trace in traces(figure, "round") for y in trace.y]
    assert sorted(dots) == sorted(rounded(view.validated["merit"]))
    for trace in traces(figure, "round"):
        assert {round(x) for x in trace.x} == {int(trace.name.split()[-1])}
        assert len(set(trace.x)) == len(trace.x)


def test_progress_names_what_beat_the_rest(example: Any) -> None:
    view = example.view()
    assert view.best_validated["merit"] > view.best_known["merit"]
    texts = " ".join(a.text for a in progress(view).layout.annotations)
    assert formula_html(view.best_validated["formula"]) in texts
    assert formula_html(view.best_known["formula"]) in texts


def test_progress_without_anything_to_compare_with(example: Any) -> None:
    figure = progress(example.view(known=pd.DataFrame()))
    assert "start" not in figure.layout.xaxis.ticktext
    assert not figure.layout.shapes


def test_calibration_counts(example: Any) -> None:
    calculations = example.calculations("high-k", 1, 4, 5)
    tensor = (np.eye(3) * 10.0).tolist()
    calculations = calculations.assign(
        verdict="accepted",
        detail="",
        electronic=[tensor] * 4,
        ionic=[tensor] * 4,
        epsilon_mean=[20.0, 22.0, 16.0, 30.0],
        epsilon_std=[1.0, 1.0, 3.0, np.nan],
    )
    result = calibration(example.view(rounds=1, calculations=calculations))
    assert result.n == 4
    assert result.mae == pytest.approx((0 + 2 + 4 + 10) / 4)
    assert result.median_relative == pytest.approx(0.15)
    # Off by 0 and 4 with limits of 1.64 and 4.92; off by 2 with 1.64; the last has no σ.
    assert result.coverage == pytest.approx(2 / 3)


def test_parity_has_error_bars_that_a_logarithmic_axis_can_show(example: Any) -> None:
    calculations = example.calculations("high-k", 2, 8, 5)
    calculations["epsilon_std"] = calculations["epsilon_mean"] * 3
    view = example.view(rounds=2, calculations=calculations)
    figure = parity(view)
    found = traces(figure, "round")
    assert points(found) == expected(view.validated["epsilon"], view.validated["epsilon_mean"])
    for trace in found:
        assert np.allclose(trace.error_y.array, 3 * np.array(trace.y), rtol=1e-3)
        assert (np.array(trace.error_y.arrayminus) < np.array(trace.y)).all()
    assert figure.layout.xaxis.range == figure.layout.yaxis.range


def test_nothing_to_draw(example: Any) -> None:
    refused = example.calculations("high-k", 1, 4, 5).assign(
        verdict="timeout", electronic=None, ionic=None
    )
    view = example.view(rounds=1, calculations=refused)
    assert progress(view) is None
    assert parity(view) is None
    assert len(points(traces(landscape(view), "refused"))) == 4
    assert elements(view) is not None
    empty = example.view(
        known=pd.DataFrame(), candidates=pd.DataFrame(), calculations=pd.DataFrame(), rounds=0
    )
    assert landscape(empty) is progress(empty) is parity(empty) is elements(empty) is None


def test_elements_are_counted_once_per_material(example: Any) -> None:
    view = example.view()
    counts = element_counts(view.calculations["formula"])
    assert counts["O"] == sum("O" in f.replace("Os", "") for f in view.calculations["formula"])
    assert element_counts(["Fe2O3", "<script>", "FeO", ""]) == {"Fe": 2, "O": 2}
    hovers = {
        text
        for trace in elements(view).data
        for row, values in zip(trace.hovertext, trace.z, strict=True)
        for text, value in zip(row, values, strict=True)
        if value is not None
    }
    assert len(hovers) == 103
    validated = element_counts(view.validated["formula"])["O"]
    assert f"O: picked {counts['O']}, validated {validated}" in hovers


def test_rounds_look_different() -> None:
    looks = [(round_colour(n), round_symbol(n)) for n in range(1, 31)]
    assert len(set(looks)) == 30


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.1), (0.45, 0.55), (0.0, 0.5), (0.9, 1.3), (0.0, 2.0), (-1.0, 4.0), (1.0, 3.5)],
)
def test_logarithmic_axes_have_ticks(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 15
    assert ticks == sorted(set(ticks))
    assert all(10**low <= tick <= 10**high for tick in ticks)


def test_contour_levels_lie_among_the_data() -> None:
    levels = contour_levels([1.0, 10.0, 30.0, 90.0, 250.0, math.nan, -3.0])
    assert levels
    assert max(levels) <= 250
    assert len(levels) <= 6
    assert contour_levels([math.nan]) == []


def test_numbers_for_readers() -> None:
    assert [number(v) for v in (0.012345, 5.678, 1234.5, -2.5, 0.0)] == [
        "0.0123", "5.68", "1,234", "−2.50", "0",
    ]  # fmt: skip
    assert number(None) == number(math.nan) == fixed(math.inf) == duration(math.nan) == "–"
    assert [duration(s) for s in (0, 0.25, 42, 200, 18600, 4.32e6)] == [
        "0 s", "0.2 s", "42 s", "3 min 20 s", "5 h 10 min", "1,200 h",
    ]  # fmt: skip


def test_formulas_and_labels_for_readers() -> None:
    assert formula_html("Ba0.5Sr0.5TiO3") == ("Ba<sub>0.5</sub>Sr<sub>0.5</sub>TiO<sub>3</sub>")
    assert formula_html("Mg(OH)2") == "Mg(OH)<sub>2</sub>"
    assert formula_html("<b x27='1'>&") == "&lt;b x<sub>27</sub>=&#39;1&#39;&gt;&amp;"
    assert label_html("E_g·ε̄ (eV)") == "E<sub>g</sub>·ε̄ (eV)"
    assert label_html("λmax/λmin") == "λ<sub>max</sub>/λ<sub>min</sub>"
    assert (label_symbol("E_g·ε̄ (eV)"), label_unit("E_g·ε̄ (eV)")) == ("E_g·ε̄", "eV")
    assert (label_symbol("λmax/λmin"), label_unit("λmax/λmin")) == ("λmax/λmin", "")
