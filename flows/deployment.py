"""Campaigns on a schedule: the deployment, its work pool and the limits that campaigns share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import Campaign
from flows.limits import make_limits
from flows.server import PRIVATE
from results.database import sqlite_file
from screening.errors import UserError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.schedules import Schedule

POOL = "dielectric-screening"
"""Work pool that is made where none is named: processes on the machine of the worker."""

EVERY_NIGHT = "0 2 * * *"

INHERITED = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY",
    "CUDA_VISIBLE_DEVICES", "PYTHONPATH",
)  # fmt: skip
"""What a run on this machine takes over, with where things are, from the shell that deployed."""


@dataclass(frozen=True)
class Deployed:
    """A deployment as the server knows it."""

    id: str
    name: str
    pool: str
    cron: str | None
    timezone: str


def deploy(
    config: Campaign,
    directory: Path,
    ledger: str | None,
    *,
    cron: str | None,
    timezone: str | None = None,
    pool: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Deployed:
    """Make or renew the deployment of a campaign on the server of the current settings.

    Parameters
    ----------
    cron
        When it starts by itself; None: only when somebody asks.
    timezone
        IANA name in which ``cron`` is meant; by default this machine's.
    pool
        A work pool that exists; by default one for processes on this machine is made.
    environment
        More variables for the runs.

    Raises
    ------
    UserError
        ``cron``, ``timezone`` or ``pool`` is no good.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType

    from flows.scheduled import scheduled

    zone = timezone or local_timezone()
    schedule = cron_schedule(cron or EVERY_NIGHT, zone)
    parameters = {
        "campaign": config.model_dump(mode="json"),
        "directory": str(directory.absolute()),
        "ledger": None if ledger is None else _absolute(ledger),
    }
    try:
        with get_client(sync_client=True) as client:
            on_this_machine = _work_pool(client, pool)
            make_limits(client, config)
        variables: dict[str, Any] = {}
        if on_this_machine:
            inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
            variables = {"env": PRIVATE | inherited | _places() | dict(environment or {})}
        deployment = scheduled.to_deployment(
            config.name,
            schedule=schedule if cron else None,
            parameters=parameters,
            description=_description(config),
            tags=[config.task],
            work_pool_name=pool or POOL,
            job_variables=variables,
            concurrency_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(deployment, RunnerDeployment)
        identity = deployment.apply()
    except httpx.HTTPError as error:
        raise UserError(
            f"The Prefect server did not accept the deployment ({error}); see its log."
        ) from None
    name = f"{scheduled.name}/{config.name}"
    return Deployed(str(identity), name, pool or POOL, cron, zone)


def _places() -> dict[str, str]:
    """Variables that say where things are, absolute.

    A worker runs each flow in a folder of its own, which it then deletes.
    """
    found = {}
    if cache := os.environ.get("SCREEN_CACHE"):
        found["SCREEN_CACHE"] = str(Path(cache).absolute())
    if ledger := os.environ.get("SCREEN_LEDGER"):
        found["SCREEN_LEDGER"] = _absolute(ledger)
    return found


def _absolute(ledger: str) -> str:
    """A ledger's file from the root on; a server's URL as it is."""
    return str(sqlite_file(ledger) or ledger)


def cron_schedule(cron: str, timezone: str) -> Schedule:
    """A schedule.

    Raises
    ------
    UserError
        No such time zone, or five fields that mean nothing.
    """
    from zoneinfo import ZoneInfo

    from prefect.client.schemas.schedules import CronSchedule
    from prefect.schedules import Cron
    from pydantic import ValidationError

    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise UserError(
            f"There is no time zone '{timezone}'; --timezone takes names like Europe/Berlin or UTC."
        ) from None
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError:
        raise UserError(
            f"'{cron}' is no cron schedule; --cron takes minute, hour, day, month and weekday, "
            'e.g. "0 2 * * *" for every night at two.'
        ) from None
    return Cron(cron, timezone=timezone)


def local_timezone() -> str:
    """IANA name of this machine's time zone, UTC where it cannot be told."""
    given = os.environ.get("TZ", "").lstrip(":")
    if given and not given.startswith("/"):
        return given
    _, found, name = str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")
    return name if found else "UTC"


def start_run(deployment: Deployed) -> str:
    """Ask for a run of a deployment now; its id."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.deployments import run_deployment

    run = run_deployment(deployment.id, timeout=0, as_subflow=False)
    assert isinstance(run, FlowRun)
    return str(run.id)


def _work_pool(client: SyncPrefectClient, name: str | None) -> bool:
    """Make sure of the pool; whether its runs are processes, of a worker on some machine."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    if name is None:
        wanted = WorkPoolCreate(
            name=POOL, type="process", description="Campaigns, as processes of a worker"
        )
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(wanted)
        name = POOL
    try:
        return bool(client.read_work_pool(name).type == "process")
    except ObjectNotFound:
        names = ", ".join(sorted(p.name for p in client.read_work_pools())) or "none yet"
        raise UserError(
            f"There is no work pool '{name}' on the server; it has: {names}. Leave --pool out to "
            "have one made for this machine."
        ) from None


def _description(config: Campaign) -> str:
    return (
        f"Searches for dielectric crystals, task **{config.task}**: {config.rounds} rounds of "
        f"{config.batch} calculations per campaign. Each run goes on with the open campaign or "
        "starts the next one; a run that begins while another one works is cancelled.\n\n"
        f"Artifacts: `campaign-{config.name}` and those named after it."
    )
