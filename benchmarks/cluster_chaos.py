"""What can go wrong on a cluster, done on purpose: is anything lost, is anything done twice?

Campaigns on a real Slurm (see ``cluster.py``) are disturbed in one way each, at random moments,
and run again until they are through; each starts with an empty ledger, picks the same crystals and
is compared with an undisturbed one. What is disturbed is the part that uses the cluster: a round's
claims, submissions, watching, verdicts and ledger, as ``screen run`` does them; training, which
``kill.py`` covers, is left out, and the picks are fixed. The ways are in ``disturbances.py``.

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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaos_campaign import PATIENCE_S, Place, Report, Run, preload
from cluster import Cluster, missing
from disturbances import KILLING, SCENARIOS
from sshd import Sshd
from sshd import missing as missing_ssh

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
