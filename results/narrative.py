"""What the report says in words: the headline, captions of the figures, the rounds at a glance."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from results.periodic import elements
from results.plots import calibration, landscape, parity, progress
from results.text import MISSING, fixed, formula_html, label_html, label_symbol, label_unit, number
from results.view import CampaignView

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SECRET = re.compile(r"(api_?key|password|passwd|token|secret)$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\w+://[^/\s:@]+):[^/\s@]+@")


@dataclass(frozen=True)
class Headline:
    """Counts, and sentences as HTML.

    Attributes
    ----------
    cpu_s
        CPU time of the calculations that this campaign paid for, in s.
    """

    calculations: int
    validated: int
    refused: int
    waiting: int
    cpu_s: float
    best: Markup
    comparison: Markup


@dataclass(frozen=True)
class Figure:
    """A plot with its words; ``plot`` is None where there is nothing to draw yet.

    ``columns`` names the horizontal and the vertical coordinate in the data to download.
    """

    name: str
    title: Markup
    caption: Markup
    plot: go.Figure | None
    empty: str
    columns: tuple[str, ...] = ()


def headline(view: CampaignView) -> Headline:
    """What was found, and by how much it beats what was known."""
    calculations = view.calculations.drop_duplicates("key")
    return Headline(
        calculations=len(calculations),
        validated=len(view.validated),
        refused=len(view.refused),
        waiting=len(view.waiting),
        cpu_s=float(calculations.loc[~calculations["shared"], "cpu_s"].sum()),
        best=_best_sentence(view),
        comparison=_comparison_sentence(view),
    )


def figures(view: CampaignView) -> list[Figure]:
    """The figures of the report, in order."""
    symbol = label_html(label_symbol(view.task.label))
    by_gap = view.task.name == "high-k"
    against = (
        Markup("band gap and permittivity") if by_gap else Markup("permittivity and ") + symbol
    )
    return [
        Figure(
            "landscape",
            Markup("What was known, predicted and validated: ") + against,
            _landscape_caption(view, symbol),
            landscape(view),
            "Nothing is known or predicted yet.",
            ("band_gap_eV", "epsilon") if by_gap else ("epsilon", "figure_of_merit"),
        ),
        Figure(
            "progress",
            Markup("Figure of merit, round by round"),
            Markup(
                "Each marker is a validated calculation, in the order of its rank; the solid line "
                "is the best so far."
            ),
            progress(view),
            "No calculation has been validated yet.",
            ("round", "figure_of_merit"),
        ),
        Figure(
            "parity",
            Markup("Predicted against validated permittivity"),
            _parity_caption(view),
            parity(view),
            "No calculation has been validated yet.",
            ("epsilon_dfpt", "epsilon_predicted"),
        ),
        Figure(
            "elements",
            Markup("Elements of the picks"),
            Markup("Number of calculations whose material contains the element."),
            elements(view),
            "No material has been picked yet.",
        ),
    ]


def round_overview(view: CampaignView) -> pd.DataFrame:
    """One row per round: what it learned from, what it picked, what came of it, model metrics.

    Columns are what a reader sees; metrics of the model that are single numbers follow at the end,
    nested ones under dotted names.
    """
    best = math.nan if view.best_known is None else float(view.best_known["merit"])
    rows = []
    for round_number in view.round_numbers:
        merits = view.validated.loc[view.validated["round"] == round_number, "merit"]
        best = float(pd.Series([best, *merits]).max())
        record = view.rounds[view.rounds["number"] == round_number]
        tables = (view.calculations, view.validated, view.refused)
        counts = [str((table["round"] == round_number).sum()) for table in tables]
        rows.append(
            {
                "round": str(round_number),
                "status": str(record["status"].iloc[0]) if len(record) else MISSING,
                "training": _count(record["n_training"]),
                **dict(zip(("picked", "validated", "refused"), counts, strict=True)),
                "best": number(float(merits.max()) if len(merits) else None),
                "best so far": number(best),
                **_scalars(view.metrics.get(round_number, {})),
            }
        )
    return pd.DataFrame(rows).fillna(MISSING)


def shareable(value: Any) -> Any:
    """A setting as plain data, without keys and passwords: reports are passed on."""
    if isinstance(value, Mapping):
        return {
            str(name): "•••" if _SECRET.search(str(name)) and item else shareable(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [shareable(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _URL_PASSWORD.sub(r"\1:•••@", str(value))


def _best_sentence(view: CampaignView) -> Markup:
    best = view.best_validated
    if best is None:
        if len(view.validated):
            return Markup("The validated materials have no figure of merit: no band gap is known.")
        return Markup("No material has been validated yet.")
    name = Markup("Best: <strong>{}</strong> ({})").format(
        formula_html(best["formula"]), best["material_id"]
    )
    gap = Markup("E<sub>g</sub> {} eV, ").format(fixed(best["band_gap"]))
    if math.isnan(float(best["band_gap"])):
        gap = Markup()
    values = Markup("ε̄ {}, <strong>{}</strong>").format(
        number(best["epsilon"]), _merit(view, float(best["merit"]))
    )
    return name + Markup(": ") + gap + values + Markup(".")


def _comparison_sentence(view: CampaignView) -> Markup:
    known, best = view.best_known, view.best_validated
    if known is None:
        return Markup(
            "Nothing was known at the start with a figure of merit (both parts of the tensor, and "
            "the band gap where the task needs it), so there is no mark to beat."
        )
    mark = Markup("{} ({})").format(
        formula_html(known["formula"]), _merit(view, float(known["merit"]))
    )
    if best is None:
        return Markup("The mark to beat, best known at the start: {}.").format(mark)
    ratio = float(best["merit"]) / float(known["merit"])
    beaten = int((view.validated["merit"] > known["merit"]).sum())
    if beaten == 0:
        return Markup("It reaches {} of the best known at the start, {}.").format(
            f"{ratio:.0%}", mark
        )
    verb = "material beats" if beaten == 1 else "materials beat"
    return Markup("That is {} times the best known at the start, {}; {} validated {} it.").format(
        f"{ratio:.2f}", mark, beaten, verb
    )


def _merit(view: CampaignView, value: float) -> Markup:
    symbol, unit = label_symbol(view.task.label), label_unit(view.task.label)
    return (
        Markup("{}\u00a0=\u00a0{}\u00a0{}").format(label_html(symbol), number(value), unit).strip()
    )


def _landscape_caption(view: CampaignView, symbol: Markup) -> Markup:
    by_gap = view.task.name == "high-k"
    missing = int(view.known["merit" if by_gap else "epsilon"].isna().sum())
    parts = []
    if len(view.known) > missing:
        parts.append(Markup("{:,} known at the start").format(len(view.known) - missing))
    if len(view.candidates):
        parts.append(
            Markup("{:,} candidates as round {} predicts them").format(
                len(view.candidates), view.candidates_round
            )
        )
    if len(view.validated):
        parts.append(Markup("{:,} validated").format(len(view.validated)))
    text = Markup(", ").join(parts) + Markup(". Dashed: equal {}.").format(symbol)
    if len(view.refused) or len(view.waiting):
        text += Markup(" Refused and waiting calculations stand where they were predicted.")
    if missing:
        text += Markup(" Not shown: {} known without both parts of the tensor{}.").format(
            _materials(missing), " and a band gap" if by_gap else ""
        )
    return text


def _parity_caption(view: CampaignView) -> Markup:
    result = calibration(view)
    if result.n == 0:
        return Markup()
    text = Markup(
        "{}; bars are ± 1 σ of the ensemble. Mean absolute error {}, median relative error {}."
    ).format(_materials(result.n), number(result.mae), f"{result.median_relative:.0%}")
    if not math.isnan(result.coverage):
        text += Markup(" ± 1.64 σ covers {} (90% if calibrated).").format(f"{result.coverage:.0%}")
    return text


def _materials(count: int) -> str:
    return "1 material" if count == 1 else f"{count:,} materials"


def _count(values: pd.Series) -> str:
    known = values.dropna()
    return f"{int(known.iloc[0]):,}" if len(known) else MISSING


def _scalars(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    result: dict[str, str] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            result |= _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            result[f"{prefix}{name}"] = f"{value:,}"
        elif isinstance(value, float):
            result[f"{prefix}{name}"] = number(value)
    return result
