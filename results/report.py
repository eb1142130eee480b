"""The report of a campaign: one HTML file that opens anywhere, without a network.

plotly.js travels inside the file, and a content security policy in its head forbids the browser to
load anything from elsewhere. All text that comes from outside is escaped.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.crystals import drawing, legend
from results.methods import bibtex, methods, provenance
from results.narrative import Figure, figures, headline, round_overview, shareable
from results.schema import ACCEPTED
from results.style import theme
from results.tables import round_table, validated_table
from results.text import duration, fixed, formula_html, label_html, label_symbol, number
from results.view import CampaignView
from screening.io import atomic_write

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(view: CampaignView, path: Path) -> Path:
    """Write the report to ``path``, whole or not at all; return ``path``.

    Raises
    ------
    UserError
        The file cannot be written or the disk is full.
    """
    atomic_write(path, render_report(view))
    return path


def render_report(view: CampaignView) -> str:
    """The report as the text of an HTML file; works for a campaign at any stage."""
    import yaml
    from plotly.offline import get_plotlyjs

    label = label_html(view.task.label)
    drawn = figures(view)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            view=view,
            label=label,
            headline=headline(view),
            figures=drawn,
            rounds=[_round(view, round_number) for round_number in view.round_numbers],
            validated=_records(validated_table(view), view.task.label),
            crystals=_crystals(view),
            methods=methods(view),
            bibtex=bibtex(view),
            provenance=list(provenance(view)),
            origin=_origin(view),
            overview=round_overview(view),
            steps=_steps(view),
            config=yaml.safe_dump(
                shareable(view.config), sort_keys=False, allow_unicode=True, width=88
            ),
            versions=sorted(_flat(view.versions).items()),
            data=_json({"figures": _plotly(drawn), "themes": _themes()}),
            plotly=get_plotlyjs(),
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        fixed=fixed,
        duration=duration,
        formula=formula_html,
        moment=_moment,
    )
    return environment


def _round(view: CampaignView, round_number: int) -> dict[str, Any]:
    records = _records(round_table(view, round_number), view.task.label)
    verdicts = view.calculations.loc[view.calculations["round"] == round_number, "verdict"]
    for record, verdict in zip(records, verdicts, strict=True):
        record["kind"] = "good" if verdict == ACCEPTED else "bad" if verdict else "open"
    status = view.rounds.loc[view.rounds["number"] == round_number, "status"]
    return {
        "number": round_number,
        "status": str(status.iloc[0]) if len(status) else "",
        "rows": records,
        "open": len(view.round_numbers) <= 3 or round_number == view.round_numbers[-1],
    }


def _records(table: pd.DataFrame, label: str) -> list[dict[str, Any]]:
    """Rows under names that a template can write: the task's label becomes ``merit``."""
    symbol = label_symbol(label)
    names = {
        "E_g (eV)": "band_gap",
        "ε̄": "epsilon",
        "ε̄ DFPT": "epsilon",
        "ε̄ predicted": "epsilon_mean",
        "σ(ε̄)": "epsilon_std",
        label: "merit",
        f"{label} DFPT": "merit",
        f"{label} predicted": "merit_mean",
        f"σ({symbol})": "merit_std",
    }
    records = table.rename(columns=names).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def _crystals(view: CampaignView) -> list[dict[str, Any]]:
    """Drawings of the best validated materials."""
    found = []
    for row in view.validated.to_dict("records"):
        structure = view.structures.get(row["structure_hash"])
        picture = None if structure is None else drawing(structure)
        if structure is not None and picture is not None:
            values = {str(name): value for name, value in row.items()}
            found.append({**values, "picture": picture, "legend": legend(structure)})
    return found


def _origin(view: CampaignView) -> str:
    """Where the materials came from, as the pull recorded it; empty where nobody did."""
    import yaml

    if not view.origin:
        return ""
    text: str = yaml.safe_dump(
        shareable(view.origin), sort_keys=False, allow_unicode=True, width=88
    )
    return text


def _steps(view: CampaignView) -> list[dict[str, Any]]:
    """Times of each step in each round, steps in the order in which they first appear."""
    names = dict.fromkeys(step for seconds in view.seconds.values() for step in seconds)
    return [
        {
            "name": name,
            "times": [view.seconds.get(n, {}).get(name, {}) for n in view.round_numbers],
        }
        for name in names
    ]


def _plotly(drawn: list[Figure]) -> dict[str, Any]:
    """Data and layout of each figure; the page adds the theme."""
    result = {}
    for figure in drawn:
        if figure.plot is not None:
            plot = figure.plot.to_plotly_json()
            plot["layout"].pop("template", None)
            result[figure.name] = {"data": plot["data"], "layout": plot["layout"]}
            if figure.columns:
                result[figure.name]["columns"] = list(figure.columns)
    return result


def _themes() -> dict[str, Any]:
    return {name: theme(name) for name in ("light", "dark")}


def _json(value: Any) -> str:
    """JSON that may stand inside a script element, whatever its strings contain.

    Only "</" can end such an element, and only "<!" can start the state in which it would not end
    where it should; escaping every "<" would add half a megabyte of subscripts.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_listed)
    return text.replace("</", "<\\/").replace("<!", "\\u003c!")


def _listed(value: Any) -> Any:
    """Arrays and tuples that plotly made of lists, as lists again."""
    return value.tolist() if hasattr(value, "tolist") else list(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _moment(value: datetime | None) -> str:
    if not isinstance(value, datetime):
        return "–"
    zone = value.tzname()
    return value.strftime("%Y-%m-%d %H:%M") + (f" {zone}" if zone else "")
