"""A campaign as pages of Markdown, with its pictures inside: what Prefect's UI shows of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from results import pictures
from results.plots import calibration
from results.schema import ACCEPTED
from results.text import MISSING, duration, fixed, label_symbol, label_unit, number
from results.view import CampaignView

BEST = 10
"""Validated materials on the first page; the report has all of them."""
TOP = 25
"""Candidates in the top list."""

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def campaign_page(view: CampaignView, report: str, link: str | None) -> str:
    """Headline, best validated materials, progress and pictures.

    Parameters
    ----------
    report
        Path of the report.
    link
        Its address, where somebody serves it.
    """
    calculations = view.calculations.drop_duplicates("key")
    paid = calculations.loc[~calculations["shared"], "cpu_s"].sum()
    budget = planned(view)
    facts = {
        "status": view.status,
        "rounds finished": f"{int((view.rounds['status'] == 'finished').sum())}"
        + (f" of {view.config['rounds']}" if "rounds" in view.config else ""),
        "calculations": f"{len(calculations)}" + (f" of {budget}" if budget else ""),
        "validated": len(view.validated),
        "refused": len(view.refused),
        "waiting": len(view.waiting),
        "CPU time, DFPT": duration(float(paid)),
    }
    place = f"[Open the report]({link})" if link else f"Report: `{report}`"
    return _page(
        f"# Campaign {cell(view.name)}",
        headline(view),
        _table(list(facts), [list(facts.values())]),
        place,
        f"## Best validated materials{_of(view.validated, BEST)}",
        _best_table(view),
        _picture("Known, predicted and validated", pictures.landscape(view)),
        _picture("Figure of merit, round by round", pictures.progress(view)),
    )


def headline(view: CampaignView) -> str:
    """The best material found, and how it compares with what was known."""
    best, known = view.best_validated, view.best_known
    if best is None:
        return "No material has been validated yet."
    name = f"**Best: {cell(formula(best))}** ({cell(best['material_id'])})"
    values = f"ε̄ {number(best['epsilon'])}, E_g {fixed(best['band_gap'])} eV"
    text = f"{name}: {_merit(view, best['merit'])}, {values}."
    if known is None:
        return text
    ratio = float(best["merit"]) / float(known["merit"])
    mark = f"{formula(known)}, {number(known['merit'])}"
    return f"{text} That is {ratio:.2f} times the best known at the start ({mark})."


def round_page(view: CampaignView, round_number: int) -> str:
    """What a round picked, what was expected of it and what came of it."""
    rows = view.calculations[view.calculations["round"] == round_number]
    symbol = label_symbol(view.task.label)
    heads = [
        "rank", "material", "id", "E_g (eV)", "ε̄ predicted", f"{symbol} predicted", "acquisition",
        "ε̄ DFPT", f"{symbol} DFPT", "verdict",
    ]  # fmt: skip
    body = [
        [
            int(row["rank"]), formula(row), row["material_id"], fixed(row["band_gap"]),
            _error(row["epsilon_mean"], row["epsilon_std"]),
            _error(row["merit_mean"], row["merit_std"]), number(row["acquisition"]),
            number(row["epsilon"]), number(row["merit"]), _verdict(row),
        ]
        for row in rows.to_dict("records")
    ]  # fmt: skip
    details = [
        cell(f"- **{formula(row)}** ({row['material_id']}), {row['verdict']}: {row['detail']}")
        for row in rows.to_dict("records")
        if row["verdict"] not in ("", ACCEPTED)
    ]
    seconds = view.seconds.get(round_number, {})
    times = [[step, duration(t["wall_s"]), duration(t["cpu_s"])] for step, t in seconds.items()]
    return _page(
        f"# Campaign {cell(view.name)}, round {round_number}",
        _units(view),
        _table(heads, body) if body else "Nothing has been picked yet.",
        "## Refused" if details else "",
        "\n".join(details),
        "## Time" if times else "",
        _table(["step", "wall", "CPU"], times) if times else "",
    )


def candidates_page(view: CampaignView) -> str:
    """The most promising candidates with error bars, as the last model sees them."""
    rows = view.candidates.sort_values("rank").head(TOP)
    symbol = label_symbol(view.task.label)
    body = [
        [
            int(row["rank"]), formula(row), row["material_id"], fixed(row["band_gap"]),
            _error(row["epsilon_mean"], row["epsilon_std"]),
            _error(row["merit_mean"], row["merit_std"]), number(row["acquisition"]),
        ]
        for row in rows.to_dict("records")
    ]  # fmt: skip
    heads = ["rank", "material", "id", "E_g (eV)", "ε̄ ± σ", f"{symbol} ± σ", "acquisition"]
    return _page(
        f"# Campaign {cell(view.name)}: candidates",
        f"The {len(rows)} best of {len(view.candidates):,} as round {view.candidates_round} "
        f"predicts them. {_units(view)}"
        if body
        else "Nothing has been predicted yet.",
        _table(heads, body) if body else "",
    )


def calculations_page(view: CampaignView) -> str:
    """Every calculation with its verdict and what it cost, the latest round first."""
    rows = view.calculations.drop_duplicates("key").sort_values(
        ["round", "rank"], ascending=[False, True]
    )
    verdicts = rows["verdict"].where(rows["verdict"] != "", rows["status"]).value_counts()
    paid = rows[~rows["shared"]]
    body = [
        [
            row["round"], formula(row), row["material_id"], _verdict(row), duration(row["cpu_s"]),
            duration(row["wall_s"]), "shared" if row["shared"] else "", f"`{row['key'][:8]}`",
            row["detail"],
        ]
        for row in rows.to_dict("records")
    ]  # fmt: skip
    heads = ["round", "material", "id", "verdict", "CPU", "wall", "", "key", "detail"]
    return _page(
        f"# Campaign {cell(view.name)}: calculations",
        _table([str(v) for v in verdicts.index], [list(verdicts)]) if len(rows) else "None yet.",
        f"This campaign paid for {len(paid)} of {len(rows)}: "
        f"{duration(float(paid['cpu_s'].sum()))} of CPU time, "
        f"{duration(float(paid['wall_s'].sum()))} of wall time.",
        _table(heads, body) if body else "",
    )


def model_page(view: CampaignView) -> str:
    """How good the model is: on unseen test crystals, and on what was calculated after it spoke."""
    parts = []
    for part in ("static", "electronic"):
        metrics = {n: m[part] for n, m in view.metrics.items() if isinstance(m.get(part), Mapping)}
        names = list(dict.fromkeys(name for values in metrics.values() for name in values))
        body = [
            [n, *(number(values.get(name)) for name in names)]
            for n, values in sorted(metrics.items())
        ]
        if body:
            parts += [f"### {part.capitalize()} tensor", _table(["round", *names], body)]
    result = calibration(view)
    words = "No calculation has been validated yet."
    if result.n:
        words = (
            f"{result.n} validated: mean absolute error of ε̄ {number(result.mae)}, median relative "
            f"error {result.median_relative:.0%}."
        )
        if result.coverage == result.coverage:
            words += f" ± 1.64 σ covers {result.coverage:.0%}; 90 % if σ were calibrated."
    return _page(
        f"# Campaign {cell(view.name)}: model",
        "## On test crystals that the networks have not seen" if parts else "Not trained yet.",
        *parts,
        "## On what was calculated afterwards",
        words,
        _picture("Predicted against calculated", pictures.parity(view)),
        _picture("Calibration of σ", pictures.calibration(view)),
    )


def planned(view: CampaignView) -> int | None:
    """Calculations that a campaign may spend in all."""
    rounds, batch = view.config.get("rounds"), view.config.get("batch")
    return rounds * batch if isinstance(rounds, int) and isinstance(batch, int) else None


def formula(row: Mapping[Any, Any] | pd.Series) -> str:
    """A formula with lowered numbers: SrTiO₃."""
    return str(row["formula"]).translate(_SUBSCRIPTS)


def cell(value: Any) -> str:
    """Text that cannot end a cell, a table or a page."""
    text = " ".join(str(value).split())
    for old, new in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;")):
        text = text.replace(old, new)
    return text


def _best_table(view: CampaignView) -> str:
    rows = view.validated.head(BEST).to_dict("records")
    if not rows:
        return "None yet."
    heads = ["material", "id", view.task.label, "E_g (eV)", "ε̄", "λ1", "λ2", "λ3", "n"]
    heads += ["ε̄ predicted", "round"]
    body = [
        [
            formula(row), row["material_id"], f"**{number(row['merit'])}**",
            fixed(row["band_gap"]), number(row["epsilon"]),
            *(fixed(row[f"lambda_{i}"]) for i in (1, 2, 3)), fixed(row["refractive_index"]),
            _error(row["epsilon_mean"], row["epsilon_std"]), row["round"],
        ]
        for row in rows
    ]  # fmt: skip
    return _table(heads, body)


def _verdict(row: Mapping[Any, Any]) -> str:
    verdict = row["verdict"]
    if not verdict:
        return f"… {row['status']}"
    return f"✓ {verdict}" if verdict == ACCEPTED else f"✗ {verdict}"


def _error(mean: float, spread: float) -> str:
    return MISSING if mean != mean else f"{number(mean)} ± {number(spread, 2)}"


def _merit(view: CampaignView, value: float) -> str:
    unit = label_unit(view.task.label)
    return f"{label_symbol(view.task.label)} = {number(float(value))} {unit}".strip()


def _units(view: CampaignView) -> str:
    unit = label_unit(view.task.label)
    return f"{label_symbol(view.task.label)} in {unit}; ± is σ of the ensemble." if unit else ""


def _of(table: pd.DataFrame, most: int) -> str:
    return f" ({most} of {len(table)})" if len(table) > most else ""


def _picture(title: str, picture: bytes | None) -> str:
    return "" if picture is None else f"## {title}\n\n![{title}]({pictures.data_uri(picture)})"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(map(cell, heads))} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join(lines)


def _page(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
