"""Input files of ABINIT: one text per step, each a run of its own.

The recipe, with the choices that matter (ABINIT 9.6 and later):

* ``nband`` is the number of occupied bands and ``nbdbuf`` 0: with empty bands the response to
  k never converges, for their derivatives are not needed and not defined;
* ``pawxcdev 0`` throughout, for the response in PAW is not implemented with the expansion;
* the mesh of the response is one that the full point group maps on itself (:mod:`dft.kmesh`); the
  gap is looked for on one with Γ;
* fixed occupations: metals are recognised beforehand and go no further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dft.abinit_settings import HARD, LEVELS, AbinitSettings
from dft.kmesh import mesh_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]
Relaxation = Literal["none", "positions", "cell"]

DDK_SHARE = 1e-6
"""Squared residual of the derivatives in k per squared residual of the response: they enter every
second derivative, and are cheap to converge."""

GROUND_STATE_PASSES = 2
"""Passes over the bands per new density (nnsclo). With one, the orbitals lag behind the potential:
MgO takes 35 cycles instead of 16, LiZnP and ZnO as rock salt do not get there in 60. The response
gains nothing from it."""

DDK_LINES = 2
"""Conjugate-gradient steps in a cycle of the derivatives in k per step in one of the response: no
potential waits for them, and what a cycle costs beside its steps is paid less often."""

GAP_BANDS = 2
"""Empty bands in the search for the gap; the upper one is a buffer and need not converge."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Numerical parameters of one attempt; lengths in Å, energies in Ha, as ABINIT names them.

    Attributes
    ----------
    ecut, k_spacing, scf_tolerance, response_tolerance, fft_box
        See :class:`dft.abinit_settings.Accuracy`.
    scf_steps, response_steps
        Self-consistency cycles that may be used.
    mixing
        Share of the preconditioned residual that is mixed in (diemix).
    lines
        Conjugate-gradient steps per band and cycle (nline).
    symmetry_tolerance
        tolsym; None switches symmetry off.
    overlap_percent
        Overlap of PAW spheres that is tolerated (pawovlp).
    empty
        Bands beyond the occupied ones in the ground state. They cost time, and where bands cross
        on the way to self-consistency it is not reached without them.
    relax
        What is relaxed before anything else.
    refine
        Whether a narrow gap may ask for a finer mesh.
    """

    ecut: float
    k_spacing: float
    scf_tolerance: float
    response_tolerance: float
    fft_box: float = 2.0
    scf_steps: int = 60
    response_steps: int = 80
    mixing: float = 0.7
    lines: int = 4
    symmetry_tolerance: float | None = 1e-4
    overlap_percent: float = 5.0
    empty: int = 0
    relax: Relaxation = "none"
    refine: bool = True

    @classmethod
    def first(cls, settings: AbinitSettings, elements: set[str], is_paw: bool) -> Tuning:
        """What the settings ask for."""
        level = LEVELS[settings.level]
        ecut = level.ecut_hard if elements & HARD else level.ecut_soft
        return cls(
            ecut=settings.ecut_ha or (ecut if is_paw else level.ecut_norm_conserving),
            k_spacing=settings.k_spacing or level.k_spacing,
            scf_tolerance=level.scf_tolerance,
            response_tolerance=level.response_tolerance,
            fft_box=level.fft_box,
            relax=settings.relax,
            # A mesh that a person chose stays.
            refine=settings.k_spacing is None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Inputs:
    """Writes the inputs of one structure with one set of parameters.

    Parameters
    ----------
    structure
        What is calculated; all output is in its Cartesian frame.
    files
        File name of the pseudopotential of each element, below ``folder``.
    folder
        Where these files are, as seen from the directory of a step.
    n_electrons
        Valence electrons in the cell, an even number.
    is_paw
        Whether the files are PAW data sets.
    tuning
        The numbers.
    """

    structure: Structure
    files: Mapping[str, str]
    folder: str
    n_electrons: int
    is_paw: bool
    tuning: Tuning

    @property
    def occupied(self) -> int:
        """Occupied bands."""
        return self.n_electrons // 2

    def relaxation(self) -> str:
        """Atoms, and with them the cell, moved until forces vanish."""
        cell = "optcell 2\ndilatmx 1.08\necutsm 0.5" if self.tuning.relax == "cell" else "optcell 0"
        return self._text(
            f"ionmov 2\nntime 60\n{cell}\ntolmxf 5.0e-5\ntoldff 5.0e-6\nprtwf 0\nprtden 0\n"
            f"prteig 0\nnstep {self.tuning.scf_steps}"
        )

    def ground_state(self) -> str:
        """Density and occupied orbitals."""
        return self._text(
            f"tolvrs {self.tuning.scf_tolerance:.1e}\nnstep {self.tuning.scf_steps}\n"
            f"nnsclo {GROUND_STATE_PASSES}\nprtwf 1\nprtden 1\nprtebands 0",
            empty=self.tuning.empty,
        )

    def gap(self) -> str:
        """A few empty bands in the potential of the ground state."""
        return self._text(
            'indata_prefix "in"\nirdden 1\niscf -2\ntolwfr 1.0e-8\nnstep 60\n'
            "prtwf 0\nprtden 0\nprtebands 0",
            empty=GAP_BANDS,
            shifted=False,
        )

    def ddk(self, along: Sequence[int] = (0, 1, 2)) -> str:
        """Derivatives of the orbitals with respect to k, along these reduced directions."""
        chosen = " ".join(str(int(d in along)) for d in range(3))
        return self._text(
            f'indata_prefix "in"\nirdwfk 1\nrfelfd 2\nrfdir {chosen}\nnqpt 1\nqpt 0 0 0\niscf -3\n'
            f"tolwfr {self.tuning.response_tolerance * DDK_SHARE:.1e}\n"
            f"nstep {self.tuning.response_steps}\nprtden 0\nprtpot 0",
            kptopt=2,
            lines=DDK_LINES * self.tuning.lines,
        )

    def response(self, *, restart: bool) -> str:
        """Response to electric fields and to displacements of all atoms at Γ."""
        again = "\nird1wf 1" if restart else ""
        return self._text(
            f'indata_prefix "in"\nirdwfk 1\nirdddk 1{again}\nrfelfd 3\nrfphon 1\n'
            f"rfatpol 1 {len(self.structure)}\nrfdir 1 1 1\nnqpt 1\nqpt 0 0 0\n"
            f"tolvrs {self.tuning.response_tolerance:.1e}\nnstep {self.tuning.response_steps}\n"
            "prtden 0\nprtpot 0",
            kptopt=2,
        )

    def _text(
        self, step: str, *, kptopt: int = 1, empty: int = 0, shifted: bool = True,
        lines: int | None = None,
    ) -> str:  # fmt: skip
        tuning, structure = self.tuning, self.structure
        elements = sorted({site.specie.symbol for site in structure})
        number = {element: index + 1 for index, element in enumerate(elements)}
        charges = {site.specie.symbol: site.specie.Z for site in structure}
        names = ",".join(self.files[element] for element in elements)
        points = mesh_of(structure, tuning.k_spacing, shifted=shifted)
        symmetry = (
            "nsym 1"
            if tuning.symmetry_tolerance is None
            else f"tolsym {tuning.symmetry_tolerance:.1e}"
        )
        text = [
            f"# {structure.composition.reduced_formula}",
            f'pp_dirpath "{self.folder}"',
            f'pseudos "{names}"',
            f"ntypat {len(elements)}",
            "znucl " + " ".join(str(charges[element]) for element in elements),
            f"natom {len(structure)}",
            "typat " + _wrapped([str(number[site.specie.symbol]) for site in structure]),
            "acell 1 1 1 Angstrom",
            "rprim",
            *_rows(structure.lattice.matrix),
            "xred",
            *_rows(structure.frac_coords),
            "chkprim 0",
            symmetry,
            f"ecut {tuning.ecut:g}",
            *self._paw_lines(),
            f"kptopt {kptopt}",
            "kptrlatt",
            *("  " + " ".join(map(str, row)) for row in points.superlattice),
            "nshiftk 1",
            "shiftk " + " ".join(f"{x:g}" for x in points.shift),
            "nsppol 1",
            "occopt 1",
            f"nband {self.occupied + empty}",
            f"nbdbuf {max(0, empty - 1)}",
            f"nline {lines or tuning.lines}",
            f"diemix {tuning.mixing:g}",
            "paral_kgb 0",
            step,
        ]
        return "\n".join(text) + "\n"

    def _paw_lines(self) -> list[str]:
        if not self.is_paw:
            return []
        return [
            f"pawecutdg {2 * self.tuning.ecut:g}",
            f"boxcutmin {self.tuning.fft_box:g}",
            "pawxcdev 0",
            f"pawovlp {self.tuning.overlap_percent:g}",
        ]


def anaddb(*, sum_rules: bool, ionic: bool) -> str:
    """Input of anaddb: tensors, Born charges and frequencies from the derivative database.

    Parameters
    ----------
    sum_rules
        Whether the acoustic sum rule and charge neutrality are imposed.
    ionic
        Whether the lattice contribution is wanted too. Not where a mode is unstable: anaddb stops.
    """
    rules = "asr 2\nchneut 1" if sum_rules else "asr 0\nchneut 0"
    return (
        f"rfmeth 1\nifcflag 0\n{rules}\ndieflag {1 if ionic else 2}\n"
        "nph1l 1\nqph1l 0 0 0 1\nngqpt 1 1 1\nnqshft 1\nq1shft 0 0 0\n"
    )


def _rows(matrix: Array) -> list[str]:
    return ["  " + " ".join(f"{x:.15f}" for x in row) for row in matrix]


def _wrapped(words: list[str], per_line: int = 20) -> str:
    chunks = [words[i : i + per_line] for i in range(0, len(words), per_line)]
    return "\n  ".join(" ".join(chunk) for chunk in chunks)
