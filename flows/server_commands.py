"""``screen deploy`` and ``screen up``: campaigns on a schedule, shown in Prefect's UI."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.options import CAMPAIGNS, Directory, LedgerUrl, assignments
from screening.errors import UserError

if TYPE_CHECKING:
    from flows.config import Campaign

PORT = 4200
WATCH_S = 0.5

File = Annotated[Path | None, typer.Argument(help="Campaign as YAML; flags override what it says.")]
Task = Annotated[str | None, typer.Option(help="high-k (default) or anisotropy.")]
Rounds = Annotated[int | None, typer.Option(help="Rounds of each campaign. Default: 3.")]
Batch = Annotated[int | None, typer.Option(help="Calculations per round.")]
Name = Annotated[str | None, typer.Option(help="Name of the first campaign. Default: the task's.")]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Any other field of a campaign. May be repeated."
    ),
]
Cron = Annotated[
    str | None,
    typer.Option(help='When it runs by itself, e.g. "0 2 * * *": every night at two.'),
]
Timezone = Annotated[
    str | None, typer.Option(help="Time zone of --cron, e.g. UTC. Default: this machine's.")
]
Notify = Annotated[
    str | None,
    typer.Option(
        metavar="URL|BLOCK",
        help="Tell a webhook, or a notification block made in the UI (slack-webhook/lab), when a "
        "round ends, the budget is nearly spent or a new best material is found.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(deploy)
    app.command()(up)


def deploy(
    file: File = None,
    task: Task = None,
    rounds: Rounds = None,
    batch: Batch = None,
    name: Name = None,
    settings: Setting = None,
    cron: Cron = None,
    timezone: Timezone = None,
    pool: Annotated[
        str | None,
        typer.Option(help="Work pool that exists. Default: one for this machine, made if missing."),
    ] = None,
    directory: Directory = CAMPAIGNS,
    ledger: LedgerUrl = None,
    notify: Notify = None,
) -> None:
    """Put a campaign on a schedule of the Prefect server that PREFECT_API_URL names.

    Each scheduled run goes on with the open campaign or, when it is finished, starts the next,
    which builds on it. The same command again renews the deployment.
    """
    from flows.deployment import deploy as make

    url = _server()
    config = _campaign(file, task, rounds, batch, name, settings)
    made = make(config, directory, ledger, cron=cron, timezone=timezone, pool=pool)
    if notify is not None:
        from flows.notifications import notify_by

        notify_by(notify, made.name)
    when = f"Runs at '{cron}' ({made.timezone})" if cron else "Runs when it is asked to"
    typer.echo(f"Deployment '{made.name}' is ready. {when}.")
    typer.echo(f"Look:   {url.removesuffix('/api')}/v2/deployments/deployment/{made.id}")
    typer.echo(f"Worker: prefect worker start --pool {made.pool}")
    typer.echo(f"Now:    prefect deployment run '{made.name}'")


def up(
    file: File = None,
    task: Task = None,
    rounds: Rounds = None,
    batch: Batch = None,
    name: Name = None,
    settings: Setting = None,
    cron: Cron = None,
    timezone: Timezone = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the UI.")] = PORT,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Start a run at once as well.")
    ] = True,
    directory: Directory = CAMPAIGNS,
    ledger: LedgerUrl = None,
    notify: Notify = None,
) -> None:
    """Start a Prefect server, a worker and the deployment together, until Ctrl-C.

    Everything they need lies in .prefect below the directory of campaigns. Nothing is lost at the
    end: the same command goes on.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import server
    from flows.deployment import POOL, start_run
    from flows.deployment import deploy as make
    from flows.reports import serve_reports

    began = time.monotonic()
    config = _campaign(file, task, rounds, batch, name, settings)
    server.check_port(port)
    directory = directory.absolute()
    home = directory / ".prefect"
    url = f"http://{server.HOST}:{port}/api"
    ui = f"{url.removesuffix('/api')}/v2"
    common = {
        "PREFECT_HOME": str(home), "PREFECT_API_URL": url,
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "pages"),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        typer.echo(f"Starting the server (log: {home / 'server.log'}) …")
        start_server = ["server", "start", "--host", server.HOST, "--port", str(port)]
        serving = stack.enter_context(
            server.running(start_server, server.SERVER | common, home / "server.log")
        )
        server.wait_for_server(url, serving, home / "server.log")
        server.keep_to_itself(home / "pages")
        typer.echo(f"UI: {ui} (after {time.monotonic() - began:.0f} s)")
        reports = stack.enter_context(serve_reports(directory, port + 1))
        stack.enter_context(temporary_settings({PREFECT_API_URL: url}))
        made = make(
            config, directory, ledger, cron=cron, timezone=timezone,
            environment={"SCREEN_REPORTS": reports},
        )  # fmt: skip
        if notify is not None:
            from flows.notifications import notify_by

            notify_by(notify, made.name)
        start_worker = ["worker", "start", "--pool", POOL, "--type", "process", "--name", "screen"]
        working = stack.enter_context(
            server.running(start_worker, server.WORKER | common, home / "worker.log")
        )
        typer.echo(f"Deployment: {ui}/deployments/deployment/{made.id}")
        if start:
            run = start_run(made)
            typer.echo(f"First run:  {ui}/runs/flow-run/{run}")
        typer.echo(f"Artifacts:  {ui}/artifacts")
        typer.echo(f"Reports:    {reports}")
        typer.echo("Ctrl-C stops all of it.")
        try:
            while serving.poll() is None and working.poll() is None:
                time.sleep(WATCH_S)
        except KeyboardInterrupt:
            typer.echo("Stopping worker and server; the same command goes on later.")
            return
        which = "worker" if serving.poll() is None else "server"
        log = home / f"{which}.log"
        raise UserError(
            f"The {which} has ended by itself: {server.last_words(log)} The same command goes on; "
            f"the whole log is {log}."
        )


def _server() -> str:
    """Address of the server of the current settings, which answers."""
    from prefect.settings import get_current_settings

    from flows.server import check_server

    url = get_current_settings().api.url
    if url is None:
        raise UserError(
            "No Prefect server is named; set PREFECT_API_URL (e.g. http://127.0.0.1:4200/api), or "
            "start everything together with `screen up`."
        )
    check_server(url)
    return str(url)


def _campaign(
    file: Path | None,
    task: str | None,
    rounds: int | None,
    batch: int | None,
    name: str | None,
    settings: list[str] | None,
) -> Campaign:
    from flows.config import build_campaign

    flags: dict[str, Any] = {"task": task, "rounds": rounds, "batch": batch, "name": name}
    overrides = {field: value for field, value in flags.items() if value is not None}
    return build_campaign(file, overrides | assignments(settings))
