"""How runs of VASP can end, and what the engine and the gate make of each.

``python benchmarks/vasp_endings.py`` plays every ending with the tests' stand-in for VASP under the
real atomate2 and custodian, for MgO, and prints a table in Markdown. It needs neither VASP nor
POTCARs; the full disk is a small one that is mounted, for which it has to be run as root.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from pymatgen.core import SETTINGS, Lattice, Structure

from dft.engine import CalculationOutput
from dft.gate import judge
from dft.vasp import VaspEngine
from dft.vasp_job import climb
from dft.vasp_settings import VaspSettings
from screening.material import Material

STAND_IN = Path(__file__).parents[1] / "tests" / "dft" / "stand_in_vasp.py"
ENDINGS = {
    "normal": "a normal run",
    "repairable": "EDDDAV fails once, which custodian repairs",
    "broken": "EDDDAV fails always, which it cannot",
    "slow": "self-consistent with 200 cycles only",
    "unconverged": "never self-consistent",
    "killed": "killed by signal 9",
    "unloadable": "the program lacks a library",
    "truncated": "`vasprun.xml` cut in half",
    "garbage": "`vasprun.xml` is no XML",
    "identity": "ε∞ is the identity",
    "skewed": "ε∞ is not symmetric",
    "metal": "no gap",
    "charged": "Born charges add up to 0 at a cutoff above 600 eV only",
    "unstable": "a mode at −2.5 THz",
}
FULL_MIB = 16
"""Of a disk on which the stand-in's orbitals have no room."""


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    logging.disable()
    lattice = Lattice.cubic(4.212)
    magnesia = Structure.from_spacegroup("Fm-3m", lattice, ["Mg", "O"], [[0, 0, 0], [0.5] * 3])
    magnesia = magnesia.get_primitive_structure()
    print("| ending | attempts | verdict | message |\n|---|---|---|---|")
    for behaviour, ending in ENDINGS.items():
        with tempfile.TemporaryDirectory() as place:
            output = play(magnesia, behaviour, Path(place))
        judgement = judge(magnesia, output)
        row(ending, len(output.attempts), judgement.verdict, judgement.detail)
    missing_potcar(magnesia)
    full_disk(magnesia)


def play(structure: Structure, behaviour: str, place: Path) -> CalculationOutput:
    """The output of the engine in ``place``, where VASP behaves in that way."""
    command = shlex.join([sys.executable, str(STAND_IN), behaviour])
    with contextlib.chdir(place), contextlib.redirect_stdout(io.StringIO()):
        return climb(structure, VaspSettings(command=command), potcar_spec=True)


def missing_potcar(structure: Structure) -> None:
    """A library of POTCARs that lacks one of those needed."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "POT_GGA_PAW_PBE"
        folder.mkdir()
        (folder / "POTCAR.O").write_text("stub")
        SETTINGS["PMG_VASP_PSP_DIR"] = place
        flow = VaspEngine(VaspSettings()).flow(Material("MgO", structure))
        output = CalculationOutput.from_dict(flow.jobs[0].function_args[0])
    judgement = judge(structure, output)
    row("no POTCAR for Mg", 0, judgement.verdict, judgement.detail)


def full_disk(structure: Structure) -> None:
    """No verdict: the calculation stays open, and goes on once there is room."""
    with small_disk() as disk:
        if disk is None:
            row("a full disk", "", "", "not played: a disk can be mounted by root only")
            return
        try:
            play(structure, "bulky", disk)
        except OSError as error:
            row("a full disk", "", "none yet", error.strerror)


@contextlib.contextmanager
def small_disk() -> Iterator[Path | None]:
    """A disk of its own, or None where none can be mounted."""
    with tempfile.TemporaryDirectory() as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={FULL_MIB}m", "tmpfs", place]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            yield None
            return
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True)


def row(*cells: object) -> None:
    print("| " + " | ".join(" ".join(str(cell).split()) for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
