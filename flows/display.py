"""Campaigns as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.text import label_symbol, label_unit
from results.view import CampaignView

OPEN = ("", "planned", "submitted")


def show_campaign(console: Console, view: CampaignView) -> None:
    """Every round with its picks, then the validated materials, best first."""
    for number in view.round_numbers:
        show_round(console, view, number)
    show_validated(console, view)


def show_round(console: Console, view: CampaignView, number: int) -> None:
    """What a round picked, what was expected of it and what came of it."""
    merit = label_symbol(view.task.label)
    table = _table(f"Round {number}: predicted, then calculated; {_legend(view)}")
    table.add_column("material", min_width=8, overflow="fold")
    for heading in ("E_g", "ε̄ ± σ", f"{merit} ± σ", "acq.", "ε̄ DFPT", merit):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=8, overflow="fold")
    rows = view.calculations[view.calculations["round"] == number].to_dict("records")
    for row in rows:
        verdict = row["verdict"] or row["status"]
        table.add_row(
            _name(row),
            _number(row["band_gap"]),
            _with_error(row["epsilon_mean"], row["epsilon_std"]),
            _with_error(row["merit_mean"], row["merit_std"]),
            _number(row["acquisition"]),
            _number(row["epsilon"]),
            _number(row["merit"]),
            Text(verdict, style="green" if verdict == "accepted" else "yellow"),
        )
    if rows:
        console.print(table)
    for row in rows:
        if row["verdict"] not in ("accepted", *OPEN):
            console.print(f"  {_name(row)}: {row['detail']}", style="dim")


def show_validated(console: Console, view: CampaignView) -> None:
    """Validated materials, the best figure of merit first, with the best known for comparison."""
    merit = label_symbol(view.task.label)
    table = _table(f"Validated materials of '{view.name}' ({view.status}); {_legend(view)}")
    table.add_column("material", min_width=8, overflow="fold")
    for heading in ("round", merit, "E_g", "ε̄", "λ1 λ2 λ3", "n", "predicted ε̄"):
        table.add_column(heading, justify="right", no_wrap=True)
    validated = view.validated.to_dict("records")
    for row in validated:
        eigenvalues = [_number(row[f"lambda_{i}"]) for i in (1, 2, 3)]
        table.add_row(
            _name(row),
            str(row["round"]),
            Text(_number(row["merit"]), style="bold"),
            _number(row["band_gap"]),
            _number(row["epsilon"]),
            " ".join(eigenvalues if len(set(eigenvalues)) > 1 else eigenvalues[:1]),
            _number(row["refractive_index"]),
            _with_error(row["epsilon_mean"], row["epsilon_std"]),
        )
    console.print(table if validated else f"{table.title}: none yet.")
    best = view.best_known
    if best is not None:
        text = f"Best known at the start: {best['formula']}, {view.task.label} = "
        console.print(text + _number(best["merit"]), style="dim")


def show_campaigns(console: Console, summaries: Sequence[Mapping[str, Any]]) -> None:
    """One line per campaign, from their summaries."""
    table = _table("Campaigns")
    for heading in ("campaign", "task", "status", "rounds", "calculations", "validated"):
        table.add_column(heading)
    for s in summaries:
        finished = sum(r["status"] == "finished" for r in s["rounds"])
        numbers = (finished, s["calculations"], len(s["validated"]))
        table.add_row(s["campaign"], s["task"], s["status"], *map(str, numbers))
    console.print(table)


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _legend(view: CampaignView) -> str:
    unit = label_unit(view.task.label)
    return f"E_g in eV, {label_symbol(view.task.label)} in {unit}" if unit else "E_g in eV"


def _name(row: Mapping[Any, Any]) -> str:
    formula, material_id = str(row["formula"]), str(row["material_id"])
    says_it = material_id == formula or material_id.startswith(f"{formula}-")
    return material_id if says_it else f"{formula} {material_id}"


def _with_error(mean: float, spread: float) -> str:
    return f"{_number(mean)} ± {spread:.2g}" if mean == mean else "–"


def _number(value: float) -> str:
    if value != value:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
