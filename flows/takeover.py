"""Flow runs that were killed from outside: marked as crashed by the run that takes over.

Prefect learns of a death only from the worker. Where that died too, or the machine did, the run
would be shown as running for ever. Whoever holds a campaign's lock knows better: nobody else is
alive who worked on it here.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from flows.run import CampaignRun

STARTED_BY = "flow run"
"""Kind of the ledger's event that says which flow run works on a campaign."""
LOOKED_AT = 5
"""Earlier runs to ask about; older ones have been asked about before."""


def take_over(run: CampaignRun) -> None:
    """Note which flow run is at work, and mark earlier ones that never ended as crashed.

    Only for who holds the campaign's lock; nothing outside a flow run.
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    place = {"host": socket.gethostname(), "directory": str(run.directory)}
    own = str(context.flow_run.id)
    events = run.ledger.events(run.config.name)
    earlier = [
        detail["id"]
        for detail in events.loc[events["kind"] == STARTED_BY, "detail"]
        if {name: detail.get(name) for name in place} == place and detail["id"] != own
    ]
    for identity in earlier[-LOOKED_AT:]:
        if _bury(UUID(identity), own):
            run.reporter.note(
                f"An earlier run of '{run.config.name}' was killed from outside; it is marked as "
                "crashed, and this one goes on where it stopped."
            )
    run.ledger.event(run.config.name, STARTED_BY, {"id": own, **place})


def _bury(identity: UUID, successor: str) -> bool:
    """Mark a run as crashed unless it has ended; whether that was so."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException
    from prefect.states import Crashed

    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(identity).state
            if state is None or state.is_final():
                return False
            message = f"Killed from outside; flow run {successor} goes on."
            client.set_flow_run_state(identity, Crashed(message=message), force=True)
    except (httpx.HTTPError, PrefectException):
        return False  # another server's, or deleted
    return True
