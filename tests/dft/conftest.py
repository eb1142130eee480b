"""Real crystals of four crystal systems with their tensors, and a place to calculate in."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dft.local
from dft.calculation import Calculation, State, calculation_key
from dft.engine import CalculationOutput, Engine
from dft.execution import preload
from dft.local import LocalLauncher
from dft.replay import ReplayEngine
from dft.settings import LocalLauncherSettings, ReplaySettings
from dft.worker import attend
from dft.worker import main as worker_main
from screening.material import KnownMaterial, Material
from screening.tensors import DielectricTensors


def _known(name: str, structure: Any, electronic: Any, ionic: Any, gap: float) -> KnownMaterial:
    charges = np.zeros((len(structure), 3, 3))
    charges[0], charges[1] = np.eye(3), -np.eye(3)
    extras = {"born_charges": charges.tolist(), "min_optical_thz": 3.0}
    material = Material(name, structure, band_gap=gap)
    tensors = DielectricTensors(np.array(electronic, float), np.array(ionic, float))
    return KnownMaterial(material, tensors, "PBE", extras)


@pytest.fixture(scope="session")
def crystals() -> dict[str, KnownMaterial]:
    """One crystal per system; the Born charges and frequencies are made up."""
    from pymatgen.core import Lattice, Structure

    # Experimental structure; ε of MgO from ABINIT (PBE, 25 Ha, 6x6x6): 3.19 and 9.96.
    rock_salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.212), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()
    # Levien, Prewitt and Weidner, Am. Mineral. 65 (1980) 920; ε∞ = n² with n = 1.544 and 1.553,
    # static 4.43 and 4.64 (CRC Handbook).
    quartz = Structure.from_spacegroup(
        "P3_221",
        Lattice.hexagonal(4.9137, 5.4047),
        ["Si", "O"],
        [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]],
    )
    # Howard, Hill and Reichert, Acta Cryst. B44 (1988) 116; tensors of the usual size.
    baddeleyite = Structure.from_spacegroup(
        "P2_1/c",
        Lattice.monoclinic(5.1505, 5.2116, 5.3173, 99.23),
        ["Zr", "O", "O"],
        [[0.2754, 0.0395, 0.2083], [0.07, 0.3317, 0.3447], [0.4496, 0.7569, 0.4792]],
    )
    # mp-29443, structure and PBE tensors from Petousis et al., Sci. Data 4 (2017) 160134.
    iodide = Structure(
        [
            [5.018442, 0.155997, 1.369553],
            [1.103832, 7.560357, 1.236639],
            [0.158342, 0.057517, 7.564401],
        ],
        ["P", "P", "I", "I", "I", "I"],
        [
            [0.58394, 0.127903, 0.967059],
            [0.41606, 0.872097, 0.032941],
            [0.443106, 0.22089, 0.672068],
            [0.556894, 0.77911, 0.327932],
            [0.20143, 0.289992, 0.192245],
            [0.79857, 0.710008, 0.807755],
        ],
    )
    return {
        "cubic": _known("MgO", rock_salt, np.eye(3) * 3.19, np.eye(3) * 6.77, 4.8),
        "trigonal": _known(
            "SiO2", quartz, np.diag([2.385, 2.385, 2.413]), np.diag([2.045, 2.045, 2.227]), 6.0
        ),
        "monoclinic": _known(
            "ZrO2",
            baddeleyite,
            [[5.3, 0, 0.2], [0, 5.4, 0], [0.2, 0, 5.0]],
            [[17.0, 0, 2.0], [0, 15.0, 0], [2.0, 0, 11.0]],
            3.6,
        ),
        "triclinic": _known(
            "mp-29443",
            iodide,
            [
                [3.02407277, -0.378425685, -0.1978128],
                [-0.378425685, 3.6880849, -0.09808178],
                [-0.1978128, -0.09808178, 4.65777318],
            ],
            [
                [0.09199915, -0.0690432, -0.18053136],
                [-0.0690432, 0.4925744, 0.0693578],
                [-0.18053136, 0.0693578, 0.78313358],
            ],
            1.93,
        ),
    }


@pytest.fixture(scope="session")
def many(crystals: dict[str, KnownMaterial]) -> list[KnownMaterial]:
    """Twenty materials: MgO under slightly different strains."""
    magnesia = crystals["cubic"]
    known = []
    for number in range(20):
        structure = magnesia.material.structure.copy()
        structure.apply_strain(0.001 * number)
        material = Material(f"MgO-{number}", structure, band_gap=4.8)
        known.append(dataclasses.replace(magnesia, material=material))
    return known


@dataclasses.dataclass
class Bench:
    """Prepares calculations below one root, runs them, and reads what really happened."""

    root: Path
    launchers: list[Any] = dataclasses.field(default_factory=list)

    def prepare(self, engine: Engine, known: Sequence[KnownMaterial]) -> list[str]:
        keys = []
        for record in known:
            key = calculation_key(record.material.structure_hash, engine.settings_hash)
            self.calculation(key).prepare(engine, record.material)
            keys.append(key)
        return keys

    def replay(self, known: Sequence[KnownMaterial], **settings: Any) -> list[str]:
        return self.prepare(ReplayEngine(known, ReplaySettings(**settings)), known)

    def calculation(self, key: str) -> Calculation:
        return Calculation(self.root / key)

    def launcher(self, max_parallel: int = 1, timeout_s: float | None = None) -> LocalLauncher:
        settings = LocalLauncherSettings(max_parallel=max_parallel, timeout_s=timeout_s)
        self.launchers.append(LocalLauncher(self.root, settings))
        return self.launchers[-1]

    def run(self, keys: Sequence[str], **settings: Any) -> dict[str, CalculationOutput]:
        launcher = self.launcher(**settings)
        launcher.submit(keys)
        self.wait(lambda: set(launcher.poll(keys).values()) == {State.DONE})
        return {key: launcher.fetch(key) for key in keys}

    def attend(
        self, keys: Sequence[str], timeout_s: float | None = None
    ) -> dict[str, CalculationOutput]:
        """As :meth:`run`, one after the other, without the cost of starting a worker."""
        for key in keys:
            attend(self.calculation(key), "0", timeout_s)
        outputs = {key: self.calculation(key).result() for key in keys}
        return {key: output for key, output in outputs.items() if output is not None}

    def slurm(self, **settings: Any) -> Any:
        """A launcher on Slurm that looks often."""
        from dft.slurm import SlurmLauncher
        from dft.slurm_settings import SlurmLauncherSettings

        quick = {"poll_s": 0.3, "settle_s": 0.5, "time": 600}
        launcher = SlurmLauncher(self.root, SlurmLauncherSettings(**{**quick, **settings}))
        self.launchers.append(launcher)
        return launcher

    def finish(self, launcher: Any, keys: Sequence[str], seconds: float = 240.0) -> None:
        """Wait until all of them have results."""
        self.wait(lambda: set(launcher.poll(keys).values()) == {State.DONE}, seconds)

    def wait(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up, "waited in vain"
            time.sleep(0.02)

    def events(self, key: str) -> list[tuple[float, str]]:
        """(time, "start" or "end") of every execution of the calculation."""
        import datetime

        path = self.root / key / "executions.log"
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        matches = [re.fullmatch(r"(\S+) (start|end) pid=\d+", line) for line in lines]
        assert all(matches)
        return [(datetime.datetime.fromisoformat(m[1]).timestamp(), m[2]) for m in matches if m]

    def names(self, key: str) -> list[str]:
        return [name for _, name in self.events(key)]


class ForkedWorker:
    """Stands in for ``subprocess.Popen``: a worker without the second its imports would take."""

    def __init__(self, command: list[str], *, stderr: Any, **_: Any) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.setsid()
                os.dup2(stderr.fileno(), 2)
                sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
                status = worker_main(command[command.index("dft.worker") + 1 :])
            finally:
                os._exit(status)

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launchers fork their workers from this process instead of starting them afresh."""
    stand_in = types.SimpleNamespace(Popen=ForkedWorker, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(dft.local, "subprocess", stand_in)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    preload()  # as a worker does, for the calculations forked from this process
    bench = Bench(tmp_path.resolve() / "calculations")
    yield bench
    for launcher in bench.launchers:
        launcher.cancel([path.name for path in bench.root.iterdir() if len(path.name) == 32])
        launcher.close()


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module ``stub_engine``, importable here and in the workers."""
    import importlib

    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    return importlib.import_module("stub_engine")
