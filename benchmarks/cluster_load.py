"""A thousand calculations through Slurm: what is fast enough, and what bounds it.

One campaign round of replayed calculations on a real Slurm of one node (see ``cluster.py``), by the
very steps of ``screen run``; training is left out. Before that, jobs that are held in the queue
measure how fast submission is by itself.

    python benchmarks/cluster_load.py --calculations 1000
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from chaos_campaign import predictions, preload
from cluster import Cluster, missing
from shared_ledger import timed

LEDGER = (
    "claim", "pending", "selections", "select", "record_result", "calculation", "finish_round",
    "record_predictions", "start_round", "event",
)  # fmt: skip


def crystals(count: int) -> list[Any]:
    """Known materials: NaCl as in nature, and a little larger, ``count`` times."""
    import dataclasses

    from screening.builtin import builtin_hidden
    from screening.material import Material

    first = builtin_hidden()[0]
    known = []
    for number in range(count):
        structure = first.material.structure.copy()
        structure.apply_strain(0.2 * number / count)
        material = Material(f"strained-{number}", structure, band_gap=4.0)
        known.append(dataclasses.replace(first, material=material))
    return known


def submission(home: Path, known: Sequence[Any], array: int) -> str:
    """How fast held jobs are submitted, one by one or in arrays."""
    from dft.calculation import Calculation, calculation_key
    from dft.replay import ReplayEngine
    from dft.settings import ReplaySettings
    from dft.slurm import SlurmLauncher
    from dft.slurm_settings import SlurmLauncherSettings

    engine = ReplayEngine(known, ReplaySettings())
    keys = [calculation_key(k.material.structure_hash, engine.settings_hash) for k in known]
    begun = time.perf_counter()
    for key, entry in zip(keys, known, strict=True):
        Calculation(home / key).prepare(engine, entry.material)
    prepared = time.perf_counter() - begun
    settings = SlurmLauncherSettings(max_jobs=10**6, array=array, options=("--hold",), poll_s=1)
    launcher = SlurmLauncher(home, settings)
    begun = time.perf_counter()
    launcher.submit(keys)
    taken = time.perf_counter() - begun
    begun = time.perf_counter()
    launcher.queue.jobs([a.name for a in launcher.allocations.open()])
    asked = time.perf_counter() - begun
    launcher.cancel(keys)
    return (
        f"| {len(keys)} | {array} | {1000 * prepared / len(keys):.1f} | {taken:.1f} | "
        f"{len(keys) / taken:.0f} | {1000 * asked:.0f} |"
    )


def campaign(home: Path, known: Sequence[Any], settings: dict[str, Any]) -> str:
    """All of it as one round; a summary."""
    from dft.replay import ReplayEngine
    from dft.slurm_queue import Queue
    from flows import steps
    from flows.config import build_campaign
    from flows.session import opened
    from results.ledger import Ledger

    spent: dict[str, list[float]] = {name: [] for name in LEDGER}
    squeues: list[float] = []
    submissions: list[float] = []
    for name in LEDGER:
        setattr(Ledger, name, timed(getattr(Ledger, name), spent[name]))
    Queue.jobs = timed(Queue.jobs, squeues)  # type: ignore[method-assign]
    Queue.submit = timed(Queue.submit, submissions)  # type: ignore[method-assign]
    values = {"name": "load", "rounds": 1, "batch": len(known), **settings}
    walls: dict[str, float] = {}
    cpu = time.process_time()
    with opened(build_campaign(None, values), home, None) as run:
        run.engine = ReplayEngine(known, run.config.engine)
        record = run.round(1)
        candidates = [entry.material for entry in known]
        run.ledger.record_training(record.id, "none", 0, "none", "none", {})
        run.ledger.record_predictions(record.id, predictions(candidates))
        for name, step in (("select", steps.select), ("calculate", steps.calculate),
                           ("gate", steps.gate)):  # fmt: skip
            begun = time.perf_counter()
            arguments = (SimpleNamespace(candidates=candidates),) if name == "select" else ()
            step(run, 1, *arguments)
            walls[name] = time.perf_counter() - begun
        run.ledger.finish_round(record.id)
    cpu = time.process_time() - cpu
    starts: Counter[str] = Counter()
    for log in home.glob("*/calculations/*/executions.log"):
        starts[log.parent.name] += log.read_text().count(" start ")
    ledger = sum(map(sum, spent.values()))
    calls = sum(map(len, spent.values()))
    minutes = walls["calculate"] / 60
    count = len(known)
    lines = [
        f"{count} calculations, {sum(starts.values())} executions, of {len(starts)} different ones",
        ", ".join(f"{name} {wall:.1f} s" for name, wall in walls.items()),
        f"calculated: {count / walls['calculate']:.1f} per second",
        f"sbatch: {len(submissions)} calls, {_mean_ms(submissions):.0f} ms each",
        f"squeue: {len(squeues)} calls, {len(squeues) / minutes:.1f} per minute, "
        f"{_mean_ms(squeues):.0f} ms each",
        f"ledger: {1000 * ledger / count:.1f} ms per calculation in {calls} calls, of which "
        + ", ".join(
            f"{name} {1000 * sum(s) / count:.2f}" for name, s in spent.items() if sum(s) > 0.01
        ),
        f"CPU time of the campaign's process: {1000 * cpu / count:.1f} ms per calculation",
    ]
    return "\n".join(lines)


def _mean_ms(seconds: Sequence[float]) -> float:
    return 1000 * sum(seconds) / max(len(seconds), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calculations", type=int, default=1000)
    parser.add_argument("--held", type=int, default=300, help="held jobs to submit")
    parser.add_argument("--poll-s", type=float, default=5.0)
    given = parser.parse_args()
    if reason := missing():
        raise SystemExit(reason)
    preload()
    place = Path(tempfile.mkdtemp(prefix="screen-slurm-", dir="/tmp"))
    with (
        tempfile.TemporaryDirectory(prefix="load-") as scratch,
        Cluster(place, cpus=8) as cluster,
    ):
        os.environ.update(cluster.environment)
        os.environ.setdefault("SCREEN_CACHE", f"{scratch}/cache")
        known = crystals(max(given.calculations, given.held))
        print("| held jobs | array | prepare (ms each) | submit (s) | jobs/s | squeue (ms) |")
        print("|---|---|---|---|---|---|")
        for array in (1, 100):
            home = Path(scratch) / f"held-{array}"
            print(submission(home, known[: given.held], array), flush=True)
        settings = {
            "launcher.kind": "slurm", "launcher.poll_s": given.poll_s, "launcher.settle_s": 2.0,
            "launcher.pack": 25, "launcher.at_once": 2, "launcher.array": 10,
            "launcher.max_jobs": 20, "launcher.time": 3600,
        }  # fmt: skip
        print(campaign(Path(scratch) / "campaigns", known[: given.calculations], settings))


if __name__ == "__main__":
    main()
