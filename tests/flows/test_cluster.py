"""Whole campaigns on a real Slurm, watched and cancelled from the command line."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("cluster")

EXAMPLES = Path(__file__).parents[2] / "examples"
SLURM = "--launcher slurm --set launcher.poll_s=0.5 --set launcher.settle_s=1"


def verdicts(ledger: Any) -> list[tuple[Any, ...]]:
    """What a campaign found, whatever ran its calculations."""
    table = ledger.calculations("high-k")
    columns = ["round", "rank", "key", "verdict", "detail", "electronic", "ionic"]
    return [tuple(map(str, row)) for row in table[columns].to_numpy()]


def test_three_rounds_are_those_of_this_machine(
    tmp_path: Path, screen: Any, quick: str, finished: Any, executed: Any, ledger_of: Any
) -> None:
    """In packs and arrays on a cluster, one by one here: the ledgers are the same."""
    packs = "--set launcher.pack=2 --set launcher.at_once=2 --set launcher.array=2"
    command = f"run --task high-k --rounds 3 --batch 4 {quick} {SLURM} {packs} --json"
    done = screen(tmp_path, command)
    assert done.status == 0, done.err
    place, reference = finished
    assert done.json["validated"] == reference.json["validated"]
    assert verdicts(ledger_of(tmp_path)) == verdicts(ledger_of(place))
    assert list(executed(tmp_path).values()) == [["start", "end"]] * 12
    summary = screen(tmp_path, "jobs high-k --json").json
    assert summary["open"] == [] and summary["finished"] == 12 and summary["core_hours"] > 0


@pytest.mark.skipif(shutil.which("abinit") is None, reason="no abinit on this machine")
def test_three_rounds_with_abinit(tmp_path: Path, screen: Any, quick: str) -> None:
    """Three light crystals, the coarsest settings; each round learns from the one before."""
    folder = tmp_path / "crystals"
    folder.mkdir()
    gaps = {"LiH": 3.0, "BN": 4.5, "SiC": 1.4}
    for name in gaps:
        shutil.copy(EXAMPLES / "crystals" / f"{name}.cif", folder)
    lines = [f"{name}.cif,{gap}\n" for name, gap in gaps.items()]
    (folder / "gaps.csv").write_text("".join(["file,band_gap\n", *lines]))
    done = screen(
        tmp_path,
        f"run --rounds 3 --batch 1 --candidates {folder} --band-gaps {folder / 'gaps.csv'} "
        f"--engine abinit --set engine.level=quick --set engine.k_spacing=1.2 "
        f"--set engine.ecut_ha=8 --set engine.max_attempts=1 {quick} {SLURM} --json",
    )
    assert done.status == 0, done.err
    assert done.json["calculations"] == 3 and "open" not in done.json["verdicts"]
    for directory in tmp_path.glob("campaigns/*/calculations/*"):
        if directory.is_dir() and len(directory.name) == 32:
            assert "5-response: done" in (directory / "run.log").read_text()


def start(place: Path, command: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, which can be killed."""
    program = str(Path(sys.executable).with_name("screen"))
    with (place / "flow.log").open("ab") as log:
        return subprocess.Popen(
            [program, *command.split()], cwd=place, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log,
        )  # fmt: skip


def wait(condition: Callable[[], object], seconds: float = 240.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.1)


def test_killed_watched_and_cancelled(
    tmp_path: Path, screen: Any, quick: str, executed: Any, cluster: Any
) -> None:
    command = f"run --rounds 1 --batch 2 {quick} {SLURM} --set engine.delay_s=20"
    flow = start(tmp_path, command)
    wait(lambda: len(executed(tmp_path)) == 2 or flow.poll() is not None)
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    jobs = screen(tmp_path, "jobs high-k")
    assert jobs.status == 0 and "2 open, 0 finished" in jobs.out, jobs.out
    assert jobs.out.count("running") == 2 and f"on {cluster.host}" in jobs.out, jobs.out
    kept, dropped = sorted(executed(tmp_path))
    wrong = screen(tmp_path, "cancel high-k nonsense")
    assert wrong.status == 2 and "no open calculation of 'high-k'" in wrong.message
    assert screen(tmp_path, f"cancel high-k {dropped[:12]}").status == 0
    resumed = screen(tmp_path, "resume high-k")
    assert resumed.status == 2 and dropped[:8] in resumed.message, resumed.err
    assert "screen cancel high-k --undo" in resumed.message
    assert executed(tmp_path)[kept] == ["start", "end"] and executed(tmp_path)[dropped] == ["start"]
    assert "cancelled by hand" in screen(tmp_path, "jobs high-k").out
    assert screen(tmp_path, f"cancel high-k {dropped[:12]} --refuse").status == 0
    done = screen(tmp_path, "resume high-k --json")
    assert done.status == 0, done.err
    assert done.json["verdicts"].get("engine error") == 1 and done.json["calculations"] == 2
    assert executed(tmp_path)[dropped] == ["start"], "refused, not calculated"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("--launcher condor", "there is no such launcher; choose local, slurm or jobflow-remote"),
        ("--launcher slurm --set launcher.time=soon", "is no time"),
        ("--launcher slurm --set launcher.queue=big", "'launcher.queue'"),
        ("--launcher slurm --set launcher.partition=nowhere", "launcher.partition"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, screen: Any, quick: str, settings: str, words: str
) -> None:
    done = screen(tmp_path, f"run --rounds 1 --batch 1 {quick} {settings}")
    assert done.status == 2 and words in done.message, done.err
    assert "Traceback" not in done.err


def test_a_campaign_may_move_to_the_cluster(
    tmp_path: Path, screen: Any, quick: str, ledger_of: Any, executed: Any
) -> None:
    """A partition that does not exist is corrected under the same name; nothing else may change."""
    command = f"run --rounds 1 --batch 2 {quick} --json"
    wrong = screen(tmp_path, f"{command} {SLURM} --set launcher.partition=nowhere")
    assert wrong.status == 2 and "launcher.partition" in wrong.message
    refused = screen(tmp_path, f"{command} {SLURM} --set seed=5")
    assert refused.status == 2 and "seed was 0 and is now 5" in refused.message
    done = screen(tmp_path, f"{command} {SLURM} --set launcher.pack=2")
    assert done.status == 0, done.err
    assert ledger_of(tmp_path).campaign("high-k").config["launcher"]["pack"] == 2
    assert list(executed(tmp_path).values()) == [["start", "end"]] * 2


def test_check_names_the_cluster(tmp_path: Path, screen: Any) -> None:
    findings = screen(tmp_path, "dft check --json").json
    slurm = {f["what"]: f for f in findings if f["subject"] == "slurm"}
    assert slurm["programs"]["works"] and slurm["queue"]["works"]
    assert "normal" in slurm["queue"]["detail"] and "none" in slurm["accounting"]["detail"]
