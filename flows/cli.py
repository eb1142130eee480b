"""The ``screen`` command line.

Heavy packages are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flows.archive_commands import register as register_archive_commands
from flows.dft_commands import app as dft_app
from flows.job_commands import register_job_commands
from flows.model_commands import register as register_model_commands
from flows.options import CAMPAIGNS, AsJson, Directory, LedgerUrl, assignments, print_json
from flows.server_commands import register as register_server_commands
from flows.source_commands import register as register_source_commands
from screening.errors import UserError

if TYPE_CHECKING:
    from flows.config import Campaign

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class _StoppedError(Exception):
    """Ctrl-C, and how to go on."""


app = typer.Typer(
    name="screen",
    help="Find dielectric crystals with few calculations: predict full tensors, pick the most "
    "promising, calculate and check them, learn, and go round again.",
    epilog="First look, offline: `screen run --task high-k --rounds 3`. GNU screen has the same "
    "name; this program also answers to `dielectric-screen`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Name = Annotated[str, typer.Argument(help="Name of the campaign; `screen status` lists them.")]


@app.command()
def run(
    file: Annotated[
        Path | None, typer.Argument(help="Campaign as YAML; flags override what it says.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="high-k (E_g·ε̄, default) or anisotropy (λmax/λmin).")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of the loop. Default: 3.")] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Calculations per round. Default: 20; on the built-in data 4."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the campaign. Default: the task's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes all chance. Default: 0.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Published model instead of ours, such as dtnet; docs/papers.md."),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help="Table (.parquet, .csv, .jsonl) or folder of CIF/POSCAR files."),
    ] = None,
    band_gaps: Annotated[
        Path | None, typer.Option(help="CSV (file, band_gap) for a folder of candidates.")
    ] = None,
    known: Annotated[
        Path | None, typer.Option(help="Table of known tensors to learn from.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="Answer calculations from this table of known tensors."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="abinit or vasp: calculate. Default: replay, known answers."),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option(help="local, slurm or jobflow-remote: where it calculates. Default: local."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="CORE-HOURS",
            help="What all calculations together may take. Default: no limit.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any other field, e.g. --set model.encoder=7net-0. May be repeated.",
        ),
    ] = None,
    directory: Directory = CAMPAIGNS,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Run a campaign, or go on with the one of that name.

    Without --candidates, --known and --replay it runs on DFPT results that come with the software:
    a part is known, the rest is found. Stop it at any time; the same command goes on.
    """
    from flows.config import build_campaign

    flags = {
        "task": task,
        "rounds": rounds,
        "batch": batch,
        "name": name,
        "seed": seed,
        "model.name": model,
        "candidates": _candidates(candidates, band_gaps),
        "known": _table(known),
        "engine": _engine(engine, replay),
        "launcher.kind": launcher,
        "budget": budget,
    }
    overrides = {field: value for field, value in flags.items() if value is not None}
    overrides |= assignments(settings)
    _run(build_campaign(file, overrides), directory, ledger, as_json)


@app.command()
def resume(
    name: Name, directory: Directory = CAMPAIGNS, ledger: LedgerUrl = None, as_json: AsJson = False
) -> None:
    """Go on with a campaign, with the settings it was started with."""
    from flows.config import recorded_campaign

    record = _campaign_record(name, directory, ledger)
    _run(recorded_campaign(name, record.config), directory, ledger, as_json)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="One campaign; all without a name.")] = None,
    directory: Directory = CAMPAIGNS,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show how campaigns stand."""
    from flows.display import show_campaign, show_campaigns
    from flows.session import existing_ledger, summary
    from results.view import CampaignView

    book = existing_ledger(directory, ledger)
    names = [record.name for record in book.campaigns()]
    if name is not None:
        names = [_campaign_record(name, directory, ledger).name]
    views = [CampaignView.from_ledger(book, n) for n in names]
    if as_json:
        found = [summary(view) for view in views]
        print_json(found if name is None else found[0])
    elif name is not None:
        show_campaign(_console(), views[0])
    else:
        show_campaigns(_console(), [summary(view) for view in views])


@app.command()
def report(
    name: Name,
    directory: Directory = CAMPAIGNS,
    ledger: LedgerUrl = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write. Default: report.html of the campaign.")
    ] = None,
) -> None:
    """Write the report of a campaign, one HTML file that needs nothing else, and say where."""
    from flows.session import existing_ledger
    from results.report import write_report
    from results.view import CampaignView

    _campaign_record(name, directory, ledger)
    view = CampaignView.from_ledger(existing_ledger(directory, ledger), name)
    typer.echo(write_report(view, output or directory / name / "report.html"))


@app.command()
def schema() -> None:
    """Print the JSON schema of a campaign file: every field, its default and what it means."""
    from flows.config import Campaign

    print_json(Campaign.model_json_schema())


register_model_commands(app)
register_archive_commands(app)
register_job_commands(app)
register_server_commands(app)
register_source_commands(app)
app.add_typer(dft_app)


def main() -> None:
    """Entry point: errors that a user can cause end in one sentence."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Threads that wait spinning make PyTorch crawl on a machine that is busy with calculations.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Prefect would report anonymous usage otherwise.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        app()
    except UserError as error:
        _fail(f"Error: {error}", EXIT_ERROR)
    except _StoppedError as interruption:
        _fail(f"Interrupted. {interruption}", EXIT_INTERRUPTED)
    except (KeyboardInterrupt, SystemExit) as end:
        # The command line library turns the former into the latter, and says nothing.
        if isinstance(end, SystemExit) and end.code != EXIT_INTERRUPTED:
            raise
        _fail("Interrupted. Nothing is lost: the same command goes on.", EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - nothing unforeseen may reach the user as a traceback
        path = Path("screen-error.log").absolute()
        with contextlib.suppress(OSError):
            path.write_text(traceback.format_exc())
        _fail(
            f"Error: this should not happen ({type(error).__name__}: {error}); please report it "
            f"with the file {path}. Nothing is lost: the same command goes on.",
            EXIT_ERROR,
        )


def _run(config: Campaign, directory: Path, ledger: str | None, as_json: bool) -> None:
    from flows.orchestration import run_campaign

    with _resumable(config.name, directory, ledger):
        result = run_campaign(config, directory, ledger)
    if as_json:
        print_json(result)
        return
    from flows.display import show_campaign
    from flows.session import open_ledger
    from results.view import CampaignView

    view = CampaignView.from_ledger(open_ledger(directory.absolute(), ledger), config.name)
    show_campaign(_console(), view)
    typer.echo(f"Report: {result['report']}")


@contextlib.contextmanager
def _resumable(name: str, directory: Path, ledger: str | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        where = "" if directory == CAMPAIGNS else f" --directory {directory}"
        where += "" if ledger is None else " --ledger …"
        raise _StoppedError(
            "Nothing is lost, and calculations under way carry on; go on with: "
            f"screen resume {name}{where}"
        ) from None


def _campaign_record(name: str, directory: Path, ledger: str | None) -> Any:
    from flows.session import existing_ledger

    book = existing_ledger(directory, ledger)
    record = book.campaign(name)
    if record is None:
        names = ", ".join(r.name for r in book.campaigns()) or "none yet"
        raise UserError(f"There is no campaign '{name}' in the ledger; it has: {names}.")
    return record


def _candidates(path: Path | None, band_gaps: Path | None) -> dict[str, str] | None:
    if path is None:
        if band_gaps is not None:
            raise UserError("--band-gaps belongs to a folder of candidates; give --candidates too.")
        return None
    if not path.is_dir():
        if band_gaps is not None:
            raise UserError(
                f"--band-gaps belongs to a folder of candidates, and {path} is none; "
                "a table has its own column band_gap."
            )
        return _table(path)
    folder = {"kind": "folder", "path": str(path.absolute())}
    return folder if band_gaps is None else {**folder, "band_gaps": str(band_gaps.absolute())}


def _engine(name: str | None, replay: Path | None) -> dict[str, Any] | None:
    if replay is not None:
        if name not in (None, "replay"):
            raise UserError(f"--replay and --engine {name} exclude each other; give one of them.")
        return {"kind": "replay", "answers": _table(replay)}
    return None if name is None else {"kind": name}


def _table(path: Path | None) -> dict[str, str] | None:
    return None if path is None else {"kind": "table", "path": str(path.absolute())}


def _console() -> Any:
    from rich.console import Console

    # Names and notes are shown as they are: [alpha] is no markup.
    return Console(highlight=False, markup=False)


def _interrupt(signum: int, frame: object) -> NoReturn:  # noqa: ARG001 - the signature is given
    raise KeyboardInterrupt


def _fail(message: str, status: int) -> NoReturn:
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)  # noqa: T201 - the last word, whatever happened
    sys.stderr.flush()
    sys.exit(status)
