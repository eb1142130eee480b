"""What several campaigns share, as Prefect's concurrency limits.

Without a server there is one campaign at a time and nothing to share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from flows.config import Campaign
    from flows.run import CampaignRun

GPU = "gpu"
"""Limit of the steps that compute with the potential or the networks, where a GPU does it."""
CALCULATIONS = "calculations"
"""Limit of the calculations under way; a step takes as many slots as it may run in parallel."""

LEASE_S = 60.0
"""After which what a run held that was killed is free again: the least that the server takes."""

UNLIMITED = 1000
"""Calculations under way where another program decides how many."""

ON_GPU = ("encode", "train", "predict")


@contextlib.contextmanager
def limit_of(step: str, run: CampaignRun) -> Iterator[None]:
    """Wait until a step may use what it shares with other campaigns, and take it until it ends.

    A limit that the server does not have limits nothing. A server that cannot be asked must not
    stop the work either: our own locks see to it that nothing is calculated twice.
    """
    from prefect.concurrency.sync import concurrency

    name, slots = None, 1
    if step == "calculate":
        name, slots = CALCULATIONS, at_once_at_most(run.config)
    elif step in ON_GPU and run.cache.device.startswith("cuda"):
        name = GPU
    with contextlib.ExitStack() as stack:
        if name is not None:
            limit = _limit(name)
            if limit:
                # A campaign that wants more than there are would wait for ever.
                slots = min(slots, limit)
                taken = concurrency(
                    name, occupy=slots, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False
                )
                stack.enter_context(taken)
        yield


def make_limits(client: SyncPrefectClient, config: Campaign) -> None:
    """Make the limits that are not there; those that exist are the administrator's business."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists

    for name, limit in ((GPU, 1), (CALCULATIONS, at_once_at_most(config))):
        wanted = GlobalConcurrencyLimitCreate(name=name, limit=limit)
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_global_concurrency_limit(wanted)


def at_once_at_most(config: Campaign) -> int:
    """Calculations that a campaign may have under way at once."""
    values: dict[str, Any] = config.launcher.model_dump()
    return int(
        values.get("max_parallel") or values.get("max_jobs", UNLIMITED) * values.get("at_once", 1)
    )


def _limit(name: str) -> int | None:
    """The size of a limit; None where there is none, or nobody to ask."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    try:
        with get_client(sync_client=True) as client:
            found = client.read_global_concurrency_limit_by_name(name)
    except (ObjectNotFound, httpx.HTTPError):
        return None
    return int(found.limit) if found.active else None
