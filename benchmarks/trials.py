"""Changes to the readout and to the ensemble, tried on small crystals of a published split.

``attention``: each atom weighs the potential's layers by itself before they are mixed. Readouts
with and without, structure alone, are trained from several seeds on the training crystals with at
most so many atoms, and tested on such test crystals.

``last-layer``: from the first of those readouts training goes on twice, with the same crystals,
order and learning rates: with the features frozen, and with the weights of the potential's last
layer free.

``ensemble``: three ways to five opinions. Five networks, each of which leaves out a tenth of the
crystals, as the product has it; five snapshots of one network, taken where its learning rate, up
and down again for each, is lowest; and five heads on one network, each of which leaves out a tenth.

    SCREEN_DATA=../shared/data python benchmarks/trials.py attention last-layer ensemble --atoms 6
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from small_crystals import Crystals
from torch import nn

from models.cache import FeatureCache
from models.calibration import spread_of
from models.data import Inputs, Normalisation
from models.dielectric import DielectricLoss, DielectricModel
from models.encoder import Encoder, rank2_basis
from models.ensemble import LATENT
from models.fitting import FOLDS
from models.inputs import N_CONTEXT
from models.metrics import PARTS, material_errors
from models.protocol.scores import paired
from models.protocol.splits import published_split
from models.protocol.table import TensorTable
from models.readout import Dropout, Readout, Width
from models.targets import electronic_from_target, from_target

READOUT_RATE = 3e-4
"""Peak learning rate of the readout when it is trained on, a tenth of what it began with."""
LAYER_RATE = 1e-4
"""Of the potential's layer."""
BATCH = 16
METRICS = ("log_scalar", "log_anisotropy", "mae_9_below_100")
MEMBERS = 5
FIRST_RATE, FIRST_BATCH, FIRST_PASSES = 3e-3, 48, 60


Features = Callable[[Crystals, np.ndarray], torch.Tensor]
"""Crystals and which of them → features of all their atoms."""


Errors = dict[str, dict[str, np.ndarray]]
"""Part → metric → error of each test crystal."""


def frozen(crystals: Crystals, index: np.ndarray) -> torch.Tensor:
    return torch.cat([crystals.frozen[i] for i in index])


def through(encoder: Encoder) -> Features:
    """Features of the potential as it is now."""
    return lambda crystals, index: encoder.rows([crystals.cells[i] for i in index])


class Attention(nn.Module):
    """Features of all layers, those of each layer times a weight that the atom gives it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        slices = encoder._slices
        self.score = nn.Linear(encoder.layout.scalars, len(slices))
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.layer_of = [
            torch.tensor([k for k, own in enumerate(slices) if l in own for _ in range(own[l][1])])
            for l in range(3)
        ]

    def forward(
        self, s: torch.Tensor, v: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weights = torch.softmax(self.score(s), dim=-1) * self.score.out_features
        of_s, of_v, of_t = (weights[:, layers] for layers in self.layer_of)
        return s * of_s, v * of_v[:, None], t * of_t[:, None]


class Head(nn.Module):
    """Two tensors and a scalar of a readout that has them several times over."""

    def __init__(self, readout: Readout, number: int) -> None:
        super().__init__()
        self.readout = readout
        self.number = number

    def forward(self, *features: Any) -> tuple[torch.Tensor, torch.Tensor]:
        tensors, scalars = self.readout(*features)
        first = 2 * self.number
        return tensors[:, :, first : first + 2], scalars[:, :, self.number : self.number + 1]


class Trial:
    """A readout, whatever gives it its features, and how both are trained and tested.

    Parameters
    ----------
    heads
        Predictions of each crystal.
    leaves_out
        Part of the training crystals (of ``FOLDS``) that each head is not trained on, if any.
    """

    def __init__(
        self, crystals: Crystals, encoder: Encoder, seed: int, *, attention: bool = False,
        heads: int = 1, leaves_out: Sequence[int] = (),
    ) -> None:  # fmt: skip
        layout = encoder.layout
        normalisation = Normalisation.of(crystals.rows, layout)
        torch.manual_seed(seed)
        self.attention = Attention(encoder) if attention else None
        weigh = self.attention or (lambda *features: features)
        self.normalise = lambda rows: weigh(*normalisation(rows, layout))
        inputs = Width(layout.scalars + N_CONTEXT, layout.vectors, layout.tensors)
        self.heads = heads
        self.leaves_out = leaves_out
        self.readout = Readout(
            1, inputs, LATENT, rank2_basis(), n_tensors=2 * heads, n_scalars=heads
        )
        trace = crystals.labels.targets.diagonal(dim1=-2, dim2=-1).mean(-1)
        known = crystals.labels.known
        means = (trace * known).sum(0) / known.sum(0)
        outputs = [*(means.tolist() * heads), *([0.0] * heads)]
        self.readout.reset([seed], torch.tensor([outputs]))
        self.offset = float(means[1])

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Weights outside the potential."""
        modules = [self.readout, *([self.attention] if self.attention else [])]
        return [p for module in modules for p in module.parameters()]

    def models(self, inputs: Inputs) -> list[DielectricModel]:
        """A network per head on some crystals; nothing is known of their force constants."""
        estimate = torch.zeros(1, len(inputs.sizes), 3, 3)
        networks: list[Any] = [Head(self.readout, number) for number in range(self.heads)]
        return [DielectricModel(n, inputs, estimate, self.offset) for n in networks]

    def learned(self, index: np.ndarray, head: int) -> np.ndarray:
        """Places in a batch of the crystals that a head is trained on, (1, k)."""
        kept = index % FOLDS != self.leaves_out[head] if self.leaves_out else index >= 0
        return np.flatnonzero(kept)[None]

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
            labels = crystals.labels_of(index)
            optimiser.zero_grad(set_to_none=True)
            losses = [
                DielectricLoss(model, labels)(self.learned(index, head), hiding).sum()
                for head, model in enumerate(self.models(inputs))
            ]
            value = torch.stack(losses).sum()
            value.backward()
            torch.nn.utils.clip_grad_norm_(weights, 2.0)
            optimiser.step()
            schedule.step()
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"  step {step} of {steps}, loss {float(value):.4f}", flush=True)
        return time.process_time() - begun

    def begin(self, crystals: Crystals) -> float:
        """Train all but the potential from the start; returns the CPU time in seconds."""
        groups = [{"params": self.parameters, "lr": FIRST_RATE}]
        return self.train(crystals, frozen, FIRST_PASSES, FIRST_BATCH, groups, 1)

    @torch.no_grad()
    def targets(self, crystals: Crystals, features: Features) -> np.ndarray:
        """L of both parts from each head, (heads, n, 2, 3, 3)."""
        found = []
        for start in range(0, len(crystals.cells), BATCH):
            index = np.arange(start, min(start + BATCH, len(crystals.cells)))
            inputs = crystals.some(index, features(crystals, index), self.normalise)
            places = np.arange(len(index))[None]
            found.append(torch.stack([m(places, Dropout(0.0))[0] for m in self.models(inputs)]))
        return torch.cat(found, dim=1).numpy().astype(float)

    def predict(self, crystals: Crystals, features: Features) -> dict[str, np.ndarray]:
        """Part → tensors (n, 3, 3)."""
        return tensors_of(self.targets(crystals, features).mean(axis=0))


def tensors_of(targets: np.ndarray) -> dict[str, np.ndarray]:
    """L (n, 2, 3, 3) → part → tensors (n, 3, 3)."""
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


def errors(table: TensorTable, tested: Crystals, found: dict[str, np.ndarray]) -> Errors:
    """Part → errors of each labelled test crystal."""
    out = {}
    for part in PARTS:
        known = table.labelled(part)[tested.table_rows]
        truth = table.truth(part)[tested.table_rows[known]]
        out[part] = material_errors(found[part][known], truth)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["attention", "last-layer", "ensemble"])
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--atoms", type=int, default=6, help="in the primitive cell, at most")
    parser.add_argument("--seeds", type=int, default=3, help="of each readout with attention")
    parser.add_argument("--passes", type=int, default=6, help="with the last layer free")
    given = parser.parse_args()
    data = Path(os.environ.get("SCREEN_DATA", "../shared/data")) / "dielectric_tensors.parquet"
    table = TensorTable.read(data)
    split = published_split(table.material_ids, given.split)
    cache = FeatureCache("7net-l3i5")
    encoder = Encoder("7net-l3i5")
    training = Crystals.of(table, split.train, given.atoms, cache)
    tested = Crystals.of(table, split.test, given.atoms, cache)
    print(f"{len(training.cells)} training and {len(tested.cells)} test crystals", flush=True)

    def judge(trial: Trial, features: Features = frozen) -> Errors:
        return errors(table, tested, trial.predict(tested, features))

    if "attention" in given.what:
        arms: dict[str, list[Errors]] = {"readout": [], "with attention": []}
        for seed in range(given.seeds):
            for name, found in arms.items():
                trial = Trial(training, encoder, seed, attention=name == "with attention")
                cpu = trial.begin(training)
                found.append(judge(trial))
                print(f"{name}, seed {seed}: {cpu:.0f} CPU s", flush=True)
        tell({name: averaged(found) for name, found in arms.items()})
    if "last-layer" in given.what:
        tell(last_layer(training, encoder, given.passes, judge))
    if "ensemble" in given.what:
        of_ensembles = {}
        for name, targets in ensembles(training, tested, encoder).items():
            of_ensembles[name] = errors(table, tested, tensors_of(targets.mean(axis=0)))
            print(f"{name}: {spread_and_error(tested, targets)}", flush=True)
        networks = of_ensembles.pop("networks")
        for name, own in of_ensembles.items():
            tell({"networks": networks, name: own})


def ensembles(training: Crystals, tested: Crystals, encoder: Encoder) -> dict[str, np.ndarray]:
    """How five opinions were made → L of the test crystals, (members, n, 2, 3, 3)."""
    found: dict[str, list[np.ndarray]] = {"networks": [], "snapshots": []}
    cpu = dict.fromkeys(found, 0.0)
    for member in range(MEMBERS):
        network = Trial(training, encoder, member, leaves_out=[member])
        cpu["networks"] += network.begin(training)
        found["networks"].append(network.targets(tested, frozen)[0])
    one = Trial(training, encoder, 0)
    for _ in range(MEMBERS):
        cpu["snapshots"] += one.begin(training)
        found["snapshots"].append(one.targets(tested, frozen)[0])
    headed = Trial(training, encoder, 0, heads=MEMBERS, leaves_out=range(MEMBERS))
    cpu["heads"] = headed.begin(training)
    for name, seconds in cpu.items():
        print(f"{name}: {seconds:.0f} CPU s", flush=True)
    out = {name: np.stack(targets) for name, targets in found.items()}
    out["one network"] = out["networks"][:1]
    return {**out, "heads": headed.targets(tested, frozen)}


def spread_and_error(tested: Crystals, targets: np.ndarray) -> str:
    """Rank correlation of the members' spread with the error of their mean, and the ratio."""
    if len(targets) < 2:
        return "no spread"
    said = []
    for part, name in enumerate(PARTS[:2]):
        known = tested.labels.known[:, part].numpy() > 0
        spread = spread_of(targets[:, known, part])
        truth = tested.labels.targets[:, part].numpy()[known]
        wrong = np.abs(np.trace(targets[:, known, part].mean(axis=0) - truth, axis1=1, axis2=2) / 3)
        correlation = float(spearmanr(spread, wrong).statistic)
        ratio = float(np.sqrt(np.mean(wrong**2) / np.mean(spread**2)))
        said.append(f"{name}: rank correlation {correlation:.2f}, error/spread {ratio:.1f}")
    return "; ".join(said)


def last_layer(
    training: Crystals, encoder: Encoder, passes: int, judge: Callable[[Trial, Features], Errors]
) -> dict[str, Errors]:
    """Errors without and with the potential's last layer trained as well."""
    trial = Trial(training, encoder, 0)
    trial.begin(training)
    first = copy.deepcopy(trial.readout.state_dict())
    layer = len(encoder._slices) - 1
    named = encoder._model.named_parameters()
    free = [p for name, p in named if name.startswith(f"{layer}_")]
    found = {}
    for name, features in (("frozen", frozen), ("last layer free", through(encoder))):
        trial.readout.load_state_dict(first)
        groups = [{"params": trial.parameters, "lr": READOUT_RATE}]
        if features is not frozen:
            for parameter in free:
                parameter.requires_grad_(True)
            groups.append({"params": free, "lr": LAYER_RATE})
        cpu = trial.train(training, features, passes, BATCH, groups, 2)
        found[name] = judge(trial, features)
        print(f"{name}: {cpu:.0f} CPU s", flush=True)
    return found


def averaged(found: Sequence[Errors]) -> Errors:
    """Errors of each crystal, the mean over trainings."""
    return {
        part: {m: np.mean([e[part][m] for e in found], axis=0) for m in METRICS} for part in PARTS
    }


def tell(found: dict[str, Errors]) -> None:
    """Means of two arms, and the second minus the first on the same crystals."""
    print("\n| part | error of | " + " | ".join(found) + " | difference (95 %) |")
    print("|---|---|---|---|---|")
    first, second = found.values()
    for part in PARTS:
        for metric in METRICS:
            means = [f"{np.nanmean(e[part][metric]):.4f}" for e in (first, second)]
            d = paired(second[part][metric], first[part][metric])
            interval = f"{d['difference']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})"
            print("| " + " | ".join([part, metric, *means, interval]) + " |")
    print(flush=True)


if __name__ == "__main__":
    main()
