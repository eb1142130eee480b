"""Word of what happens, through Prefect's automations.

The flow emits events; an automation made by ``screen deploy --notify`` sends each of them on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dft.cost import hours
from flows.artifacts import artifact_key
from flows.bill import ENDS_HERE, USED_UP, spent_core_hours
from flows.reporter import run_logger
from flows.run import predecessors
from results.markdown import planned
from results.text import number
from results.view import CampaignView
from screening.errors import UserError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from flows.run import CampaignRun

ROUND_FINISHED = "dielectric-screening.round.finished"
BUDGET_NEARLY_SPENT = "dielectric-screening.budget.nearly-spent"
NEW_BEST = "dielectric-screening.material.new-best"
EVENTS = {
    ROUND_FINISHED: "A round has finished",
    BUDGET_NEARLY_SPENT: "The budget is nearly spent",
    NEW_BEST: "A new best material",
}
NEARLY = 0.8
"""Share of a campaign's budget from which it counts as nearly spent."""

BODY = "{{ event.payload.text }}"


def tell(run: CampaignRun, round_number: int) -> None:
    """Emit what the end of a round has to say, each thing once; nothing outside a run."""
    if run_logger() is None:
        return
    view = CampaignView.from_ledger(run.ledger, run.config.name)
    kinds = {*run.ledger.events(view.name)["kind"]}
    spent = spent_core_hours(run.ledger, view.name)
    for event, text in news(view, round_number, spent, bool(kinds & {ENDS_HERE, USED_UP})):
        # A budget is nearly spent once, however many rounds follow.
        once = f"told {event}" + ("" if event == BUDGET_NEARLY_SPENT else f" {round_number}")
        if run.ledger.event(view.name, "told", {"event": event, "text": text}, once=once):
            _emit(event, run, round_number, text)


def news(
    view: CampaignView, round_number: int, core_hours: float = 0.0, ended: bool = False
) -> list[tuple[str, str]]:
    """Events of a round's end, with a sentence for a person each.

    Parameters
    ----------
    core_hours
        What the campaign's calculations have taken; its budget, if it has one, is in these, and
        else in calculations.
    ended
        Whether the budget has kept a calculation from being made.
    """
    rows = view.calculations[view.calculations["round"] == round_number]
    accepted = int((rows["verdict"] == "accepted").sum())
    found = [
        (
            ROUND_FINISHED,
            f"Round {round_number} of '{view.name}' is finished: {accepted} of {len(rows)} "
            "calculations were accepted.",
        )
    ]
    best, known = view.best_validated, view.best_known
    if best is not None and int(best["round"]) == round_number:
        mark = float("-inf") if known is None else float(known["merit"])
        if float(best["merit"]) > mark:
            found.append(
                (
                    NEW_BEST,
                    f"New best material of '{view.name}': {best['formula']} "
                    f"({best['material_id']}), {view.task.label} {number(float(best['merit']))}.",
                )
            )
    if spent := _nearly_spent(view, core_hours, ended):
        found.append((BUDGET_NEARLY_SPENT, f"'{view.name}' has spent {spent}."))
    return found


def _nearly_spent(view: CampaignView, core_hours: float, ended: bool) -> str:
    """How much of the budget, once that is nearly all; or nothing."""
    if budget := view.config.get("budget"):
        text = f"{hours(core_hours)} of its {hours(float(budget))} core-hours"
        return text if core_hours >= NEARLY * float(budget) or ended else ""
    number_of, done = planned(view), len(view.calculations)
    nearly = number_of is not None and done >= NEARLY * number_of
    return f"{done} of its {number_of} calculations" if nearly else ""


def notify_by(where: str, deployment: str) -> None:
    """Make the automations that send events on; the same call again renews them.

    Parameters
    ----------
    where
        Address of a webhook, to which the text is posted as JSON, or a notification block that
        exists, as ``type/name``.

    Raises
    ------
    UserError
        Neither of the two.
    """
    from prefect.client.orchestration import get_client
    from prefect.events.actions import CallWebhook, SendNotification

    with get_client(sync_client=True) as client:
        if urlsplit(where).scheme in ("http", "https"):
            block = _webhook(where, artifact_key("notify", deployment.replace("/", "-")))
            payload = '{"subject": "{{ event.event }}", "text": "' + BODY + '"}'
            action: Any = CallWebhook(block_document_id=block, payload=payload)
        else:
            block = _notifier(client, where)
            action = SendNotification(block_document_id=block, subject="Screening", body=BODY)
        _automations(client, action, deployment)


def _automations(client: SyncPrefectClient, action: Any, deployment: str) -> None:
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    campaign = deployment.rpartition("/")[2]
    for event, title in EVENTS.items():
        name = f"{title}: {campaign}"
        trigger = EventTrigger(
            expect={event},
            match={"dielectric-screening.series": campaign},
            posture=Posture.Reactive,
            threshold=1,
        )
        wanted = AutomationCore(
            name=name,
            description=f"Sends word from deployment {deployment}",
            trigger=trigger,
            actions=[action],
        )
        for old in client.read_automations_by_name(name):
            client.delete_automation(old.id)
        client.create_automation(wanted)


def _webhook(url: str, name: str) -> Any:
    from prefect.blocks.webhook import Webhook
    from pydantic import SecretStr

    block = Webhook(method="POST", url=SecretStr(url), allow_private_urls=True)
    return block.save(name, overwrite=True)


def _notifier(client: SyncPrefectClient, slug: str) -> Any:
    from prefect.exceptions import ObjectNotFound

    kind, _, name = slug.partition("/")
    try:
        return client.read_block_document_by_name(name, kind).id
    except ObjectNotFound:
        raise UserError(
            f"'{slug}' is neither an http(s) address nor a notification block of the server; make "
            "one in the UI under Blocks and name it as TYPE/NAME, e.g. slack-webhook/lab."
        ) from None


def _emit(event: str, run: CampaignRun, round_number: int, text: str) -> None:
    from prefect.context import FlowRunContext, TaskRunContext
    from prefect.events import emit_event

    flow_context, task_context = FlowRunContext.get(), TaskRunContext.get()
    flow_run = flow_context.flow_run if flow_context is not None else None
    identity = task_context.task_run.flow_run_id if task_context is not None else None
    identity = identity or (flow_run.id if flow_run is not None else None)
    campaign = run.config.name
    # A deployment is named after the first campaign of its series.
    first = [campaign, *predecessors(run.config.follows, run.ledger)][-1]
    related = []
    if identity is not None:
        role = {"prefect.resource.role": "flow-run"}
        related.append({"prefect.resource.id": f"prefect.flow-run.{identity}", **role})
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"dielectric-screening.campaign.{campaign}",
            "prefect.resource.name": campaign,
            "dielectric-screening.series": first,
        },
        related=related,
        payload={"text": text, "campaign": campaign, "round": round_number},
    )
