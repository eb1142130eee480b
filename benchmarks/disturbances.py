"""What can go wrong on a cluster, each thing in one function that does it to a running campaign.

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
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos_campaign import PATIENCE_S, Place, Run


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
