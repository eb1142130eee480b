"""The closed loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.config import Campaign
from flows.session import conclude, opened
from flows.steps import calculate, encode, gate, predict, pull, record, remaining, select, train

FLOW_NAME = "dielectric-screening"
"""Under which Prefect lists all campaigns, whoever started them."""


@flow(name=FLOW_NAME, flow_run_name="{config.name}", persist_result=False)
def campaign(
    config: Campaign, directory: Path = Path("campaigns"), ledger: str | None = None
) -> dict[str, Any]:
    """Find dielectric materials with few calculations.

    Start it as often as you like: it goes on where it stopped, and a finished campaign only shows
    its results.

    Args:
        config: the campaign
        directory: where campaigns are kept
        ledger: database URL or SQLite file; by default ledger.sqlite in the directory
    """
    with opened(config, directory, ledger) as run:
        if run.is_finished:
            return conclude(run)
        pool = pull(run)
        encode(run, pool)
        for number in range(1, config.rounds + 1):
            if not remaining(run, number, pool):
                run.reporter.note("Every candidate has been calculated.")
                break
            run.reporter.note(f"Round {number} of {config.rounds}")
            train(run, number)
            predict(run, number, pool)
            if not select(run, number, pool):
                break
            calculate(run, number)
            gate(run, number)
            record(run, number)
        return conclude(run)
