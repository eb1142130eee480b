"""``screen jobs`` and ``screen cancel``: calculations under way, wherever they run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.options import CAMPAIGNS, AsJson, Directory, LedgerUrl, print_json
from screening.errors import UserError

if TYPE_CHECKING:
    from flows.watching import Watch
    from results.ledger import Ledger


def register_job_commands(app: typer.Typer) -> None:
    """Add the commands to ``screen``."""
    app.command()(jobs)
    app.command()(cancel)


def jobs(
    name: Annotated[str | None, typer.Argument(help="One campaign; all open ones without.")] = None,
    directory: Directory = CAMPAIGNS,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show what runs where, since when, what it has cost, and when the round may end."""
    from flows.watching import Watch

    book = _ledger(directory, ledger)
    names = [r.name for r in book.campaigns() if r.status == "running"] if name is None else [name]
    found = [Watch(book, each).summary() for each in names]
    if as_json:
        print_json(found if name is None else found[0])
        return
    if not found:
        typer.echo("No campaign is open.")
    for summary in found:
        typer.echo("\n".join(lines(summary)))


def cancel(
    name: Annotated[str, typer.Argument(help="Campaign whose calculations to cancel.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(help="Their keys, or how they begin. Default: all that are open."),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Have cancelled ones calculated after all.")
    ] = False,
    refuse: Annotated[
        bool, typer.Option("--refuse", help="Enter them as refused, so that the round goes on.")
    ] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Let another machine that waits for them have them.")
    ] = False,
    directory: Directory = CAMPAIGNS,
    ledger: LedgerUrl = None,
) -> None:
    """Stop calculations; they are not started again by themselves."""
    from dft.calculation import Calculation
    from flows.calculations import refuse as refuse_calculation
    from flows.watching import Watch

    if undo + refuse + release > 1:
        raise UserError("--undo, --refuse and --release exclude each other; give one of them.")
    watch = Watch(_ledger(directory, ledger), name)
    chosen = _chosen(watch, keys or [])
    for root, wanted in chosen.items():
        if not root.is_dir():
            if not release:
                raise UserError(
                    f"The calculations below {root} are on another machine; cancel them there, or "
                    "have them calculated here with --release if that machine is gone for good."
                )
        elif undo:
            for key in wanted:
                Calculation(root / key).allow()
        else:
            watch.launcher(root).cancel(wanted)
            for key in wanted if refuse else ():
                refuse_calculation(Calculation(root / key), "cancelled by hand")
        for key in wanted if release else ():
            watch.ledger.release(key)
    count = sum(map(len, chosen.values()))
    done = (
        "allowed again" if undo else "refused" if refuse else "released" if release else "stopped"
    )
    typer.echo(f"{count} calculations of '{name}' {done}; go on with: screen resume {name}")


def lines(summary: dict[str, Any]) -> list[str]:
    """What ``screen jobs`` prints of one campaign."""
    found = []
    for job in summary["open"]:
        where = "; ".join(part for part in (job["where"], job["note"]) if part)
        cost = f"{job['core_hours']:.2f} core h" if job["core_hours"] else ""
        again = f"attempt {job['attempt']}" if job["attempt"] > 1 else ""
        material = f"{job['formula']} {job['key'][:8]}"
        found.append(
            f"{material:24} {job['state']:9} {_ago(job['since']):>9} {cost:>14} {again:9} {where}"
        )
    left = summary["seconds_left"]
    when = "not known yet" if left is None else f"about {_duration(left)}"
    found.append(
        f"{summary['campaign']}: {len(summary['open'])} open, {summary['finished']} finished, "
        f"{summary['core_hours']:.2f} core hours so far; to the end of the round: {when}"
    )
    return found


def _chosen(watch: Watch, prefixes: list[str]) -> dict[Path, list[str]]:
    """Open calculations whose keys begin so, by root."""
    everything = {r.key for records in watch.roots.values() for r in records}
    for prefix in prefixes:
        matching = sum(key.startswith(prefix) for key in everything)
        if matching != 1:
            how = "no open calculation" if matching == 0 else f"{matching} open calculations"
            raise UserError(
                f"{how} of '{watch.name}' begin with {prefix}; see: screen jobs {watch.name}."
            )
    return {
        root: [r.key for r in records if not prefixes or any(r.key.startswith(p) for p in prefixes)]
        for root, records in watch.roots.items()
    }


def _ledger(directory: Path, ledger: str | None) -> Ledger:
    from flows.session import existing_ledger

    return existing_ledger(directory, ledger)


def _ago(since: str | None) -> str:
    if not since:
        return ""
    return _duration((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds())


def _duration(seconds: float) -> str:
    minutes = max(seconds, 0.0) / 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
