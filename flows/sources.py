"""What the flow gives to sources: the key's last place, progress, and the versions to stay with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from flows.artifacts import show
from results.view import PULLED_FROM
from screening.errors import UserError
from screening.pulling import PullContext, Pulled

if TYPE_CHECKING:
    from flows.reporter import Reporter
    from results.ledger import Ledger

SECRET_BLOCK = "mp-api-key"  # noqa: S105 - the name of a block, not a secret

UNREADABLE = f"The Prefect block '{SECRET_BLOCK}' cannot be read as a Secret; make it again."


def secret_block() -> SecretStr | None:
    """The key in Prefect's Secret block ``mp-api-key``; None without a server or such a block.

    Raises
    ------
    UserError
        The block is there, but is no Secret block, or holds no text.
    """
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        return None  # asking would start a server of its own, for nothing
    from prefect.blocks.system import Secret
    from prefect.exceptions import PrefectException

    try:
        block: Any = Secret.load(SECRET_BLOCK)
        value = block.get()
    except ValueError as error:
        # Prefect says "Unable to find block document" where there is none; anything else is a
        # block that cannot be used. Its message may quote the block, so it is not passed on.
        if "find block document" in str(error):
            return None
        raise UserError(UNREADABLE) from None
    except (OSError, PrefectException):
        return None
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise UserError(UNREADABLE)
    return SecretStr(value)


def pull_context(reporter: Reporter, pinned: dict[str, str] | None = None) -> PullContext:
    """What sources may use while they fetch, shown through ``reporter``."""
    return PullContext(
        key=secret_block, progress=reporter.progress, note=reporter.note, pinned=pinned or {}
    )


def pinned_versions(ledger: Ledger, campaign: str) -> dict[str, str]:
    """Database versions that a campaign began with; empty before its first pull."""
    if ledger.campaign(campaign) is None:
        return {}
    events = ledger.events(campaign)
    found = events[events["kind"] == PULLED_FROM]["detail"]
    return dict(found.iloc[0].get("pins", {})) if len(found) else {}


def pull_report(campaign: str, known: Pulled[Any], candidates: Pulled[Any], pool: str) -> str:
    """The pull as markdown: where from, how many, what was refused and why."""
    lines = [f"# What campaign `{campaign}` starts from", ""]
    for title, pulled in (("Known tensors", known), ("Candidates", candidates)):
        about = pulled.provenance
        lines += [f"## {title}: {len(pulled.items)} of {pulled.offered}", ""]
        names = ("source", "endpoint", "database_version", "pulled_at", "age", "filter")
        lines += [f"- {name.replace('_', ' ')}: {about[name]}" for name in names if name in about]
        for heading, refusals in (("refused", pulled.refused), ("taken in part", pulled.partly)):
            if counts := refusals.counts():
                lines += ["", f"| {heading} | records | for example |", "|---|---:|---|"]
                lines += [
                    f"| {reason} | {n} | {', '.join(refusals.examples(reason))} |"
                    for reason, n in counts.items()
                ]
        lines.append("")
    return "\n".join([*lines, "## Filters", "", *(f"- {step}" for step in pool.split("; ")), ""])


def show_pull(campaign: str, markdown: str) -> None:
    """Put the pull's summary into Prefect as an artifact; nothing outside a run."""
    show("pull", campaign, markdown, f"What {campaign} starts from")
