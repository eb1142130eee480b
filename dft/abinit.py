"""The ABINIT engine: real density-functional perturbation theory on any Linux machine."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from dft.abinit_settings import AbinitSettings
from dft.engine import CalculationOutput, settings_hash
from dft.pseudopotentials import available, find, fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobflow.core.flow import Flow

    from dft.cost import Cost, Done
    from screening.material import Material

VERSION = "2"
"""Of the recipe; another recipe gives other answers, which must not be taken for these."""


class AbinitEngine:
    """PBE with PAW data or pseudopotentials from a folder; closed shells only.

    Parameters
    ----------
    settings
        Accuracy, pseudopotentials, and how the program is started.
    """

    name = "abinit"

    def __init__(self, settings: AbinitSettings) -> None:
        self._settings = settings

    @functools.cached_property
    def elements(self) -> frozenset[str]:
        """What the folder has pseudopotentials for."""
        return frozenset(available(self._settings.pseudopotentials))

    def settings(self) -> dict[str, Any]:
        """What decides the answer: the level, and what the pseudopotentials' files hold."""
        return {
            "version": VERSION,
            **self._settings.decisive(),
            "pseudopotentials": self._fingerprint,
        }

    @functools.cached_property
    def settings_hash(self) -> str:
        """See :attr:`dft.engine.Engine.settings_hash`."""
        return settings_hash(self.name, self.settings())

    def flow(self, material: Material) -> Flow:
        """See :meth:`dft.engine.Engine.flow`.

        A crystal that the engine cannot do gets a flow that says so, at no cost.
        """
        from dft.abinit_job import AbinitDielectricMaker
        from dft.refusal import refuse

        reason = self.cannot(material)
        if reason is not None:
            return refuse(CalculationOutput.failure(self.name, unsupported=reason))
        settings = self._settings.model_dump(mode="json")
        settings["pseudopotentials"] = str(self._settings.pseudopotentials.expanduser().absolute())
        maker = AbinitDielectricMaker(settings=settings)
        return maker.make(material.structure)

    def cannot(self, material: Material) -> str | None:
        """Why this engine cannot do this crystal; None if it can."""
        from dft.electrons import open_shell
        from screening.errors import UserError

        structure = material.structure
        if not structure.is_ordered:
            return "the structure has partly occupied sites"
        try:
            find(self._settings.pseudopotentials, [site.specie.symbol for site in structure])
        except UserError as error:
            return str(error).rstrip(".")
        if self._settings.magnetism == "refuse" and (reason := open_shell(structure)) is not None:
            return (
                f"{reason}, which needs spin polarisation and +U, and this engine does neither; "
                "use VASP, or magnetism: ignore if the ion is known to be low-spin"
            )
        return None

    def costs(self, materials: Sequence[Material], done: Done = tuple) -> list[Cost | None]:
        """See :meth:`dft.engine.Engine.costs`; of one attempt, by the model that comes along."""
        del done
        return [self._cost(material) for material in materials]

    def _cost(self, material: Material) -> Cost:
        from dft import cost
        from dft.abinit_input import Tuning
        from dft.abinit_settings import FINER, NARROW_EV
        from dft.kmesh import mesh_of

        if self.cannot(material) is not None:
            return cost.Cost(0.0, 0.0, 0.0)
        structure, settings = material.structure, self._settings
        files = find(settings.pseudopotentials, [site.specie.symbol for site in structure])
        electrons = sum(files[site.specie.symbol].valence for site in structure)
        is_paw = next(iter(files.values())).is_paw
        tuning = Tuning.first(settings, set(files), is_paw)
        spacing = tuning.k_spacing
        # The gap at one k-point decides, and is not below the one that is known.
        if tuning.refine and material.band_gap is not None and material.band_gap < NARROW_EV:
            spacing *= FINER
        asked = cost.features(structure, electrons, tuning.ecut, mesh_of(structure, spacing))
        return cost.abinit_model().predict(asked)

    @functools.cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self._settings.pseudopotentials)
