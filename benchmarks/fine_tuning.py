"""Would it help to train the potential's last layer as well? A trial on small crystals.

One readout, structure alone, is trained on frozen features of the training crystals of a published
split with at most so many atoms. From there it is trained on twice, with the same crystals, order
and learning rates: with the features frozen, and with the weights of the potential's last layer
free. Both are tested on the split's test crystals of that size.

    SCREEN_DATA=../shared/data python benchmarks/fine_tuning.py --atoms 8 --passes 6
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.cache import FeatureCache
from models.data import Inputs, Normalisation, Rows
from models.dielectric import DielectricLoss, DielectricModel, Labels
from models.encoder import Encoder, rank2_basis
from models.ensemble import LATENT
from models.fitting import labels_of
from models.inputs import N_CONTEXT
from models.metrics import PARTS, material_errors
from models.protocol.scores import paired
from models.protocol.splits import published_split
from models.protocol.table import TensorTable
from models.readout import Dropout, Readout, Width
from models.settings import FUNCTIONALS
from models.targets import electronic_from_target, from_target
from screening.symmetry import primitive_cell

READOUT_RATE = 3e-4
"""Peak learning rate of the readout when it is trained on, a tenth of what it began with."""
LAYER_RATE = 1e-4
"""Of the potential's layer."""
BATCH = 16
METRICS = ("log_scalar", "log_anisotropy", "mae_9_below_100")
FIRST_RATE, FIRST_BATCH, FIRST_PASSES = 3e-3, 48, 60


@dataclass
class Crystals:
    """Small crystals of a part of the split, with frozen features of all their atoms."""

    cells: list[Any]
    frozen: list[torch.Tensor]
    rows: Rows
    context: torch.Tensor
    labels: Labels
    table_rows: np.ndarray

    @classmethod
    def of(cls, table: TensorTable, chosen: np.ndarray, atoms: int, cache: FeatureCache) -> Any:
        """Those of ``chosen`` that have at most so many atoms in their primitive cell."""
        cells = [primitive_cell(table.known[i].material.structure) for i in chosen]
        small = [k for k, cell in enumerate(cells) if len(cell[2]) <= atoms]
        chosen = chosen[small]
        known = [table.known[i] for i in chosen]
        reduced = cache.reduced([k.material.structure for k in known])
        features = cache.features([k.material.structure for k in known])
        context = torch.zeros(len(known), N_CONTEXT)
        context[:, 0] = torch.tensor([float(FUNCTIONALS.index(k.functional)) for k in known])
        rows = Rows.of([c for c, _ in reduced], [f for _, f in reduced], cache.encoder.layout.width)
        return cls(
            [cells[k] for k in small], [torch.from_numpy(np.array(f)).float() for f in features],
            rows, context, labels_of(known, torch.device("cpu")), chosen,
        )  # fmt: skip

    def some(self, index: np.ndarray, features: torch.Tensor, normalise: Any) -> Inputs:
        """Network inputs of some crystals, from the features of all their atoms."""
        sizes = np.array([len(self.cells[i][2]) for i in index])
        weights = np.repeat(1 / sizes, sizes).astype(np.float32)
        return Inputs(
            *normalise(features), self.context[index], sizes, np.cumsum(sizes) - sizes,
            torch.from_numpy(weights), self.rows.projectors[index],
        )  # fmt: skip

    def labels_of(self, index: np.ndarray) -> Labels:
        """Labels of some crystals."""
        own = self.labels
        return Labels(own.targets[index], own.known[index], own.means[index], own.weak[index])


Features = Callable[[Crystals, np.ndarray], torch.Tensor]
"""Crystals and which of them → features of all their atoms."""


def frozen(crystals: Crystals, index: np.ndarray) -> torch.Tensor:
    return torch.cat([crystals.frozen[i] for i in index])


def through(encoder: Encoder) -> Features:
    """Features of the potential as it is now."""
    return lambda crystals, index: encoder.rows([crystals.cells[i] for i in index])


class Trial:
    """A readout, whatever gives it its features, and how both are trained and tested."""

    def __init__(self, crystals: Crystals, encoder: Encoder) -> None:
        layout = encoder.layout
        normalisation = Normalisation.of(crystals.rows, layout)
        self.normalise = lambda rows: normalisation(rows, layout)
        inputs = Width(layout.scalars + N_CONTEXT, layout.vectors, layout.tensors)
        self.readout = Readout(1, inputs, LATENT, rank2_basis(), n_tensors=2, n_scalars=1)
        trace = crystals.labels.targets.diagonal(dim1=-2, dim2=-1).mean(-1)
        known = crystals.labels.known
        means = (trace * known).sum(0) / known.sum(0)
        self.readout.reset([0], torch.tensor([[*means.tolist(), 0.0]]))
        self.offset = float(means[1])

    def model(self, inputs: Inputs) -> DielectricModel:
        """The network on some crystals; nothing is known of their force constants."""
        estimate = torch.zeros(1, len(inputs.sizes), 3, 3)
        return DielectricModel(self.readout, inputs, estimate, self.offset)

    def train(
        self, crystals: Crystals, features: Features, passes: int, batch: int,
        groups: list[dict[str, Any]], seed: int,
    ) -> float:  # fmt: skip
        """AdamW on one cycle; returns the CPU time in seconds."""
        begun = time.process_time()
        steps = passes * math.ceil(len(crystals.cells) / batch)
        optimiser = torch.optim.AdamW(groups, weight_decay=2e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, [group["lr"] for group in groups], total_steps=steps
        )
        weights = [p for group in groups for p in group["params"]]
        hiding = Dropout(0.0, [torch.Generator().manual_seed(seed)])
        said = time.monotonic()
        for step, index in enumerate(batches(len(crystals.cells), batch, steps, seed), start=1):
            inputs = crystals.some(index, features(crystals, index), self.normalise)
            loss = DielectricLoss(self.model(inputs), crystals.labels_of(index))
            optimiser.zero_grad(set_to_none=True)
            value = loss(np.arange(len(index))[None], hiding).sum()
            value.backward()
            torch.nn.utils.clip_grad_norm_(weights, 2.0)
            optimiser.step()
            schedule.step()
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"  step {step} of {steps}, loss {float(value):.4f}", flush=True)
        return time.process_time() - begun

    @torch.no_grad()
    def predict(self, crystals: Crystals, features: Features) -> dict[str, np.ndarray]:
        """Part → tensors (n, 3, 3)."""
        found = []
        for start in range(0, len(crystals.cells), BATCH):
            index = np.arange(start, min(start + BATCH, len(crystals.cells)))
            inputs = crystals.some(index, features(crystals, index), self.normalise)
            found.append(self.model(inputs)(np.arange(len(index))[None], Dropout(0.0))[0])
        targets = torch.cat(found).numpy().astype(float)
        electronic = electronic_from_target(targets[:, 0])
        ionic = from_target(targets[:, 1])
        return {"electronic": electronic, "ionic": ionic, "static": electronic + ionic}


def batches(n: int, size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of shuffled row numbers, the same for the same seed."""
    random = np.random.default_rng(seed)
    queue = np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        while len(queue) < size:
            queue = np.concatenate([queue, random.permutation(n)])
        batch, queue = np.split(queue, [size])
        yield batch


def errors(table: TensorTable, tested: Crystals, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Part → errors of each labelled test crystal."""
    out = {}
    for part in PARTS:
        known = table.labelled(part)[tested.table_rows]
        truth = table.truth(part)[tested.table_rows[known]]
        out[part] = material_errors(found[part][known], truth)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--atoms", type=int, default=8, help="in the primitive cell, at most")
    parser.add_argument("--passes", type=int, default=6, help="of the training that may free it")
    given = parser.parse_args()
    data = Path(os.environ.get("SCREEN_DATA", "../shared/data")) / "dielectric_tensors.parquet"
    table = TensorTable.read(data)
    split = published_split(table.material_ids, given.split)
    cache = FeatureCache("7net-l3i5")
    encoder = Encoder("7net-l3i5")
    training = Crystals.of(table, split.train, given.atoms, cache)
    tested = Crystals.of(table, split.test, given.atoms, cache)
    print(f"{len(training.cells)} training and {len(tested.cells)} test crystals", flush=True)

    trial = Trial(training, encoder)
    readout = [{"params": list(trial.readout.parameters()), "lr": FIRST_RATE}]
    took = {"readout": trial.train(training, frozen, FIRST_PASSES, FIRST_BATCH, readout, 1)}
    found = {"readout": errors(table, tested, trial.predict(tested, frozen))}
    print(f"readout: {took['readout']:.0f} CPU s", flush=True)
    first = copy.deepcopy(trial.readout.state_dict())

    layer = len(encoder._slices) - 1
    free = [p for n, p in encoder._model.named_parameters() if n.startswith(f"{layer}_")]
    for name, features in (("continued", frozen), ("fine-tuned", through(encoder))):
        trial.readout.load_state_dict(first)
        groups = [{"params": list(trial.readout.parameters()), "lr": READOUT_RATE}]
        if features is not frozen:
            for parameter in free:
                parameter.requires_grad_(True)
            groups.append({"params": free, "lr": LAYER_RATE})
        took[name] = trial.train(training, features, given.passes, BATCH, groups, 2)
        found[name] = errors(table, tested, trial.predict(tested, features))
        print(f"{name}: {took[name]:.0f} CPU s", flush=True)

    print(f"\nweights of the layer: {sum(p.numel() for p in free):,}\n")
    print("| | CPU s | part | ln ε̄ | ln λmax/λmin | MAE(9), all below 100 |")
    print("|---|---|---|---|---|---|")
    for name, parts in found.items():
        for part, e in parts.items():
            cells = [name, f"{took[name]:.0f}", part, *(f"{np.nanmean(e[m]):.4f}" for m in METRICS)]
            print("| " + " | ".join(cells) + " |")
    print("\nfine-tuned − continued on the same crystals (95 % interval):")
    for part in PARTS:
        for metric in METRICS:
            d = paired(found["fine-tuned"][part][metric], found["continued"][part][metric])
            interval = f"{d['low']:+.4f} to {d['high']:+.4f}"
            print(f"  {part} {metric}: {d['difference']:+.4f} ({interval})")


if __name__ == "__main__":
    main()
