"""Ten campaigns at the same time on one ledger, on PostgreSQL and on SQLite.

Each campaign is a process of its own that wants the same crystals calculated as all others, in
another order, round after round, by the very steps of ``screen run`` (training is left out). On
PostgreSQL each stands for another machine: where this is root, what it writes lies on a file system
that only it sees, so that nothing but the ledger says who calculates what. On SQLite all share one
machine.

Counted: executions per calculation (the engine's own log), errors of the database, what a
calculation costs in time with the ledger.

    python benchmarks/shared_ledger.py --campaigns 10 --batch 12
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import multiprocessing
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_campaign import predictions, preload
from cluster import free_ports

PATIENCE_S = 600.0
CLONE_NEWNS = 0x20000


@dataclass
class Outcome:
    """What came of all campaigns on one ledger."""

    kind: str
    campaigns: int
    wall_s: float = 0.0
    calculations: int = 0
    executions: int = 0
    ledger_calls: int = 0
    ledger_s: float = 0.0
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        each = 1000 * self.ledger_s / max(self.ledger_calls, 1)
        return (
            f"{self.kind:10s} {self.campaigns} campaigns, {self.calculations} calculations, "
            f"{self.executions} executions, {self.wall_s:.0f} s; {self.ledger_calls} calls of the "
            f"ledger, {each:.1f} ms each, slowest {self.slowest_s:.2f} s; "
            f"{len(self.problems)} problems {'; '.join(self.problems)}"
        )


def campaign(
    home: Path, ledger: str, number: int, rounds: int, batch: int, own_machine: bool
) -> dict[str, Any]:
    """One campaign from its beginning to its end; what it cost with the ledger."""
    from types import SimpleNamespace

    from flows import steps
    from flows.config import build_campaign
    from flows.session import opened
    from results.ledger import Ledger
    from screening.builtin import builtin_hidden

    if own_machine:
        socket.gethostname = lambda: f"machine-{number}"
        own_machine = own_disk(home / "machine")
    spent: list[float] = []
    for name in ("claim", "pending", "selections", "select", "record_result", "calculation",
                 "finish_round", "record_predictions", "start_round", "event"):  # fmt: skip
        setattr(Ledger, name, timed(getattr(Ledger, name), spent))
    candidates = [known.material for known in builtin_hidden()]
    rng = random.Random(number)
    directory = home / "machine" / "campaigns"
    values = {"name": f"campaign-{number}", "rounds": rounds, "batch": batch,
              "engine.delay_s": 0.1, "launcher.max_parallel": 1}  # fmt: skip
    with opened(build_campaign(None, values), directory, ledger) as run:
        for turn in range(1, rounds + 1):
            # The same for all campaigns, in an order of its own.
            chosen = candidates[(turn - 1) * batch : turn * batch]
            rng.shuffle(chosen)
            record = run.round(turn)
            run.ledger.record_training(record.id, "none", 0, "none", "none", {})
            run.ledger.record_predictions(record.id, predictions(chosen))
            steps.select(run, turn, SimpleNamespace(candidates=chosen))
            steps.calculate(run, turn)
            steps.gate(run, turn)
            run.ledger.finish_round(record.id)
    starts = executions(directory) if own_machine else None
    return {"calls": len(spent), "seconds": sum(spent), "slowest": max(spent), "starts": starts}


def own_disk(place: Path) -> bool:
    """Have this process, and what it starts, see an empty file system at ``place``, if allowed.

    Returns whether it was.
    """
    place.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0 or ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        return False
    for command in ("mount --make-rprivate /", f"mount -t tmpfs tmpfs {place}"):
        subprocess.run(command.split(), check=True)
    return True


def executions(directory: Path) -> Counter[str]:
    """How often each calculation was started, as the engine logged it."""
    starts: Counter[str] = Counter()
    for log in directory.glob("*/calculations/*/executions.log"):
        starts[log.parent.name] += log.read_text().count(" start ")
    return starts


def timed(method: Any, spent: list[float]) -> Any:
    """A method whose calls are timed."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - begun)

    return call


def run(home: Path, kind: str, ledger: str, campaigns: int, rounds: int, batch: int) -> Outcome:
    """All campaigns at the same time."""
    outcome = Outcome(kind, campaigns)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    home.mkdir(parents=True, exist_ok=True)

    def work(number: int) -> None:
        # What campaigns tell people.
        log = os.open(home / f"{number}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            answers.put(campaign(home, ledger, number, rounds, batch, kind == "postgresql"))
        except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
            answers.put(traceback.format_exc().strip().splitlines()[-1])

    begun = time.monotonic()
    workers = [context.Process(target=work, args=(n,)) for n in range(campaigns)]
    for worker in workers:
        worker.start()
    starts: Counter[str] = Counter()
    shared = False
    for answer in [answers.get() for _ in workers]:
        if isinstance(answer, str):
            outcome.problems.append(answer)
            continue
        shared = shared or answer["starts"] is None
        starts += Counter(answer["starts"] or {})
        outcome.ledger_calls += answer["calls"]
        outcome.ledger_s += answer["seconds"]
        outcome.slowest_s = max(outcome.slowest_s, answer["slowest"])
    for worker in workers:
        worker.join(PATIENCE_S)
    outcome.wall_s = time.monotonic() - begun
    if shared:
        starts = executions(home / "machine" / "campaigns")
    outcome.calculations, outcome.executions = len(starts), sum(starts.values())
    outcome.problems += [f"{key} executed {n} times" for key, n in starts.items() if n != 1]
    if not outcome.problems:
        outcome.problems += different(ledger, campaigns)
    return outcome


def different(ledger: str, campaigns: int) -> list[str]:
    """Campaigns that did not come to the same verdicts as the first."""
    from results.ledger import Ledger

    book = Ledger(ledger)
    found = []
    for number in range(campaigns):
        table = book.calculations(f"campaign-{number}").sort_values("key").reset_index(drop=True)
        found.append(table[["key", "verdict", "detail", "status"]].to_json())
    return [f"campaign-{n} ended otherwise" for n, text in enumerate(found) if text != found[0]]


@contextmanager
def postgresql() -> Iterator[str]:
    """URL of a private server; only what is needed to measure, the tests have a better one."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise SystemExit("no PostgreSQL: apt-get install postgresql")
    home = Path(tempfile.mkdtemp(prefix="screen-pg-", dir="/tmp"))
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        shutil.chown(home, account.pw_uid, account.pw_gid)
    initdb = [programs[-1] / "initdb", "-D", "data", "-U", "screen", "-E", "UTF8", "--locale=C"]
    subprocess.run(initdb, cwd=home, check=True, capture_output=True, **user)
    port = free_ports(1)[0]
    options = f"-D data -p {port} -h 127.0.0.1 -c unix_socket_directories="
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [programs[-1] / "postgres", *options.split()], cwd=home, stdout=log, stderr=log, **user
        )
    try:
        time.sleep(2)
        yield f"postgresql://screen@127.0.0.1:{port}/postgres"
        text = (home / "log").read_text()
        print(f"PostgreSQL's log: {text.count('deadlock')} deadlocks, "
              f"{text.count('could not serialize')} serialization failures, "
              f"{text.count('ERROR')} errors")  # fmt: skip
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--campaigns", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=12)
    given = parser.parse_args()
    preload()
    sizes = (given.campaigns, given.rounds, given.batch)
    problems = 0
    with tempfile.TemporaryDirectory(prefix="shared-") as scratch:
        os.environ.setdefault("SCREEN_CACHE", f"{scratch}/cache")
        home = Path(scratch)
        with postgresql() as url:
            outcome = run(home / "postgresql", "postgresql", url, *sizes)
        print(outcome, flush=True)
        problems += len(outcome.problems)
        outcome = run(home / "sqlite", "sqlite", str(home / "ledger.sqlite"), *sizes)
        print(outcome)
        problems += len(outcome.problems)
    raise SystemExit(problems > 0)


if __name__ == "__main__":
    main()
