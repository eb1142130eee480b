"""One round of a campaign on a cluster, with fixed picks, for benchmarks that disturb it."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster import Cluster
from sshd import Sshd

NAME = "chaos"
PATIENCE_S = 600.0
MOST_STARTS = 25
"""Times that a campaign is begun again before it counts as stuck."""


@dataclass
class Report:
    """What came of one run."""

    scenario: str
    disturbances: int = 0
    begun: int = 0
    calculations: int = 0
    starts: int = 0
    ends: int = 0
    retried: int = 0
    wall_s: float = 0.0
    said: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Place:
    """One campaign in a directory of its own."""

    def __init__(self, home: Path, batch: int, settings: dict[str, Any], name: str = NAME) -> None:
        self.home = home
        self.batch = batch
        self.settings = settings
        self.name = name
        self.log = home / f"{name}.log"
        home.mkdir(parents=True, exist_ok=True)

    @property
    def directories(self) -> list[Path]:
        """Directories of the calculations, of all campaigns here."""
        return [p for p in self.home.glob("campaigns/*/calculations/*") if len(p.name) == 32]

    def start(self) -> multiprocessing.process.BaseProcess:
        """Begin the campaign, or go on with it, in a process of its own."""
        process = multiprocessing.get_context("fork").Process(target=self._run)
        process.start()
        return process

    def _run(self) -> None:
        from screening.errors import UserError

        os.setsid()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            round_of(self.home / "campaigns", self.name, self.batch, self.settings)
        except UserError as error:
            print(f"Error: {error}", flush=True)
            os._exit(2)
        except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
            import traceback

            traceback.print_exc()
            os._exit(3)
        os._exit(0)

    def events(self, directory: Path) -> list[tuple[float, str]]:
        """Time and "start" or "end" of each execution, as the engine logged them."""
        log = directory / "executions.log"
        lines = log.read_text().splitlines() if log.exists() else []
        words = [line.split() for line in lines if len(line.split()) == 3]
        return [(datetime.fromisoformat(w[0]).timestamp(), w[1]) for w in words]

    def running(self) -> list[Path]:
        """Calculations in the middle of an execution."""
        found = []
        for directory in self.directories:
            names = [name for _, name in self.events(directory)]
            if names and names[-1] == "start" and not (directory / "result.json").exists():
                found.append(directory)
        return found

    def outcome(self) -> list[Any]:
        """Everything that must not depend on what went wrong."""
        from results.ledger import Ledger

        ledger = Ledger(self.home / "campaigns" / "ledger.sqlite")
        table = ledger.calculations(self.name)
        table = table.drop(columns=["cpu_s", "wall_s", "directory", "shared"])
        rounds = [[r.number, str(r.status)] for r in ledger.rounds(self.name)]
        return [rounds, json.loads(table.to_json(orient="records", double_precision=15))]


def round_of(directory: Path, name: str, batch: int, settings: dict[str, Any]) -> None:
    """One round of a campaign with fixed picks, by the very steps of ``screen run``."""
    from types import SimpleNamespace

    from flows import steps
    from flows.config import build_campaign
    from flows.session import opened
    from screening.builtin import builtin_hidden

    candidates = [known.material for known in builtin_hidden()][:batch]
    config = build_campaign(None, {"name": name, "rounds": 1, "batch": batch, **settings})
    with opened(config, directory, None) as run:
        number = run.round(1).id
        run.ledger.record_training(number, "none", 0, "none", "none", {})
        run.ledger.record_predictions(number, predictions(candidates))
        steps.select(run, 1, SimpleNamespace(candidates=candidates))
        steps.calculate(run, 1)
        steps.gate(run, 1)
        run.ledger.finish_round(number)


def predictions(candidates: Sequence[Any]) -> Any:
    """A made-up prediction of each candidate, always the same."""
    import numpy as np
    import pandas as pd

    count = len(candidates)
    table = pd.DataFrame(
        {
            "material_id": [m.material_id for m in candidates],
            "structure_hash": [m.structure_hash for m in candidates],
            "formula": [m.formula for m in candidates],
            "n_sites": [m.n_sites for m in candidates],
            "band_gap": [m.band_gap for m in candidates],
            "electronic": [np.eye(3) * 3] * count,
            "ionic": [np.eye(3) * 5] * count,
            "rank": range(1, count + 1),
        }
    )
    for column in ("epsilon_mean", "merit_mean", "acquisition"):
        table[column] = np.linspace(9, 8, count)
    return table.assign(epsilon_std=1.0, merit_std=1.0)


def preload() -> None:
    """Import once what every campaign needs; campaigns are forked from here."""
    import qtoolkit.io.slurm  # noqa: F401

    import flows.steps  # noqa: F401
    from flows.session import opened  # noqa: F401
    from models.encoder import supported_elements
    from screening.builtin import builtin_hidden

    supported_elements("7net-l3i5")
    builtin_hidden()


class Run:
    """One disturbed campaign and whoever disturbs it."""

    def __init__(self, place: Place, cluster: Cluster, scenario: str, rng: random.Random) -> None:
        self.place = place
        self.cluster = cluster
        self.rng = rng
        self.report = Report(scenario)
        self.destroyed: Counter[str] = Counter()
        self.reset: Counter[str] = Counter()
        self.server: Sshd | None = None

    def to_the_end(self, disturb: Callable[[Run, Any], None]) -> None:
        """Run, be disturbed, run again, until the campaign is through."""
        for _ in range(MOST_STARTS):
            flow = self.place.start()
            self.report.begun += 1
            disturb(self, flow)
            flow.join(PATIENCE_S)
            if flow.exitcode is None:
                flow.kill()
                self.report.problems.append("stuck")
                return
            if flow.exitcode == 0:
                return
            said = self.place.log.read_text().splitlines()
            self.report.said += [line for line in said[-1:] if line not in self.report.said]
            self.undo_cancellations()
            if flow.exitcode == 3:
                self.report.problems.append(f"traceback: {said[-1:]}")
                return
        self.report.problems.append("never through")

    def undo_cancellations(self) -> None:
        """What the campaign's last words ask for; a controller that lost its last records in a
        crash cancels jobs too, when it starts them a second time and their node refuses."""
        from dft.calculation import Calculation

        for calculation in map(Calculation, self.place.directories):
            if calculation.cancelled_path.exists():
                self.reset[calculation.key] += 1
                calculation.allow()

    def hit(self, count: int = 1) -> None:
        """Count a disturbance."""
        self.report.disturbances += count

    def wait(self, flow: Any, longest_s: float) -> bool:
        """Wait a random time, at most so long; whether the flow still runs."""
        flow.join(self.rng.uniform(0, longest_s))
        return flow.exitcode is None

    def until(self, flow: Any, condition: Callable[[], object], seconds: float = 60.0) -> bool:
        """Wait until something is true; False if it does not become so while the flow runs."""
        give_up = time.monotonic() + seconds
        while not condition():
            if flow.exitcode is not None or time.monotonic() > give_up:
                return False
            time.sleep(0.05)
        return True
