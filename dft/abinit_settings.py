"""What a person may set about the ABINIT engine, and what its levels of accuracy mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["quick", "standard", "tight"]

DEBIAN_PAW = "/usr/share/gpaw-setups"
"""Where Debian's package ``gpaw-data`` puts its PAW data."""

HARD = frozenset(
    ("C", "N", "O", "F", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge")
)
"""Elements whose valence electrons are confined as tightly as the 2p and 3d shells are."""


@dataclass(frozen=True)
class Accuracy:
    """Numerical parameters of one level.

    Attributes
    ----------
    ecut_soft, ecut_hard
        Plane-wave cutoff in Ha with PAW, without and with one of the :data:`HARD` elements.
    ecut_norm_conserving
        Cutoff in Ha with norm-conserving pseudopotentials.
    k_spacing
        Largest distance of neighbouring k-points in 1/Å (2π included); finer by
        :data:`FINER` where the direct gap is below :data:`NARROW_EV`.
    scf_tolerance
        Residual of the potential at which self-consistency ends (ABINIT's tolvrs).
    response_tolerance
        The same for the first-order potentials.
    fft_box
        Half the edge of the orbitals' FFT box per radius of the sphere of plane waves with PAW
        (ABINIT's boxcutmin). 2 holds every product of two orbitals; 1.5 wraps its outermost
        corners only, as VASP's normal precision does, and leaves 0.4 of the points and two thirds
        of the time. With PAW the density has a finer grid of its own; without, it is always 2.
    """

    ecut_soft: float
    ecut_hard: float
    ecut_norm_conserving: float
    k_spacing: float
    scf_tolerance: float
    response_tolerance: float
    fft_box: float


NARROW_EV = 2.0
"""Direct gap below which the response varies so quickly with k that a mesh good enough for ionic
crystals is not enough."""

FINER = 0.65
"""Factor on the distance of k-points for such crystals."""

LEVELS: dict[Level, Accuracy] = {
    "quick": Accuracy(15.0, 20.0, 30.0, 0.6, 1e-10, 1e-4, 1.5),
    "standard": Accuracy(16.0, 25.0, 40.0, 0.44, 1e-12, 1e-5, 1.5),
    "tight": Accuracy(20.0, 32.0, 50.0, 0.34, 1e-14, 1e-7, 2.0),
}
"""Chosen from measured convergence; see the table in ``docs/dft.md``."""


class AbinitSettings(BaseModel, title="ABINIT"):
    """Density-functional perturbation theory with ABINIT."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["abinit"] = "abinit"
    level: Level = Field(
        "standard",
        description="Accuracy: quick (screening tests), standard, tight; docs/dft.md says what "
        "each costs and leaves",
    )
    pseudopotentials: Path = Field(
        Path(DEBIAN_PAW),
        description="Folder of PAW data (PBE, .xml or GPAW's .gz) or of .psp8 files",
    )
    relax: Literal["none", "positions", "cell"] = Field(
        "none",
        description="Relax atomic positions, or cell and positions, before the response; the "
        "tensors then belong to the relaxed structure, which is part of the result",
    )
    magnetism: Literal["refuse", "ignore"] = Field(
        "refuse",
        description="Crystals whose ions have open d or f shells need spin and usually +U, which "
        "this engine does not do: refuse them, or calculate them without (low-spin ions)",
    )
    ecut_ha: float | None = Field(
        None, gt=0, le=500, description="Plane-wave cutoff in Ha instead of the level's"
    )
    k_spacing: float | None = Field(
        None, gt=0, le=5, description="Distance of k-points in 1/Å instead of the level's"
    )
    max_attempts: int = Field(
        3, ge=1, le=10, description="How often a calculation is tried, each time otherwise"
    )
    command: str = Field("abinit", description="The program; its companion anaddb lies beside it")
    mpi_processes: int = Field(
        1, ge=1, le=1024, description="Processes per calculation, started with mpirun if above 1"
    )

    def decisive(self) -> dict[str, object]:
        """Those settings that change the answer; how the program is started does not."""
        return self.model_dump(
            mode="json", exclude={"kind", "command", "mpi_processes", "pseudopotentials"}
        )
