"""An engine whose jobs misbehave in every way a real program does; imported by workers too."""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jobflow.core.flow import Flow
from jobflow.core.job import job

from dft.engine import CalculationOutput, settings_hash


def answer(**facts: Any) -> dict[str, Any]:
    common = {"converged": True, "functional": "PBE", "engine": "stub", "engine_version": "0"}
    return CalculationOutput(**(common | facts)).to_dict()


class StubEngine:
    """Runs one of the behaviours below."""

    name = "stub"
    elements = frozenset({"Mg", "O"})

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour

    def settings(self) -> dict[str, Any]:
        return {"behaviour": self.behaviour}

    @property
    def settings_hash(self) -> str:
        return settings_hash(self.name, self.settings())

    def flow(self, material: Any) -> Flow:
        step = act(self.behaviour)
        return Flow([step], output=step.output)


@job
def act(behaviour: str) -> Any:
    print(f"hello from {behaviour}", flush=True)
    return BEHAVIOURS[behaviour]()


def _exit() -> None:
    os._exit(3)


def _crash() -> None:
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _leave() -> None:
    sys.exit("bye")


def _garbage() -> dict[str, Any]:
    return {"epsilon": 3}


def _full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _deaf() -> None:
    """Ignore the polite end of the time limit."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(60)


def _program() -> None:
    """Start a program in a process group of its own, as mpirun does, and wait for it."""
    program = subprocess.Popen(["sleep", "60"], process_group=0)
    Path("program.pid").write_text(str(program.pid))
    program.wait()


def _burn() -> None:
    """Wait for a program that waits for another, as mpirun does; it computes and says how long."""
    code = (
        "import os, time\n"
        "while True:\n"
        "    end = time.process_time() + 0.02\n"
        "    while time.process_time() < end: pass\n"
        "    open('used', 'w').write(str(end)); os.replace('used', 'burned')\n"
    )
    place = Path("attempt-1")
    place.mkdir(exist_ok=True)
    shell = ["sh", "-c", '"$0" -c "$1" & wait', sys.executable, code]
    subprocess.Popen(shell, cwd=place, process_group=0).wait()


def _orphan() -> dict[str, Any]:
    """Leave a program behind."""
    program = subprocess.Popen(["sleep", "60"], process_group=0)
    Path("program.pid").write_text(str(program.pid))
    return answer()


def _meet() -> dict[str, Any]:
    """Wait until three calculations below one root are under way at the same moment."""
    meeting = Path.cwd().parent / ".meeting"
    meeting.mkdir(exist_ok=True)
    (meeting / str(os.getpid())).touch()
    give_up = time.monotonic() + 20
    while len(list(meeting.iterdir())) < 3:
        if time.monotonic() > give_up:
            raise RuntimeError("alone")
        time.sleep(0.01)
    return answer()


def _raises() -> dict[str, Any]:
    """An error of the engine's own."""
    raise RuntimeError("no bands today")


BEHAVIOURS = {
    "raises": _raises,
    "meet": _meet,
    "exit": _exit,
    "crash": _crash,
    "killed": _killed,
    "leave": _leave,
    "garbage": _garbage,
    "full": _full,
    "deaf": _deaf,
    "program": _program,
    "burn": _burn,
    "orphan": _orphan,
}
