"""Files that a campaign leaves for people and for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from numpy.typing import NDArray

from flows.run import CampaignRun
from results.report import write_report
from results.tables import export_validated, round_table
from results.view import CampaignView
from screening.io import atomic_path, atomic_write

if TYPE_CHECKING:
    import pandas as pd

    from models.ensemble import Prediction


def write_campaign(run: CampaignRun) -> None:
    """``campaign.yaml``, as run."""
    text = yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    atomic_write(run.directory / "campaign.yaml", text)


def write_predictions(
    directory: Path, table: pd.DataFrame, prediction: Prediction, order: NDArray[np.int64]
) -> None:
    """``predictions.parquet``: the ranked table and every member's tensors."""
    frame = table.copy()
    for part in ("electronic", "ionic"):
        members = np.round(getattr(prediction, part)[:, order], 6)
        frame[part] = [tensor.tolist() for tensor in frame[part]]
        frame[f"{part}_members"] = [members[:, i].tolist() for i in range(members.shape[1])]
    with atomic_path(directory / "predictions.parquet") as temporary:
        frame.to_parquet(temporary, index=False)


def write_round(run: CampaignRun, number: int) -> None:
    """``selected.csv``: what the round picked and what came of it."""
    view = CampaignView.from_ledger(run.ledger, run.config.name)
    table = round_table(view, number)
    atomic_write(run.round_directory(number) / "selected.csv", table.to_csv(index=False))


def write_results(run: CampaignRun) -> Path:
    """``validated.csv``, ``validated.json`` and ``report.html``; returns the report's path."""
    view = CampaignView.from_ledger(run.ledger, run.config.name)
    export_validated(view, run.ledger, run.directory)
    return write_report(view, run.directory / "report.html")
