"""The replay engine: answers from a table of known results instead of calculating.

It serves to test and to demonstrate the whole loop, and to measure how well a strategy would have
done on materials whose tensors are known.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dft.engine import CalculationOutput, settings_hash
from dft.settings import ReplaySettings
from screening.io import stable_hash

if TYPE_CHECKING:
    from jobflow.core.flow import Flow

    from dft.cost import Cost, Done
    from screening.material import KnownMaterial, Material

VERSION = "1"


class ReplayEngine:
    """Looks each material up by its structure hash.

    A material that is not in the table gets an engine error, at the same price as an answer.

    Parameters
    ----------
    answers
        What is known. Where a structure occurs twice, the first record counts.
    settings
        The delay, and which materials are to fail and how.
    """

    name = "replay"

    def __init__(self, answers: Sequence[KnownMaterial], settings: ReplaySettings) -> None:
        self._answers = answers
        self._settings = settings

    @functools.cached_property
    def elements(self) -> frozenset[str]:
        """Elements that occur in the table."""
        return frozenset(e for known in self._answers for e in known.material.elements)

    def settings(self) -> dict[str, Any]:
        """The failures, and a hash of the table: other known results give other answers."""
        failures = {name: str(mode) for name, mode in sorted(self._settings.failures.items())}
        return {"version": VERSION, "answers": self._table_hash, "failures": failures}

    @functools.cached_property
    def settings_hash(self) -> str:
        """See :attr:`dft.engine.Engine.settings_hash`."""
        return settings_hash(self.name, self.settings())

    def flow(self, material: Material) -> Flow:
        """One job that carries its answer with it. See :meth:`dft.engine.Engine.flow`."""
        from jobflow.core.flow import Flow

        from dft.replay_job import replay

        failure = self._settings.failures.get(material.material_id)
        job = replay(
            self._answer(material).to_dict(),
            n_sites=material.n_sites,
            failure=None if failure is None else str(failure),
            delay_s=self._settings.delay_s,
            stall_s=self._settings.stall_s,
        )
        job.name = f"replay {material.formula}"
        job.metadata = {"material_id": material.material_id}
        return Flow([job], output=job.output, name=job.name)

    def costs(self, materials: Sequence[Material], done: Done = tuple) -> list[Cost | None]:
        """See :meth:`dft.engine.Engine.costs`: what the known result is recorded to have taken."""
        from dft.cost import HOUR_S, Cost

        del done
        hours = [self._answer(m).cost.get("cpu_s", 0.0) / HOUR_S for m in materials]
        return [Cost(h, h, h) for h in hours]

    def _answer(self, material: Material) -> CalculationOutput:
        for known in self._by_composition[(material.n_sites, material.elements)]:
            if known.material.structure_hash == material.structure_hash:
                charges = known.extras.get("born_charges")
                seconds = known.extras.get("cpu_s")
                return CalculationOutput(
                    electronic=known.tensors.electronic,
                    ionic=known.tensors.ionic,
                    born_charges=None if charges is None else np.array(charges, dtype=float),
                    min_optical_thz=known.extras.get("min_optical_thz"),
                    band_gap=known.material.band_gap,
                    converged=True,
                    functional=known.functional,
                    engine=self.name,
                    engine_version=VERSION,
                    cost={} if seconds is None else {"cpu_s": seconds},
                )
        text = f"{material.material_id} ({material.formula}) is not in the table of known results"
        return CalculationOutput.failure(self.name, VERSION, error=text)

    @functools.cached_property
    def _by_composition(self) -> defaultdict[tuple[int, tuple[str, ...]], list[KnownMaterial]]:
        # The hash needs the parsed structure; a table may have thousands, and few are asked for.
        table: defaultdict[tuple[int, tuple[str, ...]], list[KnownMaterial]] = defaultdict(list)
        for known in self._answers:
            table[(known.material.n_sites, known.material.elements)].append(known)
        return table

    @functools.cached_property
    def _table_hash(self) -> str:
        records = (
            [
                known.material.material_id,
                known.material.formula,
                known.material.band_gap,
                known.functional,
                known.tensors.to_dict(),
                known.extras.get("born_charges"),
                known.extras.get("min_optical_thz"),
                # Tables without costs keep the hash that they had.
                *([known.extras["cpu_s"]] if "cpu_s" in known.extras else []),
            ]
            for known in self._answers
        )
        return stable_hash(
            sorted(json.dumps(record, default=np.ndarray.tolist) for record in records)
        )
