"""The published models under our protocol: one network per model, split and part, resumable.

As the papers did it, a network is trained for each part (static, electronic, ionic) by itself, and
what it puts out is judged as it is: neither projected on the point group nor made positive.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from models.cache import FeatureCache, ForceConstantCache
from models.calibration import PARTS
from models.ensemble import resolve_device
from models.papers.fitting import fitted, graphs_of
from models.papers.names import OURS
from models.papers.pretraining import require_pretrained
from models.papers.training import Budget, evaluate
from models.protocol.benchmark import (
    TAIL_MERITS,
    Note,
    done_splits,
    origin,
    run_splits,
    run_tail,
    save_outcome,
    splits_card,
)
from models.protocol.card import write_card
from models.protocol.continued import require_cards, write_continued
from models.protocol.splits import published_split
from models.protocol.table import TensorTable
from models.protocol.variants import EnsembleVariant, Outcome, without_error_bars
from models.protocol.violations import RATE, measured
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
        network, facts = fitted(
            self.name, self.cache, self._graphs(table, learned),
            torch.as_tensor(table.truth(part)[learned], dtype=torch.get_default_dtype()),
            np.arange(n_training), np.arange(n_training, len(learned)), self.budget, seed, device,
            self._progress,
        )  # fmt: skip
        tensors = evaluate(network, self._graphs(table, rows), device).double().numpy()
        facts |= {
            "parameters": network.n_parameters, **self._measured(network, table, rows, device)
        }  # fmt: skip
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

    def _measured(
        self, network: PaperNetwork, table: TensorTable, rows: Indices, device: torch.device
    ) -> dict[str, Any]:
        def predict(structures: Sequence[Structure], cache: FeatureCache) -> Array:
            graphs = [network.graph(s, cache) for s in structures]
            return evaluate(network, graphs, device).double().numpy()

        return measured(predict, [table.known[i].material.structure for i in rows], self.cache)

    def _progress(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(f"training {self.name}", done, total)


def run_papers(
    variants: Sequence[PaperVariant],
    ours: EnsembleVariant,
    table: TensorTable,
    numbers: Sequence[int],
    parts: Sequence[str],
    work: Path,
    cards: Path,
    note: Note,
    *,
    train_ours: bool = False,
    tail: bool = False,
) -> None:
    """Train what has no result in ``work`` yet, and write the card of a model after each network.

    All models have split and part behind them before the next part, or split, begins. What a card
    that lies there says of other splits stays in it.

    Parameters
    ----------
    ours
        Our model, which learns all parts at once and has no budget. Where ``work`` holds its
        predictions, it gets cards beside the others, and they are compared with it.
    train_ours
        Also train ours where predictions of it are missing, before the others.

    Raises
    ------
    UserError
        Predictions of splits in ``work`` are of other data or another budget, pretrained weights
        are missing, or a card that lies there would lose splits; before anything is trained.
    """
    for variant in variants:
        require_pretrained(variant.name, variant.cache.root)
        require_cards(variant.name, variant, table, numbers, parts, work, cards)
    require_cards(OURS, ours, table, numbers if train_ours else (), PARTS, work, cards)
    if train_ours:
        run_splits(OURS, ours, table, numbers, work, note)
    if done_splits(OURS, ours, table, work):
        card = splits_card(OURS, ours, table, work, None)
        card["measured"] = _measured_once(table, ours.cache, work / OURS / "measured.json")
        write_continued(card, cards, note)
    else:
        note(f"{work} has no predictions of {OURS} to compare with: --models {OURS} makes them.")
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
                write_continued(paper_card(variant, table, work), cards, note)
    for merit in TAIL_MERITS if tail else ():
        if train_ours or (work / OURS / f"tail-{merit}.npz").exists():
            card = run_tail(OURS, ours, table, merit, work, note)
            write_card(cards / f"{OURS}-tail-{merit}.yaml", card)
        for variant in variants:
            card = run_tail(variant.name, variant, table, merit, work, note)
            write_card(cards / f"{variant.name}-tail-{merit}.yaml", card)


def paper_card(variant: PaperVariant, table: TensorTable, work: Path) -> dict[str, Any]:
    """Figures over what is done, compared with ours on the same test materials."""
    reference = OURS if (work / OURS).is_dir() else None
    return splits_card(variant.name, variant, table, work, reference)


def _measured_once(table: TensorTable, cache: FeatureCache, path: Path) -> dict[str, Any]:
    """Violations, parameters and throughput of the ensemble that comes along, force constants
    included."""
    if path.exists() and RATE in (before := json.loads(path.read_text())):
        return dict(before)
    ensemble = shipped()
    rows = published_split(table.material_ids, 1).test
    force_constants = functools.cache(ForceConstantCache.beside)

    def predict(crystals: Sequence[Structure], own: FeatureCache) -> Array:
        found = ensemble.predict(crystals, "PBE", own, force_constants=force_constants(own))
        return found.central("static")

    found = {
        "parameters": sum(p.numel() for p in ensemble.readout.parameters()),
        **measured(predict, [table.known[i].material.structure for i in rows], cache),
    }
    atomic_write(path, json.dumps(found))
    return found
