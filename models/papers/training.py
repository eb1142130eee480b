"""Training of one published network on one kind of label."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch, Data

from models.papers.network import PaperNetwork
from models.papers.recipes import Recipe
from models.training import PRECISION
from screening.progress import Progress

Indices = NDArray[np.int64]

HUBER = 1.0
"""Error in the label's unit at which the Huber loss becomes linear."""
EVALUATED_TOGETHER = 128
"""Crystals per batch where nothing is trained."""


@dataclass(frozen=True)
class Budget:
    """Where training ends: after the recipe's passes, or sooner.

    Attributes
    ----------
    cpu_seconds
        Processor time of training, validation included; infinite: only passes count, and the same
        seed gives the same network.
    epochs
        Passes instead of the recipe's.
    steps
        Lower and upper limit of optimiser steps, whatever the size of the training set.
    """

    cpu_seconds: float = math.inf
    epochs: int | None = None
    steps: tuple[int, int] = (0, 10**9)

    def epochs_of(self, recipe: Recipe, steps_per_epoch: int) -> int:
        """Passes over a training set."""
        low, high = (math.ceil(limit / steps_per_epoch) for limit in self.steps)
        return max(1, min(max(self.epochs or recipe.epochs, low), high))

    def to_dict(self) -> dict[str, float | None]:
        """As it stands in a card; None where there is no limit."""
        seconds = self.cpu_seconds
        return {
            "cpu_seconds_per_network": seconds if math.isfinite(seconds) else None,
            "epochs": self.epochs,
        }


Forward = Callable[[Data], Tensor]


def train(
    network: PaperNetwork,
    graphs: Sequence[Data],
    targets: Tensor,
    training: Indices,
    validation: Indices,
    recipe: Recipe,
    budget: Budget,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    forward: Forward | None = None,
) -> dict[str, Any]:
    """Fit a network; it ends with the weights of the smallest validation error.

    Parameters
    ----------
    targets
        Labels of all graphs, (n, ...), of the shape that ``forward`` gives.
    training, validation
        Rows of the graphs; without validation rows the last weights are kept.
    forward
        What is fitted, by default the network's tensors.

    Returns
    -------
    dict
        ``epochs`` begun, ``steps``, ``cpu_seconds``, ``seconds``, ``best_epoch`` and
        ``validation_mae``.
    """
    forward = forward or network
    network.to(device)
    targets = targets.to(device, network.mean.dtype)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    size = min(recipe.batch_size, len(training))
    per_epoch = len(training) // size
    total = budget.epochs_of(recipe, per_epoch) * per_epoch
    random = np.random.default_rng(seed)
    clock = _Clock(budget.cpu_seconds)
    best: tuple[float, int, dict[str, Tensor]] = (math.inf, 0, {})
    step = epoch = 0
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(PRECISION)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        while step < total and clock.share < 1 and epoch - best[1] <= recipe.patience:
            epoch += 1
            network.train()
            order = random.permutation(training)
            for start in range(0, per_epoch * size, size):
                share = max(step / total, clock.share)
                if share >= 1:
                    break
                for group in optimiser.param_groups:
                    group["lr"] = recipe.learning_rate * recipe.schedule(share)
                rows = order[start : start + size]
                batch = Batch.from_data_list([graphs[i] for i in rows]).to(device)
                optimiser.zero_grad(set_to_none=True)
                loss = torch.nn.functional.huber_loss(
                    forward(batch), targets[torch.as_tensor(rows)], delta=HUBER
                )
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
                optimiser.step()
                step += 1
                if progress is not None:
                    progress(round(1000 * share), 1000)
            if len(validation):
                found = evaluate(network, [graphs[i] for i in validation], device, forward)
                error = float((found - targets[torch.as_tensor(validation)].cpu()).abs().mean())
                if error < best[0]:
                    best = error, epoch, copy.deepcopy(network.state_dict())
            else:
                best = math.inf, epoch, {}
    torch.set_float32_matmul_precision(before)
    if best[2]:
        network.load_state_dict(best[2])
    network.eval()
    return {
        "epochs": epoch,
        "steps": step,
        "best_epoch": best[1],
        "validation_mae": round(best[0], 4) if best[2] else None,
        "cpu_seconds": round(clock.spent, 1),
        "seconds": round(clock.wall, 1),
    }


def evaluate(
    network: PaperNetwork,
    graphs: Sequence[Data],
    device: torch.device,
    forward: Forward | None = None,
) -> Tensor:
    """Outputs for graphs, on the CPU, (n, ...)."""
    network.to(device).eval()
    found = []
    for start in range(0, len(graphs), EVALUATED_TOGETHER):
        batch = Batch.from_data_list(list(graphs[start : start + EVALUATED_TOGETHER])).to(device)
        with torch.set_grad_enabled(network.differentiates):
            found.append((forward or network)(batch).detach().cpu())
    return torch.cat(found) if found else torch.zeros(0, 3, 3)


class _Clock:
    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.cpu_start, self.wall_start = time.process_time(), time.perf_counter()

    @property
    def spent(self) -> float:
        return time.process_time() - self.cpu_start

    @property
    def wall(self) -> float:
        return time.perf_counter() - self.wall_start

    @property
    def share(self) -> float:
        return self.spent / self.limit
