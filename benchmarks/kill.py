"""kill -9 at random moments of a campaign: is anything lost, is anything done twice?

A campaign on the built-in data runs once undisturbed. Then others like it are killed again and
again and resumed each time, until they are through. Half of the moments are uniform over what is
left of a campaign; the other half are uniform over the steps, because selecting and gating take
hundredths of a second and would hardly ever be hit. Half of the kills end the main process alone,
the other half everything at once, the workers and their calculations included, as when a machine
dies.

Compared with the undisturbed campaign, exactly: picks and their order, acquisition numbers, all
predictions, verdicts, tensors, the files for the user. Executions are counted in the logs that the
engine itself writes into each calculation's directory, never in the ledger: one per calculation,
and one more for each time that a dying machine cut it before its result was stored.

Every campaign has a feature cache of its own, empty at the start, so that encoding and training are
killed as well.

    python benchmarks/kill.py --kills 20
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

NAME = "disturbed"
SETTINGS = (
    "model.encoder=7net-0", "model.min_steps=60", "model.max_steps=60", "engine.delay_s=1",
)  # fmt: skip
ROUND_STEPS = ("train", "predict", "select", "calculate", "gate", "record")
STEPS = ("start", *ROUND_STEPS, "conclude")
"""What a process goes through; "start" is everything before the rounds, imports included."""
EXECUTION = "execution"
"""To aim at: a calculation in the middle of its execution."""
KILLS_PER_CAMPAIGN = 6
PATIENCE_S = 600.0
PULLED = "materials known"
"""In the note that a process prints when the rounds begin, all imported and the sources read."""
MARK = "SCREEN_BENCHMARK_MARK"
"""Environment variable by which a campaign's processes, workers included, are recognised."""


@dataclass
class Moment:
    """What a campaign is doing."""

    step: str = "start"
    round: int = 0

    def __str__(self) -> str:
        return f"{self.step} (round {self.round})" if self.round else self.step


@dataclass
class Kill:
    """One kill and what it left.

    Attributes
    ----------
    results
        Calculations that had a result.
    cut
        Calculations that were under way and had none: how often each had been started and how
        often ended until then.
    """

    campaign: int
    aim: str
    after_s: float
    hit: Moment
    everything: bool
    results: int
    cut: dict[str, tuple[int, int]]

    def row(self, number: int) -> str:
        """A line of the table."""
        scope = "everything" if self.everything else "main only"
        left = f"{self.results:2d} results on disk"
        left += f", {len(self.cut)} cut" if self.cut else ""
        return (
            f"{number:4d}  {self.campaign:8d}  {self.after_s:6.2f} s ({self.aim:7s})  "
            f"{self.hit!s:19s}  {scope:10s}  {left}"
        )


class Place:
    """One campaign in a directory of its own, with the processes that belong to it."""

    def __init__(self, home: Path, rounds: int, batch: int, settings: Sequence[str]) -> None:
        self.home = home
        self.mark = uuid.uuid4().hex
        self.rounds = rounds
        self._run = ["run", "--name", NAME, "--rounds", str(rounds), "--batch", str(batch)]
        self._run += [word for setting in settings for word in ("--set", setting)]
        home.mkdir(parents=True)

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.home / "campaigns" / "ledger.sqlite"

    @property
    def files(self) -> Path:
        """Directory of the campaign."""
        return self.home / "campaigns" / NAME

    def start(self) -> subprocess.Popen[bytes]:
        """Begin the campaign, or go on with it if the ledger knows it."""
        words = self._run if self.recorded(self.ledger) is None else ["resume", NAME]
        environment = {**os.environ, MARK: self.mark, "SCREEN_CACHE": str(self.home / "cache")}
        environment.pop("PREFECT_API_URL", None)
        with (self.home / "stderr.log").open("w") as log:
            return subprocess.Popen(
                [str(Path(sys.executable).with_name("screen")), *words, "--json"],
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def said(self) -> str:
        """What the process started last has printed to standard error."""
        return (self.home / "stderr.log").read_text()

    def finish(self) -> float:
        """Run to the end undisturbed; returns the wall time in seconds."""
        begun = time.monotonic()
        if status := self.start().wait(PATIENCE_S):
            raise SystemExit(f"a campaign ended with status {status}: {self.said()[-600:]}")
        return time.monotonic() - begun

    def processes(self) -> list[int]:
        """Ids of all living processes of this campaign."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if wanted in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def kill(self, process: subprocess.Popen[bytes], everything: bool) -> bool:
        """kill -9; False if the process had ended by itself before."""
        if process.poll() is None and everything:
            # Stopped first: on a machine that dies nobody sees the others die.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in self.processes():
                    os.kill(pid, number)
        process.kill()
        process.wait()
        while everything and self.processes():
            time.sleep(0.01)
        return process.returncode == -signal.SIGKILL

    def moment(self) -> Moment:
        """What the process started last is doing."""
        return (self.recorded(self.ledger) if PULLED in self.said() else None) or Moment()

    def is_at(self, step: str) -> bool:
        """Whether the process started last is in this step."""
        return bool(self.cut()) if step == EXECUTION else self.moment().step == step

    def recorded(self, ledger: Path) -> Moment | None:
        """The step that comes next by the ledger; None if it does not have the campaign.

        A step's time is noted at its end, which makes it the mark of a step that is done.
        """
        query = (
            "SELECT round.number, round.seconds FROM campaign LEFT JOIN round "
            "ON round.campaign_id = campaign.id WHERE campaign.name = ? "
            "ORDER BY round.number DESC LIMIT 1"
        )
        try:
            with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as book:
                found = book.execute(query, (NAME,)).fetchone()
        except sqlite3.Error:
            return None
        if found is None:
            return None
        number, seconds = found[0] or 0, json.loads(found[1] or '{"record": 0}')
        if "record" not in seconds:
            return Moment(next(step for step in ROUND_STEPS if step not in seconds), number)
        return Moment("train", number + 1) if number < self.rounds else Moment("conclude")

    def autopsy(self) -> Moment:
        """What the campaign was doing when it was killed, read from a copy of its ledger.

        A copy, because whoever opens the file itself repairs it, and that is the next run's task.
        """
        with tempfile.TemporaryDirectory() as scratch:
            for path in self.ledger.parent.glob("ledger.sqlite*"):
                shutil.copy(path, scratch)
            found = self.recorded(Path(scratch) / self.ledger.name)
        return (found if PULLED in self.said() else None) or Moment()

    def executions(self) -> dict[str, list[str]]:
        """By calculation, "start" and "end" of every execution as the engine logged them."""
        logs = sorted(self.files.glob("calculations/*/executions.log"))
        return {
            log.parent.name: [line.split()[1] for line in log.read_text().splitlines()]
            for log in logs
        }

    def cut(self) -> dict[str, tuple[int, int]]:
        """Starts and ends of the calculations that were begun and have no result."""
        directory = self.files / "calculations"
        return {
            key: (events.count("start"), events.count("end"))
            for key, events in self.executions().items()
            if not (directory / key / "result.json").exists()
        }


@dataclass
class Summary:
    """What came of all kills."""

    kills: list[Kill] = field(default_factory=list)
    campaigns: int = 0
    calculations: int = 0
    completed: int = 0
    cut: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        alone = sum(not kill.everything for kill in self.kills)
        steps = {kill.hit.step for kill in self.kills}
        return (
            f"{len(self.kills)} kills ({alone} main process only, {len(self.kills) - alone} "
            f"everything) in {self.campaigns} campaigns, steps hit: "
            f"{', '.join(step for step in STEPS if step in steps)}; {self.calculations} "
            f"calculations, {self.completed} executions completed, {self.cut} cut and retried; "
            + (f"{len(self.problems)} PROBLEMS" if self.problems else "all as undisturbed")
        )


def outcome(place: Place) -> dict[str, Any]:
    """Everything that must not depend on being killed."""
    from results.ledger import Ledger

    ledger = Ledger(place.ledger)
    picks = ledger.calculations(NAME).drop(columns=["cpu_s", "wall_s", "directory"])
    rounds = ledger.rounds(NAME)
    record = ledger.campaign(NAME)
    files = [place.files / name for name in ("validated.csv", "validated.json")]
    files += [place.files / f"round-{r.number}" / "selected.csv" for r in rounds]
    return {
        "status": None if record is None else record.status,
        "picks, order, verdicts, tensors": picks.to_json(double_precision=15),
        "rounds": [[r.number, r.status, r.n_training, r.training_hash] for r in rounds],
        "predictions": [ledger.predictions(r.id).to_json(double_precision=15) for r in rounds],
        "members": [_members(place.files / f"round-{r.number}") for r in rounds],
        "files": [path.read_text() for path in files],
        "report": (place.files / "report.html").exists(),
    }


def _members(directory: Path) -> str:
    import pandas as pd

    return str(pd.read_parquet(directory / "predictions.parquet").to_json(double_precision=15))


def check(place: Place, kills: Sequence[Kill], expected: dict[str, Any]) -> list[str]:
    """What is wrong with a campaign that was killed and resumed to its end."""
    found = outcome(place)
    problems = [f"other {name}" for name in expected if found[name] != expected[name]]
    for key, events in place.executions().items():
        # The last cut says how often it had been started, and ended without a stored result.
        starts, ends = max((kill.cut[key] for kill in kills if key in kill.cut), default=(0, 0))
        if events.count("start") != 1 + starts:
            problems.append(f"{key} was started {events.count('start')} times, cut {starts} times")
        if events.count("end") != 1 + ends:
            problems.append(f"{key} was completed {events.count('end')} times")
    return problems


def draw(place: Place, times: dict[str, float], rng: random.Random, aim: str) -> Iterator[float]:
    """Pauses in seconds up to the moment to kill at."""
    if aim == "time":
        last = place.recorded(place.ledger)
        left = 1.0 if last is None or not last.round else 1 - (last.round - 1) / place.rounds
        yield rng.uniform(0, times["start"] + (times["all"] - times["start"]) * left)
        return
    step = rng.choice((*STEPS, EXECUTION))
    while step != "start" and not place.is_at(step):
        yield 0.003
    yield rng.uniform(0, times[step])


def durations(place: Place, wall_s: float) -> dict[str, float]:
    """Longest time of each step in seconds, and of the whole campaign."""
    from results.ledger import Ledger

    rounds = Ledger(place.ledger).rounds(NAME)
    longest = {step: max(r.seconds[step]["wall_s"] for r in rounds) for step in ROUND_STEPS}
    steps_s = sum(r.seconds[step]["wall_s"] for r in rounds for step in ROUND_STEPS)
    logs = [log.read_text().split() for log in place.files.glob("calculations/*/executions.log")]
    spans = [datetime.fromisoformat(w[3]) - datetime.fromisoformat(w[0]) for w in logs]
    longest_s = max(span.total_seconds() for span in spans)
    # What is no step: imports and reading the sources, then closing the campaign.
    rest = max(wall_s - steps_s, 0.1)
    return {
        **longest, "start": 0.8 * rest, "conclude": 0.2 * rest, "all": wall_s,
        EXECUTION: longest_s,
    }  # fmt: skip


def disturb(
    place: Place, number: int, times: dict[str, float], rng: random.Random, wanted: int, nth: int
) -> Iterator[Kill]:
    """Kill and resume one campaign up to ``wanted`` times; ends when it is through."""
    for i in range(nth, nth + wanted):
        # All four combinations in turn.
        aim, everything = ("time", "step")[i % 2], i // 2 % 2 == 1
        begun = time.monotonic()
        process = place.start()
        for pause in draw(place, times, rng, aim):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(pause)
                break
        after_s = time.monotonic() - begun
        killed = place.kill(process, everything)
        if "Traceback" in place.said():
            raise SystemExit(f"a traceback was shown: {place.said()[-2000:]}")
        if not killed:
            return
        results = len(list(place.files.glob("calculations/*/result.json")))
        cut = place.cut() if everything else {}
        yield Kill(number, aim, after_s, place.autopsy(), everything, results, cut)


def run(
    home: Path, kills: int, seed: int, rounds: int = 3, batch: int = 4,
    settings: Sequence[str] = SETTINGS,
) -> Summary:  # fmt: skip
    """Kill campaigns below ``home`` until there have been ``kills`` kills, and print what came."""
    rng = random.Random(seed)
    reference = Place(home / "undisturbed", rounds, batch, settings)
    wall_s = reference.finish()
    expected, times = outcome(reference), durations(reference, wall_s)
    print(f"undisturbed: {wall_s:.1f} s, {len(reference.executions())} calculations\n")
    print(" no.  campaign  after    (aim)     step hit             scope       left")
    summary = Summary(problems=check(reference, [], expected))
    while len(summary.kills) < kills:
        summary.campaigns += 1
        place = Place(home / f"campaign-{summary.campaigns}", rounds, batch, settings)
        wanted = min(KILLS_PER_CAMPAIGN, kills - len(summary.kills))
        own = []
        for kill in disturb(place, summary.campaigns, times, rng, wanted, len(summary.kills)):
            own.append(kill)
            summary.kills.append(kill)
            print(kill.row(len(summary.kills)), flush=True)
        place.finish()
        problems = check(place, own, expected)
        events = place.executions()
        completed = sum(lines.count("end") for lines in events.values())
        cut = sum(lines.count("start") for lines in events.values()) - completed
        summary.calculations += len(events)
        summary.completed += completed
        summary.cut += cut
        summary.problems += [f"campaign {summary.campaigns}: {text}" for text in problems]
        result = "; ".join(problems) if problems else "same as undisturbed"
        print(f"      campaign {summary.campaigns} resumed to its end: {result}; "
              f"{completed} executions for {len(events)} calculations, {cut} cut and retried",
              flush=True)  # fmt: skip
    print(f"\n{summary}")
    for problem in summary.problems:
        print(f"  {problem}")
    return summary


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="keep all files in this new directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="screen-kill-") as scratch:
        home = (options.keep or Path(scratch) / "kill").absolute()
        summary = run(home, options.kills, options.seed, options.rounds, options.batch)
    raise SystemExit(1 if summary.problems else 0)


if __name__ == "__main__":
    main()
