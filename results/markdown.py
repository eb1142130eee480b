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
ROUNDS_ABREAST = 3
"""Rounds, the latest, whose model is shown."""
LONGEST_ID = 16
"""Characters of a material's identifier that have room in a table; the report has all of it."""

METRICS = {
    "mae_9": "MAE, all 9 elements",
    "mae_6": "MAE, 6 unique elements",
    "mae_9_below_100": "MAE, where all are below 100",
    "scalar": "MAE of ε̄",
    "eigenvalues": "MAE of eigenvalues",
    "log_scalar": "error of ln ε̄",
    "median_relative": "median relative error of ε̄",
    "within_25": "share within 25 %",
    "log_anisotropy": "error of ln(λmax/λmin)",
}
"""What the model reports of itself, and what it is called."""

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
        _table(["campaign", view.name], facts.items()),
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
    rows = view.calculations[view.calculations["round"] == round_number].to_dict("records")
    symbol = label_symbol(view.task.label)
    body = [
        [
            _material(row, f"{row['rank']:.0f}. "),
            _Lines(_error(row["epsilon_mean"], row["epsilon_std"]), _bold(row["epsilon"])),
            _Lines(_error(row["merit_mean"], row["merit_std"]), _bold(row["merit"])),
            number(row["acquisition"]), _verdict(row).partition(" ")[0],
        ]
        for row in rows
    ]  # fmt: skip
    seconds = view.seconds.get(round_number, {})
    times = [[step, duration(t["wall_s"]), duration(t["cpu_s"])] for step, t in seconds.items()]
    words = f"Predicted ± σ and below, in bold, calculated; {_units(view)}"
    return _page(
        f"# Campaign {cell(view.name)}, round {round_number}",
        words if body else "Nothing has been picked yet.",
        _table(["material", "ε̄", symbol, "acq.", ""], body) if body else "",
        *_what_the_gate_said(rows),
        "## Time" if times else "",
        _table(["step", "wall", "CPU"], times) if times else "",
    )


def candidates_page(view: CampaignView) -> str:
    """The most promising candidates with error bars, as the last model sees them."""
    rows = view.candidates.sort_values("rank").head(TOP)
    body = [
        [
            _material(row, f"{row['rank']:.0f}. "), _error(row["epsilon_mean"], row["epsilon_std"]),
            _error(row["merit_mean"], row["merit_std"]), number(row["acquisition"]),
        ]
        for row in rows.to_dict("records")
    ]  # fmt: skip
    heads = ["material", "ε̄ ± σ", f"{label_symbol(view.task.label)} ± σ", "acq."]
    return _page(
        f"# Campaign {cell(view.name)}: candidates",
        f"The {len(rows)} best of {len(view.candidates):,} as round {view.candidates_round} "
        f"predicts them; {_units(view)}"
        if body
        else "Nothing has been predicted yet.",
        _table(heads, body) if body else "",
    )


def calculations_page(view: CampaignView) -> str:
    """Every calculation with its verdict and what it cost, the latest round first."""
    rows = view.calculations.drop_duplicates("key")
    verdicts = rows["verdict"].where(rows["verdict"] != "", rows["status"]).value_counts()
    paid = rows[~rows["shared"]]
    parts = []
    for round_number in sorted(set(rows["round"]), reverse=True):
        own = rows[rows["round"] == round_number].sort_values("rank").to_dict("records")
        body = [
            [
                _material(row), _verdict(row),
                "shared" if row["shared"] else _Lines(_cost(row["cpu_s"]), _cost(row["wall_s"])),
                f"`{row['key'][:8]}`",
            ]
            for row in own
        ]  # fmt: skip
        heads = ["material", "verdict", _Lines("CPU", "wall"), "key"]
        parts += [f"## Round {round_number}", _table(heads, body), *_what_the_gate_said(own)]
    return _page(
        f"# Campaign {cell(view.name)}: calculations",
        _table(["verdict", "calculations"], zip(verdicts.index, verdicts, strict=True))
        if len(rows)
        else "None yet.",
        f"This campaign paid for {len(paid)} of {len(rows)}: "
        f"{duration(float(paid['cpu_s'].sum()))} of CPU time, "
        f"{duration(float(paid['wall_s'].sum()))} of wall time.",
        *parts,
    )


def model_page(view: CampaignView) -> str:
    """How good the model is: on unseen test crystals, and on what was calculated after it spoke."""
    parts = []
    for part in ("static", "electronic"):
        known = {n: m[part] for n, m in view.metrics.items() if isinstance(m.get(part), Mapping)}
        rounds = sorted(known)[-ROUNDS_ABREAST:]
        body = [
            [text, *(number(known[n].get(name)) for n in rounds)]
            for name, text in METRICS.items()
            if any(name in known[n] for n in rounds)
        ]
        if body:
            heads = [part, *(f"round {n}" for n in rounds)]
            parts.append(_table(heads, body))
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
    if isinstance(value, _Lines):
        return "<br>".join(map(cell, value))
    text = " ".join(str(value).split())
    for old, new in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;")):
        text = text.replace(old, new)
    return text


class _Lines(tuple[str, ...]):
    """Lines of one cell. The UI gives a page 390 pixels on a telephone and 690 on a desk, and a
    table that is wider lies upon what stands beside it."""

    def __new__(cls, *lines: str) -> _Lines:
        return super().__new__(cls, [line for line in lines if line])


def _material(row: Mapping[Any, Any], rank: str = "") -> _Lines:
    """Formula, identifier and band gap."""
    identifier, gap = str(row["material_id"]), row["band_gap"]
    if len(identifier) > LONGEST_ID:
        identifier = f"{identifier[: LONGEST_ID - 1]}…"
    shown = "" if identifier == row["formula"] else identifier
    return _Lines(f"{rank}{formula(row)}", shown, "" if gap != gap else f"{fixed(gap)} eV")


def _best_table(view: CampaignView) -> str:
    rows = view.validated.head(BEST).to_dict("records")
    if not rows:
        return "None yet."
    heads = ["material", view.task.label, _Lines("ε̄", "predicted"), "λ1, λ2, λ3", "round"]
    body = [
        [
            _material(row), _bold(row["merit"]),
            _Lines(_bold(row["epsilon"]), _error(row["epsilon_mean"], row["epsilon_std"])),
            _Lines(*(fixed(row[f"lambda_{i}"]) for i in (1, 2, 3))), row["round"],
        ]
        for row in rows
    ]  # fmt: skip
    return _table(heads, body)


def _what_the_gate_said(rows: Sequence[Mapping[Any, Any]]) -> list[str]:
    """The gate's sentences, those on refused calculations first and open to the eye."""
    said = [
        (row["verdict"], cell(f"- **{formula(row)}** ({row['material_id']}), {row['verdict']}: ")
         + cell(row["detail"]))
        for row in rows
        if row["verdict"] and row["detail"]
    ]  # fmt: skip
    refused = [text for verdict, text in said if verdict != ACCEPTED]
    accepted = [text for verdict, text in said if verdict == ACCEPTED]
    parts = ["### Refused", "\n".join(refused)] if refused else []
    if accepted:
        parts += ["<details><summary>What the gate says of the accepted ones</summary>"]
        parts += ["\n".join(accepted), "</details>"]
    return parts


def _verdict(row: Mapping[Any, Any]) -> str:
    verdict = row["verdict"]
    if not verdict:
        return f"… {row['status']}"
    return f"✓ {verdict}" if verdict == ACCEPTED else f"✗ {verdict}"


def _cost(seconds: float) -> str:
    """A length of time that is not broken at its spaces."""
    return duration(seconds).replace(" ", "\N{NO-BREAK SPACE}")


def _bold(value: float) -> str:
    return MISSING if value != value else f"**{number(value)}**"


def _error(mean: float, spread: float) -> str:
    return MISSING if mean != mean else f"{number(mean)} ± {number(spread, 2)}"


def _merit(view: CampaignView, value: float) -> str:
    unit = label_unit(view.task.label)
    return f"{label_symbol(view.task.label)} = {number(float(value))} {unit}".strip()


def _units(view: CampaignView) -> str:
    unit = label_unit(view.task.label)
    words = "± is σ of the ensemble."
    return f"{label_symbol(view.task.label)} in {unit}; {words}" if unit else words


def _of(table: pd.DataFrame, most: int) -> str:
    return f" ({most} of {len(table)})" if len(table) > most else ""


def _picture(title: str, picture: bytes | None) -> str:
    return "" if picture is None else f"## {title}\n\n![{title}]({pictures.data_uri(picture)})"


def _table(heads: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(map(cell, heads))} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join(lines)


def _page(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
