"""What the program says to bad input, as a table: command, message, exit status.

Every case is a process of its own, started by the command that a user would type, in a directory
that holds a finished campaign. Each must end with an exit status other than 0 and with one sentence
on standard error that names the culprit; the finished campaign must be as it was; and what was cut
short by a full disk or by Ctrl-C must go on afterwards, with no calculation done twice.

    python benchmarks/bad_input.py
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

from bad_input_cases import CASES, EARLIER, Case, NotPossibleError, Scene, finished_campaign

LONGEST = 450
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def message(self) -> str:
        """The last line of standard error."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""


Runner = Callable[[str, Path, Case], Outcome]
"""Runs a command in a directory; the case says under which circumstances."""


def run_process(command: str, place: Path, case: Case) -> Outcome:
    """Run a command as a user would, and interrupt it where the case says so."""
    program = Path(sys.executable).with_name("screen")
    log = place / "stderr.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [program, *shlex.split(command)],
            cwd=place,
            env={**os.environ, **case.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    if case.interrupt is not None and command == case.command:
        deadline = time.monotonic() + PATIENCE_S
        while not _is_at(process.pid, case.interrupt, log) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=PATIENCE_S)
    return Outcome(process.returncode, stdout, log.read_text())


def _is_at(pid: int, words: str, log: Path) -> bool:
    if words:
        return words in log.read_text()
    # The command itself has begun as soon as it reads its settings.
    return "pydantic" in Path(f"/proc/{pid}/maps").read_text()


def attempt(case: Case, place: Path, run: Runner) -> tuple[Outcome, list[str]]:
    """Set a case up in a copy of the earlier campaign's directory, run it, and judge it.

    Raises
    ------
    NotPossibleError
        The case cannot be set up on this machine.
    """
    with ExitStack() as undo:
        if case.setup is not None:
            case.setup(Scene(place, undo))
        outcome = run(case.command, place, case)
        faults = said_wrongly(case, outcome)
        if case.mended is not None or case.then is not None:
            faults += not_going_on(case, place, run)
    return outcome, faults + lost(place)


def said_wrongly(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with the message and the exit status."""
    faults = []
    message, everything = outcome.message, outcome.stdout + outcome.stderr
    if outcome.status != case.status:
        faults.append(f"exit status {outcome.status}, not {case.status}")
    if "Traceback" in everything or "should not happen" in everything:
        faults.append("a traceback")
    if not message.startswith("Error: " if case.status == 2 else "Interrupted."):
        faults.append("no message at the end")
    if outcome.stderr.count("Error: ") > 1:
        faults.append("several messages")
    if len(message) > LONGEST:
        faults.append(f"{len(message)} characters long")
    faults += [f"'{name}' is not named" for name in case.names if name not in message]
    return faults


def lost(place: Path) -> list[str]:
    """What is missing of the campaign that was there before."""
    ledger = place / "campaigns" / "ledger.sqlite"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as book:
            rows = book.execute("SELECT name, status FROM campaign").fetchall()
    except sqlite3.Error as error:
        return [f"the ledger does not open any more ({error})"]
    faults = [] if (EARLIER, "finished") in rows else ["the earlier campaign is gone"]
    files = ("validated.csv", "validated.json", "report.html", "campaign.yaml")
    home = place / "campaigns" / EARLIER
    faults += [f"{name} is gone" for name in files if not (home / name).stat().st_size]
    if (place / "screen-error.log").exists():
        faults.append("an unforeseen error")
    return faults


def not_going_on(case: Case, place: Path, run: Runner) -> list[str]:
    """What is wrong once the harm is undone and the user goes on."""
    if case.mended is not None:
        case.mended(place)
    command = case.then or case.command
    after = run(command, place, case)
    faults = [] if after.status == 0 else [f"`{command}` then said: {after.message}"]
    for log in place.glob("*/*/calculations/*/executions.log"):
        ends = [line.split()[1] for line in log.read_text().splitlines()].count("end")
        if ends != 1:
            faults.append(f"calculation {log.parent.name} was completed {ends} times")
    return faults


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases with this in their description")
    options = parser.parse_args()
    os.environ.pop("PREFECT_API_URL", None)
    wrong = skipped = tried = 0
    with tempfile.TemporaryDirectory(prefix="screen-bad-input-") as scratch:
        os.environ["SCREEN_CACHE"] = f"{scratch}/cache"
        template = Path(scratch) / "template"
        with Path(os.devnull).open("w") as null, contextlib.redirect_stderr(null):
            finished_campaign(template, EARLIER)
        print("| what is wrong | command | message | status |\n|---|---|---|---|")
        for number, case in enumerate(CASES):
            description = f"{case.group}: {case.what}"
            if options.only not in description:
                continue
            place = Path(scratch) / f"case-{number}"
            copytree(template, place, ignore=lambda *_: {".slots"})
            with Path(os.devnull).open("w") as null:
                try:
                    with contextlib.redirect_stderr(null):
                        outcome, faults = attempt(case, place, run_process)
                except NotPossibleError as reason:
                    skipped += 1
                    print(f"| {description} | `screen {case.command}` | not tried: {reason} | |")
                    continue
            tried += 1
            wrong += bool(faults)
            message = outcome.message.replace(f"{place}/", "").replace(str(place), ".")
            message = message.replace("|", "\\|")
            command = f"screen {case.command}".replace("|", "\\|")
            print(f"| {description} | `{command}` | {message} | {outcome.status} |", flush=True)
            for fault in faults:
                print(f"  WRONG: {fault}", flush=True)
    print(f"\n{tried} cases, {wrong} wrong, {skipped} not possible on this machine")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
