"""How many of the best hidden materials does a campaign find, beside chance and greed?

All usable rows of ``dielectric_tensors.parquet`` (both parts known) with at most 20 atoms. A tenth
of the compositions is known at the start; the tensors of the others hide behind the replay engine.
Three rounds of 20 calculations each, from the same start for every strategy:

    ucb      the campaign as it is (μ + 1.5σ)
    greedy   the campaign with μ alone
    random   60 candidates drawn from the same pool

Without physical estimates: the shipped network for Born charges has learned from this very table.
Run ``python benchmarks/replay.py --help``. A run that was stopped goes on where it was. With
``--profile`` one campaign is timed step by step instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd

from flows.campaign import campaign
from flows.config import build_campaign
from flows.session import open_ledger
from screening.acquisition import acquisition, top
from screening.errors import UserError
from screening.io import atomic_write
from screening.settings import AcquisitionSettings
from screening.tables import known_from_frame, read_candidates, read_known
from screening.tasks import get_task

DATA = Path(os.environ.get("SCREEN_DATA", "../shared/data"))
KNOWN_SHARE = 0.1
ROUNDS, BATCH = 3, 20


def usable_rows() -> pd.DataFrame:
    """Rows with both parts whose tensors can be read; says how many cannot."""
    frame = pd.read_parquet(DATA / "dielectric_tensors.parquet")
    frame = frame[frame["use_electronic"] & frame["use_ionic"] & (frame["nsites"] <= 20)]
    kept, refused = [], 0
    for position in range(len(frame)):
        try:
            known_from_frame(frame.iloc[[position]], "dielectric_tensors.parquet")
            kept.append(position)
        except UserError:
            refused += 1
    print(f"{len(kept)} usable rows; {refused} refused (tensor breaks the point group)")
    return frame.iloc[kept]


def prepare(frame: pd.DataFrame, seed: int, directory: Path) -> tuple[Path, Path]:
    """Tables of known and hidden materials; whole compositions go to one side."""
    formulas = sorted(frame["formula"].unique())
    share = round(KNOWN_SHARE * len(formulas))
    chosen = np.random.default_rng(seed).permutation(len(formulas))[:share]
    is_known = frame["formula"].isin([formulas[i] for i in chosen])
    # Where a material occurs in both sources, phonondb's record (PBEsol) is the hidden one.
    hidden = frame[~is_known].sort_values("source").drop_duplicates("material_id", keep="last")
    known_path, hidden_path = directory / "known.parquet", directory / "hidden.parquet"
    directory.mkdir(parents=True, exist_ok=True)
    for part, path in ((frame[is_known], known_path), (hidden, hidden_path)):
        if not path.exists():
            part.to_parquet(path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
    return known_path, hidden_path


def run_campaign(
    task: str, kind: str, seed: int, known: Path, hidden: Path, directory: Path, device: str
) -> str:
    """One campaign over the hidden pool; returns its name."""
    config = build_campaign(
        None,
        {
            "name": f"{task}-{kind}",
            "task": task,
            "rounds": ROUNDS,
            "batch": BATCH,
            "seed": seed,
            "functional": "PBEsol",
            "known": {"kind": "table", "path": str(known)},
            "candidates": {"kind": "table", "path": str(hidden)},
            "engine.answers": {"kind": "table", "path": str(hidden)},
            "acquisition.kind": kind,
            "model.device": device,
            "model.physics_effort": 0,
        },
    )
    campaign.fn(config, directory, None)
    return config.name


def score(
    task: str, name: str, seed: int, hidden: Path, directory: Path
) -> list[dict[str, object]]:
    """Hidden materials of the top 20 and top 1 % that a strategy found, and chance's share."""
    ledger = open_ledger(directory, None)
    first = ledger.rounds(name)[0]
    pool = set(ledger.predictions(first.id)["structure_hash"])
    truth = {
        k.material.structure_hash: float(
            get_task(task).figure_of_merit(np.asarray(k.material.band_gap), k.tensors.static)
        )
        for k in read_known(hidden)
        if k.material.structure_hash in pool
    }
    ranked = sorted(truth, key=lambda h: -truth[h])
    goals = {"top 20": set(ranked[:20]), "top 1 %": set(ranked[: max(1, round(len(ranked) / 100))])}
    calculations = ledger.calculations(name)
    found = set(calculations[calculations["verdict"] == "accepted"]["structure_hash"])
    hashes = sorted(truth)
    values = acquisition(np.zeros((2, len(hashes))), AcquisitionSettings(kind="random"), seed)
    drawn = {hashes[i] for i in top(values, ROUNDS * BATCH, seed)}
    kind = name.removeprefix(f"{task}-")
    rows = []
    for strategy, picks in ((kind, found), ("random", drawn)):
        rows.append(
            {
                "task": task,
                "strategy": strategy,
                "seed": seed,
                "pool": len(truth),
                "n_top_1_percent": len(goals["top 1 %"]),
                **{f"found of {goal}": len(wanted & picks) for goal, wanted in goals.items()},
                "best found / best hidden": max(truth[h] for h in picks) / truth[ranked[0]],
            }
        )
    return rows


def show(results: pd.DataFrame) -> None:
    """Mean ± standard deviation over seeds."""
    results = results.drop_duplicates(["task", "strategy", "seed"])
    print(f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    for (task, strategy), group in results.groupby(["task", "strategy"]):
        columns = [c for c in group if c.startswith(("found", "best"))]
        cells = [f"{c} {group[c].mean():.2f} ± {group[c].std(ddof=1):.2f}" for c in columns]
        size = f"pool {group['pool'].mean():.0f}, top 1 % = {group['n_top_1_percent'].mean():.0f}"
        print(f"{task:11s} {strategy:7s} {len(group)} seeds ({size}): " + "; ".join(cells))


def profile(frame: pd.DataFrame, directory: Path, device: str) -> None:
    """Wall and CPU time of one high-k campaign by step, and peak memory."""
    known, hidden = prepare(frame, 0, directory)
    wall, cpu = time.perf_counter(), time.process_time()
    name = run_campaign("high-k", "ucb", 0, known, hidden, directory / "profile", device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    total: dict[str, list[float]] = {}
    for entry in open_ledger(directory / "profile", None).rounds(name):
        for step, seconds in entry.seconds.items():
            sums = total.setdefault(step, [0.0, 0.0])
            sums[0] += seconds["wall_s"]
            sums[1] += seconds["cpu_s"]
    rest = [wall - sum(t[0] for t in total.values()), cpu - sum(t[1] for t in total.values())]
    for step, (w, c) in {**total, "pull and the rest": rest}.items():
        print(f"{step:20s} wall {w:7.1f} s   CPU {c:7.1f} s   {w / wall:4.0%} of the wall time")
    workers = children.ru_utime + children.ru_stime
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{'total':20s} wall {wall:7.1f} s   CPU {cpu:7.1f} s   workers {workers:.1f} s CPU")
    print(f"peak memory {peak:.2f} GiB; {len(read_candidates(hidden))} candidates offered")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path("campaigns/benchmark-replay"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tasks", nargs="+", default=["high-k", "anisotropy"])
    parser.add_argument("--strategies", nargs="+", default=["ucb", "greedy"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--profile", action="store_true", help="time one campaign step by step")
    parser.add_argument("--show", action="store_true", help="only print what is there")
    options = parser.parse_args()
    directory = options.directory.absolute()
    if options.profile:
        profile(usable_rows(), directory / "profile", options.device)
        return
    frame = None if options.show else usable_rows()
    for seed in options.seeds if frame is not None else []:
        home = directory / f"seed-{seed}"
        known, hidden = prepare(frame, seed, home)
        for task in options.tasks:
            for kind in options.strategies:
                done = home / f"{task}-{kind}.json"
                if not done.exists():
                    name = run_campaign(task, kind, seed, known, hidden, home, options.device)
                    atomic_write(done, json.dumps(score(task, name, seed, hidden, home)))
    rows = [
        row
        for path in sorted(directory.glob("seed-*/*-*.json"))
        for row in json.loads(path.read_text())
    ]
    show(pd.DataFrame(rows))


if __name__ == "__main__":
    main()
