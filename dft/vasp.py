"""The VASP engine: density-functional perturbation theory through atomate2 and custodian."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from dft.engine import CalculationOutput, settings_hash
from dft.vasp_settings import VaspSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobflow.core.flow import Flow
    from pymatgen.core import Structure

    from dft.cost import Cost, Done
    from screening.material import Material

VERSION = "2"
"""Of the recipe; another recipe gives other answers, which must not be taken for these."""


class VaspEngine:
    """PBE (+U) with the settings of a publication.

    Parameters
    ----------
    settings
        The preset, and how VASP is started.
    potcar_spec
        Write the names of the POTCARs instead of the licensed files: for tests and for looking at
        inputs. VASP itself cannot run on that.
    """

    name = "vasp"

    def __init__(self, settings: VaspSettings, *, potcar_spec: bool = False) -> None:
        self._settings = settings
        self._potcar_spec = potcar_spec

    @functools.cached_property
    def elements(self) -> frozenset[str]:
        """What there are POTCARs for, or could be where only their names are written."""
        from dft.vasp_potcars import covered

        return covered(anywhere=self._potcar_spec)

    def settings(self) -> dict[str, Any]:
        """See :meth:`dft.engine.Engine.settings`."""
        return {"version": VERSION, **self._settings.decisive()}

    @functools.cached_property
    def settings_hash(self) -> str:
        """See :attr:`dft.engine.Engine.settings_hash`."""
        return settings_hash(self.name, self.settings())

    def flow(self, material: Material) -> Flow:
        """See :meth:`dft.engine.Engine.flow`."""
        from jobflow.core.flow import Flow as NewFlow

        from dft.refusal import refuse
        from dft.vasp_job import calculate

        reason = self.cannot(material)
        if reason is not None:
            return refuse(CalculationOutput.failure(self.name, unsupported=reason))
        settings = self._settings.model_dump(mode="json")
        work = calculate(material.structure, settings, potcar_spec=self._potcar_spec)
        work.name = f"vasp {material.formula}"
        return NewFlow([work], output=work.output, name=work.name)

    def costs(self, materials: Sequence[Material], done: Done = tuple) -> list[Cost | None]:
        """See :meth:`dft.engine.Engine.costs`; learned from those that are done.

        How quick VASP is depends on its build, the machine and the cores: no model comes along.
        """
        from dft.cost import Cost, learned_costs

        possible = [i for i, material in enumerate(materials) if self.cannot(material) is None]
        took = [(self._demand(structure), seconds) for structure, seconds in done()]
        costs: list[Cost | None] = [Cost(0.0, 0.0, 0.0)] * len(materials)
        asked = [self._demand(materials[i].structure) for i in possible]
        for i, cost in zip(possible, learned_costs(asked, took), strict=True):
            costs[i] = cost
        return costs

    def _demand(self, structure: Structure) -> dict[str, float]:
        from dft.vasp_presets import demand

        return demand(self._settings.preset, self._settings.incar, structure)

    def cannot(self, material: Material) -> str | None:
        """Why this engine cannot do this crystal; None if it can."""
        if not material.structure.is_ordered:
            return "the structure has partly occupied sites"
        if self._potcar_spec:
            return None
        from dft.vasp_potcars import REMEDY, missing_potcars

        missing = missing_potcars(material.structure)
        if missing:
            return f"there is no POTCAR for {', '.join(missing)}; {REMEDY}"
        return None
