"""A Slurm that keeps accounts, as clusters do: limits, and jobs that have left the queue."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dft.calculation import State
from screening.errors import UserError
from screening.material import KnownMaterial

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def accounts() -> Iterator[Any]:
    """A cluster with accounts: chem, one (a job at a time), short (of a minute)."""
    from cluster import Cluster, missing

    if reason := missing(accounts=True):
        pytest.skip(reason)
    home = Path(tempfile.mkdtemp(prefix="screen-slurm-", dir="/tmp"))
    with Cluster(home, accounts=True) as started:
        started.account("chem")
        started.account("one", "GrpSubmitJobs=1")
        started.account("short", "MaxWall=1")
        yield started
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True)
def at_this_cluster(accounts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, accounts.environment[name])


def test_an_account_over_its_limit(bench: Any, accounts: Any, many: list[KnownMaterial]) -> None:
    keys = bench.replay(many[:2])
    launcher = bench.slurm(account="one", max_jobs=2, settle_s=3)
    colleague = accounts.ask("sbatch --parsable -A one -o none --wrap 'sleep 600'").strip()
    with pytest.raises(UserError, match=r"takes no further job .*launcher\.account") as caught:
        launcher.submit(keys)
        bench.wait(lambda: launcher.poll(keys) and False, PATIENCE_S)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))
    accounts.ask(f"scancel {colleague}")
    bench.wait(lambda: not accounts.ask("squeue -h -t PD,R,CG"), PATIENCE_S)
    launcher.submit(keys)
    assert launcher.poll(keys)[keys[1]] is State.PENDING, "waits for our own job to end"
    bench.finish(launcher, keys)
    assert all(bench.names(key) == ["start", "end"] for key in keys)


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (
            "nobody",
            r"Invalid account .*launcher\.account, launcher\.partition \(now account: nobody\)",
        ),
        # Slurm takes this one, and would let it wait for ever.
        ("short", r"AssocMaxWallDurationPerJobLimit.*launcher\.time \(now time: 600"),
    ],
)
def test_what_an_account_may_not_do(
    bench: Any, accounts: Any, many: list[KnownMaterial], account: str, words: str
) -> None:
    (key,) = bench.replay(many[:1])
    launcher = bench.slurm(account=account)
    with pytest.raises(UserError, match=words) as caught:
        launcher.submit([key])
        bench.wait(lambda: launcher.poll([key]) and False, PATIENCE_S)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))
    bench.wait(lambda: not accounts.ask("squeue -h -t PD,R,CG"), PATIENCE_S)
    corrected = bench.slurm(account="chem")
    corrected.submit([key])
    bench.finish(corrected, [key])
    assert bench.names(key) == ["start", "end"]


def test_what_left_the_queue_is_looked_up_in_the_accounts(
    bench: Any, accounts: Any, many: list[KnownMaterial]
) -> None:
    """The controller has forgotten its jobs; nobody was watching when they ended."""
    keys = bench.replay(many[:3], delay_s=2.0)
    lost, cancelled, waiting = keys
    launcher = bench.slurm(account="chem")
    launcher.submit([lost, cancelled])
    later = bench.slurm(account="chem", options=("--begin=now+1hour",))
    later.submit([waiting])
    bench.wait(lambda: all(bench.names(key) for key in (lost, cancelled)), PATIENCE_S)
    jobs = {}
    for key in keys:
        jobs[key] = re.search(r"job (\d+)", launcher.look([key])[key].where)[1]
    accounts.ask(f"scancel {jobs[cancelled]} {jobs[waiting]}")
    accounts.fail_node()

    def states() -> list[str]:
        out = accounts.ask(f"sacct -n -P -X -o State -j {','.join(sorted(jobs.values()))}")
        return sorted(line.split()[0] for line in out.splitlines())

    bench.wait(lambda: states() == ["CANCELLED", "CANCELLED", "NODE_FAIL"], PATIENCE_S)
    accounts.end("slurmctld")
    accounts.start("slurmctld", "-c")
    assert accounts.ask("squeue -h -t all") == ""
    accounts.wait(
        lambda: set(launcher.poll(keys).values()) == {State.DONE, State.LOST}, PATIENCE_S
    )  # fmt: skip
    ends = launcher.poll(keys)
    assert [key for key in keys if ends[key] is State.LOST] == [cancelled, waiting]
    said = bench.calculation(waiting).cancelled_path.read_text()
    assert f"job {jobs[waiting]} was cancelled" in said
    assert [bench.names(key) for key in keys] == [["start", "start", "end"], ["start"], []]
