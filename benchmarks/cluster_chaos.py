"""What can go wrong on a cluster, done on purpose: is anything lost, is anything done twice?

Campaigns on a real Slurm (see ``cluster.py``) are disturbed in one way each, at random moments,
and run again until they are through; each starts with an empty ledger, picks the same crystals and
is compared with an undisturbed one. What is disturbed is the part that uses the cluster: a round's
claims, submissions, watching, verdicts and ledger, as ``screen run`` does them; training, which
``kill.py`` covers, is left out, and the picks are fixed.

=============  ===================================================================================
flow           kill -9 the process of the campaign
slurmctld      kill -9 Slurm's controller, start it again seconds later
signals        kill -9 or -15 a job's process, its worker, or the calculation itself
time-out       jobs run into Slurm's time limit with calculations under way
node           the node fails under its jobs
quota          the scratch file system fills up while calculations run
half-written   a result is cut in half, or deleted, while the campaign is down
cancelled      somebody cancels a job in the queue; the campaign is told to go on
two copies     two campaigns on one ledger want the same calculations
ssh            connections to the cluster are cut, the server is down for a while
everything     flow, slurmctld and signals together
=============  ===================================================================================

Executions are counted in the logs that the engine itself writes into each calculation's directory.
Every calculation has to be executed once, and once more for each time that it was cut or that its
result was destroyed, one after the other, and with the attempt counted in its handle.

    python benchmarks/cluster_chaos.py --runs 60
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster import Cluster, missing
from sshd import Sshd
from sshd import missing as missing_ssh

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


def kill_flow(run: Run, flow: Any) -> None:
    if run.report.disturbances < 4 and run.wait(flow, 6):
        flow.kill()
        run.hit()


def restart_slurmctld(run: Run, flow: Any) -> None:
    for _ in range(2 - run.report.disturbances):
        if run.wait(flow, 5):
            _restart(run)


def _restart(run: Run) -> None:
    with run.cluster.exclusive():
        run.cluster.end("slurmctld", signal.SIGKILL)
        time.sleep(run.rng.uniform(0, 4))
        run.cluster.start("slurmctld")
    run.hit()


def send_signals(run: Run, flow: Any) -> None:
    while run.report.disturbances < 3 and run.until(flow, run.place.running):
        run.wait(flow, 1)
        for directory in run.place.running()[:1]:
            handle = json.loads((directory / "handle.json").read_text())
            # The calculation, its worker, or the job above both.
            victim = run.rng.choice((handle["pid"], handle["worker_pid"], -1))
            number = run.rng.choice((signal.SIGKILL, signal.SIGTERM))
            with contextlib.suppress(OSError, IndexError):
                if victim == -1:
                    stat = Path(f"/proc/{handle['worker_pid']}/stat").read_text()
                    victim = int(stat.rsplit(")", 1)[1].split()[1])
                if b"dft.slurm_task" in Path(f"/proc/{victim}/cmdline").read_bytes():
                    os.kill(victim, number)
                    run.hit()
        run.wait(flow, 2)


def time_out(run: Run, flow: Any) -> None:
    """The settings see to it: the calculations of a job take longer than the job may."""
    flow.join(PATIENCE_S)
    run.hit(sum("TIME LIMIT" in p.read_text() for p in run.place.home.glob("**/job.out*")))


def fail_node(run: Run, flow: Any) -> None:
    if run.report.disturbances < 1 and run.until(flow, run.place.running):
        run.wait(flow, 2)
        with run.cluster.exclusive():
            run.cluster.fail_node()
        run.hit()


def fill_scratch(run: Run, flow: Any) -> None:
    if run.report.disturbances or not run.until(flow, run.place.running):
        return
    run.wait(flow, 1)
    ballast = run.place.home / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 512)
    run.hit()
    # What runs now cannot store its answer, and the campaign cannot write either.
    for directory in run.place.running():
        run.destroyed[directory.name] += 1
    flow.join(PATIENCE_S)
    time.sleep(3)
    ballast.unlink()


def spoil_results(run: Run, flow: Any) -> None:
    from dft.locks import is_locked

    if run.report.disturbances:
        return
    if run.until(flow, lambda: list(run.place.home.glob("campaigns/*/calculations/*/result.json"))):
        run.wait(flow, 1.5)
        flow.kill()
        flow.join()
        for path in run.place.home.glob("campaigns/*/calculations/*/result.json"):
            # A worker that does not find the result it has just written takes it for a failure.
            if is_locked(path.with_name(".lock")):
                continue
            run.hit()
            run.destroyed[path.parent.name] += 1
            if run.rng.random() < 0.5:
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[: run.rng.randrange(1, 300)])


def cancel_jobs(run: Run, flow: Any) -> None:
    if run.report.disturbances == 0 and run.until(flow, run.place.running):
        names = {json.loads(p.read_text())["name"] for p in run.place.home.glob("**/open/*.json")}
        lines = run.cluster.ask("squeue -h -r -t R,PD -o '%i %j'").splitlines()
        jobs = [line.split()[0] for line in lines if line.split()[1] in names]
        for job in run.rng.sample(jobs, min(2, len(jobs))):
            run.cluster.ask(f"scancel {job}", check=False)
            run.hit()


def two_copies(run: Run, flow: Any) -> None:
    """The other campaign begins a little later, and may be killed."""
    if run.report.disturbances:
        return
    run.wait(flow, 3)
    other = Place(run.place.home, run.place.batch, run.place.settings, "other")
    for _ in range(3):
        second = other.start()
        second.join(run.rng.uniform(1, 6))
        if second.exitcode is None:
            second.kill()
            second.join()
        run.hit()
    second = other.start()
    second.join(PATIENCE_S)
    if second.exitcode != 0:
        run.report.problems.append(f"the other campaign ended with {second.exitcode}")


def cut_connections(run: Run, flow: Any) -> None:
    """Every few seconds; once the server is down for longer, and once the flow is killed too."""
    assert run.server is not None
    while run.report.disturbances < 8 and run.wait(flow, 3):
        run.server.drop()
        run.hit()
        if run.report.disturbances == 3:
            run.server.stop()
            time.sleep(run.rng.uniform(1, 5))
            run.server.start()
        if run.report.disturbances == 6:
            flow.kill()


def everything(run: Run, flow: Any) -> None:
    if run.report.disturbances >= 6:
        return
    if run.until(flow, run.place.running, 20):
        send_one = run.rng.random() < 0.5
        if send_one:
            for directory in run.place.running()[:1]:
                handle = json.loads((directory / "handle.json").read_text())
                with contextlib.suppress(OSError):
                    os.kill(handle["worker_pid"], signal.SIGKILL)
                run.hit()
    if run.rng.random() < 0.5:
        _restart(run)
    if run.wait(flow, 2):
        flow.kill()
        run.hit()


SCENARIOS: dict[str, tuple[Callable[[Run, Any], None], dict[str, Any]]] = {
    "flow": (kill_flow, {}),
    "slurmctld": (restart_slurmctld, {}),
    "signals": (send_signals, {}),
    "time-out": (
        time_out,
        {"engine.delay_s": 45, "launcher.time": 60, "launcher.pack": 3, "launcher.at_once": 1,
         "launcher.array": 1, "launcher.max_jobs": 4},
    ),
    "node": (fail_node, {}),
    "quota": (fill_scratch, {}),
    "half-written": (spoil_results, {}),
    "cancelled": (cancel_jobs, {}),
    "two copies": (two_copies, {}),
    "ssh": (cut_connections, {}),
    "everything": (everything, {}),
}  # fmt: skip
KILLING = ("signals", "time-out", "node", "cancelled", "everything")
"""Scenarios that end calculations themselves."""
SETTINGS: dict[str, Any] = {
    "engine.delay_s": 1.5, "launcher.kind": "slurm", "launcher.poll_s": 0.5,
    "launcher.settle_s": 1.0, "launcher.time": 600, "launcher.max_jobs": 3,
    "launcher.attempts": 8,
    # Slurm would start jobs of a failed node again by itself, but only two minutes later.
}  # fmt: skip


def session() -> dict[str, str]:
    """What the cluster's side of a connection needs in its environment."""
    names = ("SLURM_CONF", "PYTHONPATH", "OMP_NUM_THREADS")
    return {name: os.environ[name] for name in names if name in os.environ}


def one(
    home: Path, cluster: Cluster, scenario: str, seed: int, batch: int, expected: Any
) -> Report:
    """One run of a scenario in a directory of its own."""
    rng = random.Random(f"{scenario} {seed}")
    disturb, own = SCENARIOS[scenario]
    shape = {"launcher.pack": rng.choice((1, 2)), "launcher.array": rng.choice((1, 2))}
    shape["launcher.at_once"] = rng.choice((1, shape["launcher.pack"]))
    begun = time.monotonic()
    with scratch(home, small=scenario == "quota"):
        place = Place(home, batch, {**SETTINGS, **shape, **own})
        run = Run(place, cluster, scenario, rng)
        with contextlib.ExitStack() as stack:
            if scenario == "ssh":
                run.server = stack.enter_context(Sshd(home / "sshd", session()))
                place.settings["launcher.ssh"] = run.server.settings(home / "there")
            run.to_the_end(disturb)
        run.report.wall_s = time.monotonic() - begun
        if not run.report.problems:
            examine(run, expected)
    return run.report


@contextlib.contextmanager
def scratch(home: Path, *, small: bool) -> Iterator[None]:
    """A directory, on a file system of its own of 1.5 MB if it is to fill up."""
    home.mkdir(parents=True)
    if not small:
        yield
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(home)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def examine(run: Run, expected: Any) -> None:
    """Compare with the undisturbed campaign and count executions."""
    report, place = run.report, run.place
    if place.outcome() != expected:
        report.problems.append("another ledger than undisturbed")
    for directory in place.directories:
        events = place.events(directory)
        starts = sum(name == "start" for _, name in events)
        ends = sum(name == "end" for _, name in events)
        report.calculations += 1
        report.starts += starts
        report.ends += ends
        report.retried += starts - 1
        destroyed = run.destroyed[directory.name]
        key = directory.name[:8]
        attempt = json.loads((directory / "handle.json").read_text())["attempt"]
        # The log's last line is written a moment before the result: a kill may come in between.
        late = report.scenario in KILLING
        if ends < 1 or (ends > 1 + destroyed and not (late and ends <= attempt)):
            report.problems.append(f"{key} was completed {ends} times")
        if starts > 1 and report.scenario in ("flow", "slurmctld", "two copies", "ssh"):
            report.problems.append(f"{key} was started {starts} times for no reason")
        # Each start was counted as an attempt beforehand, so that its predecessor's end was known;
        # a cancellation, and a disk without space, begin the count anew.
        if starts > attempt and not (run.reset[directory.name] or destroyed):
            report.problems.append(f"{key}: {starts} starts, but attempt {attempt}")
        order = [name for _, name in events]
        if any(a == b == "end" for a, b in itertools.pairwise(order)):
            report.problems.append(f"{key} was executed twice at the same time: {order}")


def run_all(
    home: Path, cluster: Cluster, runs: int, seed: int, batch: int, at_once: int,
    scenarios: Sequence[str],
) -> list[Report]:  # fmt: skip
    """The undisturbed campaign, then all the others, some at the same time."""
    preload()
    calm = Place(home / "undisturbed", batch, {**SETTINGS, "engine.delay_s": 0.1})
    process = calm.start()
    process.join(PATIENCE_S)
    if process.exitcode != 0:
        raise SystemExit(f"the undisturbed campaign failed: {calm.log.read_text()[-1500:]}")
    expected = calm.outcome()
    context = multiprocessing.get_context("fork")
    reports: list[Report] = []
    waiting = [(scenarios[i % len(scenarios)], seed + i // len(scenarios)) for i in range(runs)]
    working: dict[int, tuple[Any, Path]] = {}
    number = 0
    while waiting or working:
        cluster.tend()
        while waiting and len(working) < at_once:
            scenario, own = waiting.pop(0)
            number += 1
            place = home / f"{number:03d}-{scenario.replace(' ', '-')}"
            answer = home / f"{number:03d}.json"

            def work(args: tuple[Any, ...] = (place, cluster, scenario, own, batch, expected),
                     answer: Path = answer) -> None:  # fmt: skip
                answer.write_text(json.dumps(asdict(one(*args))))

            worker = context.Process(target=work)
            worker.start()
            working[number] = (worker, answer)
        for key, (worker, answer) in list(working.items()):
            if worker.exitcode is None:
                continue
            del working[key]
            if worker.exitcode:
                raise SystemExit(f"run {key} ended with status {worker.exitcode}")
            reports.append(Report(**json.loads(answer.read_text())))
            print(row(key, reports[-1]), flush=True)
        time.sleep(0.1)
    return reports


def preload() -> None:
    """Import once what every campaign needs; campaigns are forked from here."""
    import qtoolkit.io.slurm  # noqa: F401

    import flows.steps  # noqa: F401
    from flows.session import opened  # noqa: F401
    from models.encoder import supported_elements
    from screening.builtin import builtin_hidden

    supported_elements("7net-l3i5")
    builtin_hidden()


def row(number: int, report: Report) -> str:
    """One line of the table."""
    end = "; ".join(report.problems) if report.problems else "as undisturbed"
    return (
        f"{number:4d}  {report.scenario:12s}  {report.disturbances:3d} disturbances, begun "
        f"{report.begun:2d} times, {report.calculations:2d} calculations, "
        f"{report.starts:3d} starts, {report.ends:3d} ends, {report.retried:3d} retried  "
        f"{report.wall_s:5.0f} s  {end}"
    )


def summary(reports: Sequence[Report]) -> str:
    """Counts by scenario, as a table."""
    lines = [
        "| scenario | runs | disturbances | calculations | started | completed | retried "
        "| problems |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups = {name: [r for r in reports if r.scenario == name] for name in SCENARIOS}
    for name, group in [*groups.items(), ("all", list(reports))]:
        if group:
            counts = [
                sum(getattr(r, what) for r in group)
                for what in ("disturbances", "calculations", "starts", "ends", "retried")
            ]
            problems = sum(len(r.problems) for r in group)
            cells = [name, len(group), *counts, problems]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=6, help="calculations per run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=3, help="runs side by side")
    parser.add_argument("--only", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--keep", type=Path, help="directory for what is left, for looking at")
    given = parser.parse_args()
    if reason := missing() or missing_ssh():
        raise SystemExit(reason)
    home = given.keep or Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    os.environ.setdefault("SCREEN_CACHE", str(home / "cache"))
    with Cluster(Path(tempfile.mkdtemp(prefix="screen-slurm-", dir="/tmp")), cpus=12) as cluster:
        os.environ.update(cluster.environment)
        reports = run_all(
            home, cluster, given.runs, given.seed, given.batch, given.at_once, given.only
        )
    print()
    print(summary(reports))
    for said in sorted({line for report in reports for line in report.said}):
        print(f"said: {said[:300]}")
    if given.keep is None:
        shutil.rmtree(home, ignore_errors=True)
    sys.exit(any(report.problems for report in reports))


if __name__ == "__main__":
    main()
