"""The published models under our protocol: one network per model, split and part, resumable.

As the papers did it, a network is trained for each part (static, electronic, ionic) by itself, and
what it puts out is judged as it is: neither projected on the point group nor made positive.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from models.cache import FeatureCache
from models.ensemble import resolve_device
from models.papers.fitting import fitted, graphs_of
from models.papers.names import OURS
from models.papers.training import Budget, evaluate
from models.protocol.benchmark import (
    TAIL_MERITS,
    Note,
    done_splits,
    origin,
    run_tail,
    save_outcome,
    splits_card,
)
from models.protocol.card import write_card
from models.protocol.continued import continued
from models.protocol.splits import published_split
from models.protocol.table import TensorTable
from models.protocol.variants import Outcome, without_error_bars
from models.protocol.variants import variants as variants_of
from models.protocol.violations import measured
from models.shipped import shipped
from screening.io import atomic_write
from screening.progress import NamedProgress

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.papers.network import PaperNetwork

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class PaperVariant:
    """A published model with a budget.

    Attributes
    ----------
    name
        As :func:`models.papers.names.parse` takes it.
    budget
        Of each network.
    """

    name: str
    cache: FeatureCache
    budget: Budget
    progress: NamedProgress | None = None

    def part(
        self,
        table: TensorTable,
        training: Indices,
        validation: Indices,
        rows: Indices,
        seed: int,
        part: str,
    ) -> Outcome:
        """Train a network on one part and predict ``rows``."""
        known = table.labelled(part)
        learned = np.concatenate([training[known[training]], validation[known[validation]]])
        n_training = int(known[training].sum())
        device = resolve_device("auto")
        # GoeCTP's sums round otherwise where ours was trained before, which asks for it.
        torch.use_deterministic_algorithms(False)
        network, facts = fitted(
            self.name, self.cache, self._graphs(table, learned),
            torch.as_tensor(table.truth(part)[learned], dtype=torch.get_default_dtype()),
            np.arange(n_training), np.arange(n_training, len(learned)), self.budget, seed, device,
            self._progress,
        )  # fmt: skip
        start = time.process_time()
        tensors = evaluate(network, self._graphs(table, rows), device).double().numpy()
        rate = len(rows) / (time.process_time() - start)
        facts |= {
            "parameters": network.n_parameters,
            "materials_per_cpu_second": round(rate, 1),
            "violations": self._violations(network, table, rows, device),
        }
        return without_error_bars(
            {part: tensors}, facts["seconds"], facts["cpu_seconds"], {part: facts}
        )

    def __call__(
        self,
        table: TensorTable,
        training: Indices,
        validation: Indices,
        rows: Indices,
        seed: int,
    ) -> Outcome:
        """The static part, for protocols that rank by it."""
        return self.part(table, training, validation, rows, seed, "static")

    def _graphs(self, table: TensorTable, rows: Indices) -> list[Data]:
        return graphs_of(self.name, [table.known[i].material.structure for i in rows], self.cache)

    def _violations(
        self, network: PaperNetwork, table: TensorTable, rows: Indices, device: torch.device
    ) -> dict[str, list[float]]:
        def predict(structures: Sequence[Structure], cache: FeatureCache) -> Array:
            graphs = [network.graph(s, cache) for s in structures]
            return evaluate(network, graphs, device).double().numpy()

        return measured(predict, [table.known[i].material.structure for i in rows], self.cache)

    def _progress(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(f"training {self.name}", done, total)


def run_papers(
    variants: Sequence[PaperVariant],
    table: TensorTable,
    numbers: Sequence[int],
    parts: Sequence[str],
    work: Path,
    cards: Path,
    note: Note,
    *,
    tail: bool = False,
) -> None:
    """Train what has no result in ``work`` yet, and write the card of a model after each network.

    All models have split and part behind them before the next part, or split, begins. What a card
    that lies there says of other splits stays in it. Where predictions of ours lie in ``work``,
    ours gets cards beside them.

    Raises
    ------
    UserError
        Results in ``work`` are of other data or another budget; before anything is trained.
    """
    for variant in variants:
        done_splits(variant.name, variant, table, work)
    if variants and any((work / OURS).glob("split-*.npz")):
        cache, place = variants[0].cache, cards / f"{OURS}.yaml"
        ours = splits_card(OURS, variants_of(cache)[OURS], table, work, None)
        ours["measured"] = _measured_once(table, cache, work / OURS / "measured.json")
        write_card(place, continued(ours, place))
    for number in numbers:
        split = published_split(table.material_ids, number)
        for part in parts:
            for variant in variants:
                path = work / variant.name / f"split-{number}-{part}.npz"
                if path.exists():
                    note(f"{variant.name}, split {number}, {part}: done before")
                else:
                    outcome = variant.part(
                        table, split.train, split.validation, split.test, number, part
                    )
                    save_outcome(path, split.test, outcome, origin(variant, table))
                    note(f"{variant.name}, split {number}, {part}: {outcome.facts[part]}")
                place = cards / f"{variant.name}.yaml"
                write_card(place, continued(paper_card(variant, table, work), place))
    for merit in TAIL_MERITS if tail else ():
        if variants and (work / OURS / f"tail-{merit}.npz").exists():
            own = variants_of(variants[0].cache)[OURS]
            card = run_tail(OURS, own, table, merit, work, note)
            write_card(cards / f"{OURS}-tail-{merit}.yaml", card)
        for variant in variants:
            card = run_tail(variant.name, variant, table, merit, work, note)
            write_card(cards / f"{variant.name}-tail-{merit}.yaml", card)


def paper_card(variant: PaperVariant, table: TensorTable, work: Path) -> dict[str, Any]:
    """Figures over what is done, compared with ours on the same test materials."""
    reference = OURS if (work / OURS).is_dir() else None
    return splits_card(variant.name, variant, table, work, reference)


def _measured_once(table: TensorTable, cache: FeatureCache, path: Path) -> dict[str, Any]:
    """Violations, parameters and throughput of the ensemble that comes along."""
    if path.exists():
        return dict(json.loads(path.read_text()))
    ensemble = shipped()
    rows = published_split(table.material_ids, 1).test
    structures = [table.known[i].material.structure for i in rows]

    def predict(crystals: Sequence[Structure], own: FeatureCache) -> Array:
        return ensemble.predict(crystals, "PBE", own).central("static")

    cache.reduced(structures)
    start = time.process_time()
    predict(structures, cache)
    rate = len(rows) / (time.process_time() - start)
    found = {
        "parameters": sum(p.numel() for p in ensemble.readout.parameters()),
        "materials_per_cpu_second": round(rate, 1),
        "violations": measured(predict, structures, cache),
    }
    atomic_write(path, json.dumps(found))
    return found
