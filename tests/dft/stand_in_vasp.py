"""Plays the part of ``vasp_std``: reads its inputs, writes the outputs that VASP would leave.

``python stand_in_vasp.py BEHAVIOUR`` runs in the directory of the inputs, as VASP does. The numbers
are those of MgO (PBE, 600 eV); everything that decides how custodian, atomate2, the engine and the
gate react is in the files: messages on standard output, self-consistency steps, tensors, charges,
frequencies. It imports little, for custodian starts it again and again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np

ELECTRONIC, IONIC, CHARGE, SKEW = 3.19, 6.77, 1.97, 0.25
EXCESS = 0.3
TRANSVERSE_THZ = 11.9
KPOINTS = ([0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0])
ORBITALS_MIB = 24
ANIONS = ("O", "F", "S")
UNLOADABLE = "error while loading shared libraries: libmkl_core.so.2"
EDDDAV = "Error EDDDAV: Call to ZHEGV failed. Returncode =  21"


@dataclass(frozen=True)
class Crystal:
    """What a POSCAR says."""

    lattice: np.ndarray
    symbols: list[str]
    positions: np.ndarray

    @classmethod
    def read(cls) -> Crystal:
        lines = Path("POSCAR").read_text().splitlines()
        lattice = np.array([line.split() for line in lines[2:5]], dtype=float) * float(lines[1])
        counts = [int(word) for word in lines[6].split()]
        symbols = [s for s, n in zip(lines[5].split(), counts, strict=True) for _ in range(n)]
        rows = [line.split()[:3] for line in lines[8 : 8 + len(symbols)]]
        return cls(lattice, symbols, np.array(rows, dtype=float))

    def __len__(self) -> int:
        return len(self.symbols)


def read_incar() -> dict[str, Any]:
    """Tags and values of the INCAR, numbers and truth values as such."""
    found: dict[str, Any] = {}
    for line in Path("INCAR").read_text().splitlines():
        name, equals, text = (part.strip() for part in line.partition("="))
        words = [_value(word) for word in text.split()]
        if equals:
            found[name] = words[0] if len(words) == 1 else words
    return found


def _value(word: str) -> Any:
    if word.strip(".").lower() in ("true", "false", "t", "f"):
        return word.strip(".").lower().startswith("t")
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


class Run:
    """One run: what it read, and what it is told to be like."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.incar = read_incar()
        self.structure = Crystal.read()
        self.bands = 6 * len(self.structure)
        self.spins = int(self.incar.get("ISPIN", 1))
        self.responds = bool(self.incar.get("LEPSILON", False))
        self.limit = int(self.incar.get("NELM", 60))

    @property
    def steps(self) -> int:
        """Self-consistency steps used; as many as allowed means not converged."""
        stuck = self.behaviour == "unconverged" or (
            # Converges with many cycles only, which is nothing that custodian tries.
            self.behaviour == "slow" and self.limit < 200
        )
        return self.limit if stuck else 12

    @property
    def electronic(self) -> np.ndarray:
        tensor = np.eye(3) * ELECTRONIC
        if self.behaviour == "identity":
            tensor = np.eye(3)
        if self.behaviour == "skewed":
            tensor[0, 1] = 1.4
        return tensor

    @property
    def frequencies(self) -> list[float]:
        optical = 3 * (len(self.structure) - 1)
        lowest = -2.5 if self.behaviour == "unstable" else TRANSVERSE_THZ
        return [TRANSVERSE_THZ] * (optical - 1) + [lowest, 0.02, 0.01, -0.01]

    @property
    def charges(self) -> np.ndarray:
        """+2 for the cations, −2 for the anions, so that a wrong order of the atoms shows; and not
        symmetric, so that a wrong order of the directions does."""
        charge = CHARGE * np.eye(3)
        charge[0, 1] = SKEW
        signs = [-1 if symbol in ANIONS else 1 for symbol in self.structure.symbols]
        left = EXCESS if self.behaviour == "charged" and self.incar["ENCUT"] <= 600 else 0.0
        return np.array([sign * charge + left * np.eye(3) for sign in signs])


def main(behaviour: str) -> None:
    tries = Path("tries")
    tries.write_text(f"{int(tries.read_text()) + 1 if tries.exists() else 1}")
    first = tries.read_text() == "1"
    if behaviour == "unloadable":
        print(f"vasp_std: {UNLOADABLE}", file=sys.stderr, flush=True)
        sys.exit(127)
    Path("OUTCAR").write_text("vasp.6.4.2\n")
    if behaviour == "broken" or (behaviour == "repairable" and first):
        print(EDDDAV, flush=True)
        sys.exit(1)
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "bulky":
        write_orbitals()
    run = Run(behaviour)
    text = vasprun(run)
    if behaviour == "truncated":
        text = text[: len(text) // 2]
    if behaviour == "garbage":
        text = "\x00\x01 this is no XML <<<<"
    Path("vasprun.xml").write_text(text)
    Path("OUTCAR").write_text(outcar(run))
    Path("OSZICAR").write_text(oszicar(run))
    shutil.copyfile("POSCAR", "CONTCAR")
    print(" reached required accuracy - stopping structural energy minimisation", flush=True)


def write_orbitals() -> None:
    """As large a WAVECAR as real runs leave; what Fortran says where there is no room for it."""
    try:
        with Path("WAVECAR").open("wb", buffering=0) as file:
            for _ in range(ORBITALS_MIB):
                file.write(bytes(1 << 20))
    except OSError:
        print("forrtl: severe (38): error during write, unit 12, file WAVECAR", flush=True)
        sys.exit(38)


def vasprun(run: Run) -> str:
    structure, atoms = run.structure, len(run.structure)
    root = Xml.Element("modeling")
    generator = Xml.SubElement(root, "generator")
    for name, value in {"program": "vasp", "version": "6.4.2", "subversion": "stand-in"}.items():
        scalar(generator, name, value)
    incar = Xml.SubElement(root, "incar")
    for name, value in run.incar.items():
        scalar(incar, name, value)
    points = Xml.SubElement(root, "kpoints")
    generation = Xml.SubElement(points, "generation", param="Gamma")
    points_file = Path("KPOINTS")
    mesh = points_file.read_text().splitlines()[3].split() if points_file.exists() else "444"
    vector(generation, mesh, name="divisions", type="int")
    vector(generation, (0, 0, 0), name="usershift")
    array(points, "kpointlist", KPOINTS)
    array(points, "weights", [[0.25], [0.5], [0.25]])
    parameters = Xml.SubElement(root, "parameters")
    known = {
        "ISPIN": run.spins, "NELECT": 8.0 * atoms, "NELM": run.limit, "NELMIN": 2, "NSW": 0,
        "IBRION": -1, "EDIFF": 1e-4, "EDIFFG": -0.02, "ENMAX": 500.0, "ISMEAR": 0, "SIGMA": 0.05,
        "ISIF": 2, "ALGO": "Normal", "PREC": "Accurate", "GGA": "PE", "METAGGA": "--",
        "NBANDS": run.bands, "LORBIT": 0, "IVDW": 0, "LHFCALC": False, "LDAU": False,
        "LEPSILON": False, "LREAL": False, "LSORBIT": False, "LNONCOLLINEAR": False,
        "LUSE_VDW": False,
    }  # fmt: skip
    for name, value in {**known, **{k: v for k, v in run.incar.items() if k in known}}.items():
        scalar(parameters, name, value)
    atom_information(root, structure)
    crystal(root, structure, "initialpos")
    calculation = Xml.SubElement(root, "calculation")
    energy = -6.0 * atoms
    for number in range(run.steps):
        # The terms of the energy are listed in the first step of the ground state, and again in
        # the first step of the response.
        whole = number in (0, run.steps - 1)
        step = Xml.SubElement(calculation, "scstep")
        energies(step, energy + 0.1 ** (number + 1), alpha=whole)
    crystal(calculation, structure)
    array(calculation, "forces", np.zeros((atoms, 3)))
    array(calculation, "stress", np.zeros((3, 3)))
    energies(calculation, energy)
    bands(calculation, run)
    density_of_states(calculation, run)
    if run.responds:
        for name in ("epsilon", "epsilon_rpa", "epsilon_scf"):
            array(calculation, name, run.electronic)
        array(calculation, "epsilon_ion", np.eye(3) * IONIC)
        matrix = Xml.SubElement(calculation, "dynmat")
        array(matrix, "hessian", np.zeros((3 * atoms, 3 * atoms)))
        values = [-np.sign(f) * f**2 for f in run.frequencies]
        vector(matrix, values, name="eigenvalues")
        array(matrix, "eigenvectors", np.eye(3 * atoms))
    crystal(root, structure, "finalpos")
    return Xml.tostring(root, encoding="unicode")


def scalar(parent: Xml.Element, name: str, value: Any) -> None:
    if isinstance(value, (list, tuple, np.ndarray)):
        kind = {"type": "int"} if all(isinstance(v, int) for v in value) else {}
        vector(parent, value, name=name, **kind)
        return
    if isinstance(value, bool):
        kind, text = "logical", "T" if value else "F"
    elif isinstance(value, int):
        kind, text = "int", str(value)
    elif isinstance(value, float):
        kind, text = "", f"{value:.8g}"
    else:
        kind, text = "string", str(value)
    attributes = {"type": kind} if kind else {}
    Xml.SubElement(parent, "i", name=name, **attributes).text = f" {text} "


def vector(parent: Xml.Element, values: Any, **attributes: str) -> None:
    text = " ".join(f"{v:.10g}" if isinstance(v, float) else str(v) for v in values)
    Xml.SubElement(parent, "v", **attributes).text = text


def array(parent: Xml.Element, name: str, rows: Any) -> None:
    place = Xml.SubElement(parent, "varray", name=name)
    for row in rows:
        vector(place, [float(x) for x in row])


def crystal(parent: Xml.Element, structure: Crystal, name: str | None = None) -> None:
    place = Xml.SubElement(parent, "structure", **({"name": name} if name else {}))
    inner = Xml.SubElement(place, "crystal")
    array(inner, "basis", structure.lattice)
    scalar(inner, "volume", float(abs(np.linalg.det(structure.lattice))))
    array(inner, "rec_basis", np.linalg.inv(structure.lattice).T)
    array(place, "positions", structure.positions)


def atom_information(root: Xml.Element, structure: Crystal) -> None:
    symbols = structure.symbols
    kinds = list(dict.fromkeys(symbols))
    place = Xml.SubElement(root, "atominfo")
    Xml.SubElement(place, "atoms").text = str(len(symbols))
    Xml.SubElement(place, "types").text = str(len(kinds))
    table(place, "atoms", ["element", "atomtype"], [[s, kinds.index(s) + 1] for s in symbols])
    rows = [[symbols.count(k), k, 1.0, 8.0, f"PAW_PBE {k} 06Sep2000"] for k in kinds]
    table(place, "atomtypes", ["n", "element", "mass", "valence", "pseudopotential"], rows)


def table(parent: Xml.Element, name: str, fields: list[str], rows: list[list[Any]]) -> None:
    place = Xml.SubElement(parent, "array", name=name)
    for field in fields:
        Xml.SubElement(place, "field").text = field
    inner = Xml.SubElement(place, "set")
    for row in rows:
        line = Xml.SubElement(inner, "rc")
        for value in row:
            Xml.SubElement(line, "c").text = f"{value} "


def energies(parent: Xml.Element, value: float, *, alpha: bool = False) -> None:
    place = Xml.SubElement(parent, "energy")
    for name in (["alphaZ"] if alpha else []) + ["e_fr_energy", "e_wo_entrp", "e_0_energy"]:
        scalar(place, name, value)


def bands(parent: Xml.Element, run: Run) -> None:
    place = Xml.SubElement(Xml.SubElement(parent, "eigenvalues"), "array")
    for field in ("eigene", "occ"):
        Xml.SubElement(place, "field").text = field
    inner = Xml.SubElement(place, "set")
    filled = run.bands // 2
    closed = run.behaviour == "metal"
    for spin in range(run.spins):
        of_spin = Xml.SubElement(inner, "set", comment=f"spin {spin + 1}")
        for number in range(len(KPOINTS)):
            of_point = Xml.SubElement(of_spin, "set", comment=f"kpoint {number + 1}")
            for band in range(run.bands):
                shift = 0.0 if band < filled or closed else 4.5
                energy = -6.0 + 0.5 * band + (1.3 if closed else 0.2) * number + shift
                Xml.SubElement(of_point, "r").text = f"{energy:.4f} {float(band < filled):.4f}"


def density_of_states(parent: Xml.Element, run: Run) -> None:
    place = Xml.SubElement(parent, "dos")
    scalar(place, "efermi", 0.0)
    total = Xml.SubElement(Xml.SubElement(place, "total"), "array")
    for field in ("energy", "total", "integrated"):
        Xml.SubElement(total, "field").text = field
    inner = Xml.SubElement(total, "set")
    for spin in range(run.spins):
        of_spin = Xml.SubElement(inner, "set", comment=f"spin {spin + 1}")
        for energy in np.linspace(-8, 8, 40):
            Xml.SubElement(of_spin, "r").text = f"{energy:.4f} 1.0000 0.0000"


def oszicar(run: Run) -> str:
    head = "       N       E                     dE             d eps       ncg     rms\n"
    lines = [
        f"DAV: {n + 1:3d}    -0.{12 + n}E+02   -0.1E-0{n % 9}   -0.1E-05   100   0.1E-02\n"
        for n in range(run.steps)
    ]
    energy = -6.0 * len(run.structure)
    return head + "".join(lines) + f"   1 F= {energy:.8E} E0= {energy:.8E}  d E =0.000000E+00\n"


def outcar(run: Run) -> str:
    rule = " ------------------------------------------------------\n"
    text = (
        " vasp.6.4.2 stand-in\n"
        " running on    1 total cores\n"
        f"   number of bands    NBANDS=  {run.bands:6d}   NIONS = {len(run.structure):6d}\n"
        "   total plane-waves  NPLWV =   8000\n"
        f"   ISPIN  = {run.spins:6d}\n   IBRION = {int(run.incar.get('IBRION', -1)):6d}\n"
        f"   LEPSILON= {'T' if run.responds else 'F'}\n"
        f" number of electron   {8.0 * len(run.structure):.7f} magnetization      0.0000000\n"
        " E-fermi :   0.0000     XC(G=0): -9.0     alpha+bet : -9.0\n"
        "    total drift:                                0.000001     -0.000001      0.000000\n"
        f"  free  energy   TOTEN  =  {-6.0 * len(run.structure):.8f} eV\n"
    )
    if run.responds:
        text += block("(including local field effects in DFT)", run.electronic, rule)
        text += (
            " BORN EFFECTIVE CHARGES (including local field effects) "
            f"(in |e|, cummulative output)\n{rule}"
        )
        for number, charge in enumerate(run.charges):
            text += f" ion  {number + 1:3d}\n"
            text += "".join(
                f"  {i + 1}  " + "  ".join(f"{x:10.5f}" for x in row) + "\n"
                for i, row in enumerate(charge)
            )
        text += rule
        text += block("IONIC CONTRIBUTION", np.eye(3) * IONIC, rule)
    return text + (
        " General timing and accounting informations for this job:\n"
        "                  Total CPU time used (sec):        1.000\n"
        "                            User time (sec):        1.000\n"
        "                          System time (sec):        0.000\n"
        "                         Elapsed time (sec):        1.000\n"
        "                   Maximum memory used (kb):       10000.\n"
        "                   Average memory used (kb):          N/A\n"
        "                          Voluntary context switches:     1\n"
    )


def block(what: str, tensor: np.ndarray, rule: str) -> str:
    rows = "".join("   " + " ".join(f"{x:12.6f}" for x in row) + "\n" for row in tensor)
    return f" MACROSCOPIC STATIC DIELECTRIC TENSOR {what}\n{rule}{rows}{rule}"


if __name__ == "__main__":
    main(sys.argv[1])
