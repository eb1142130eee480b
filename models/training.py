"""Training of all members of an ensemble side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data import Inputs
from models.readout import N_PARTS, Dropout, Readout
from models.settings import ModelSettings
from models.splits import Split

Progress = Callable[[int, int], None]

CHECKS = 12
"""Validations in the second half of the training; each member keeps its best state."""
SMALLEST_VALIDATION = 10
"""With fewer validation crystals than this the last state is kept: the best would be chance."""
CRYSTALS_PER_CHECK = 128
"""Crystals validated at once, a bound on memory."""
CLIP = 2.0
"""Largest gradient norm of a member (DTNet)."""


@dataclass(frozen=True)
class Labels:
    """Targets L (n, parts, 3, 3) and which of them are known (n, parts)."""

    targets: Tensor
    known: Tensor


def train(
    readout: Readout,
    inputs: Inputs,
    labels: Labels,
    splits: list[Split],
    settings: ModelSettings,
    seeds: list[int],
    progress: Progress | None = None,
) -> float:
    """Fit every member on its own split; returns the wall time in seconds.

    AdamW on one learning-rate cycle, mean absolute error of the log-matrix targets, gradients
    clipped member by member. Batches, masks and initial weights come from the members' seeds.
    """
    start = time.perf_counter()
    device = inputs.device
    smallest = min(len(split.train) for split in splits)
    batch_size = min(settings.batch_size, smallest)
    largest = max(len(split.train) for split in splits)
    steps = settings.epochs * -(-largest // batch_size)
    steps = min(max(steps, settings.min_steps), settings.max_steps)
    readout.reset(seeds, _mean_targets(labels, splits))
    readout.to(device).train()
    streams = [_Stream(s.train, batch_size, seed) for s, seed in zip(splits, seeds, strict=True)]
    masks = [torch.Generator(device).manual_seed(seed + 1) for seed in seeds]
    optimiser = torch.optim.AdamW(
        readout.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps
    )
    problem = _Problem(readout, inputs, labels)
    keeper = _BestState(readout, splits)
    dropout = Dropout(settings.dropout, masks)
    check_every = max(1, steps // (2 * CHECKS))
    for step in range(1, steps + 1):
        crystals = np.stack([next(stream) for stream in streams])
        loss = problem.loss(crystals, dropout).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        _clip(readout)
        optimiser.step()
        schedule.step()
        if step == steps or (step > steps // 2 and step % check_every == 0):
            keeper.offer(problem.validate(splits))
        if progress is not None and (step % 20 == 0 or step == steps):
            progress(step, steps)
    keeper.restore()
    readout.eval()
    return time.perf_counter() - start


@dataclass(frozen=True)
class _Problem:
    """A readout and what it is fitted to."""

    readout: Readout
    inputs: Inputs
    labels: Labels

    def loss(self, crystals: NDArray[np.int64], dropout: Dropout) -> Tensor:
        """Mean absolute error of the known targets of (m, b) crystals, one value per member."""
        batch = self.inputs.batch(crystals)
        per_atom = self.readout(*batch.features, dropout)
        index = torch.as_tensor(crystals, device=self.inputs.device)
        error = (batch.mean_over_atoms(per_atom) - self.labels.targets[index]).abs()
        known = self.labels.known[index]
        return (error.mean(dim=(-1, -2)) * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(1.0)

    @torch.no_grad()
    def validate(self, splits: list[Split]) -> Tensor:
        """Loss of each member on its own validation crystals, repeated up to equal length."""
        self.readout.eval()
        longest = max(len(split.validation) for split in splits)
        crystals = np.stack([np.resize(split.validation, longest) for split in splits])
        total = torch.zeros(len(splits), device=self.inputs.device)
        for chunk in np.array_split(crystals, max(1, longest // CRYSTALS_PER_CHECK), axis=1):
            total += self.loss(chunk, Dropout(0.0)) * chunk.shape[1] / longest
        self.readout.train()
        return total


def _mean_targets(labels: Labels, splits: list[Split]) -> Tensor:
    """Mean diagonal target of each member's training crystals, (m, parts)."""
    trace = labels.targets.diagonal(dim1=-2, dim2=-1).mean(-1).cpu()
    known = labels.known.cpu()
    means = [
        (trace[s.train] * known[s.train]).sum(0) / known[s.train].sum(0).clamp(min=1.0)
        for s in splits
    ]
    return torch.stack(means).reshape(len(splits), N_PARTS)


def _clip(readout: Readout) -> None:
    gradients = [p.grad for p in readout.parameters() if p.grad is not None]
    squares = torch.stack([g.square().flatten(1).sum(1) for g in gradients]).sum(0)
    scale = (CLIP / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.reshape(-1, *(1,) * (g.dim() - 1)))


class _Stream:
    """Endless batches of a training set, each pass in a new seeded order."""

    def __init__(self, rows: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.random = np.random.default_rng(seed)
        self.queue = np.zeros(0, dtype=np.int64)

    def __next__(self) -> NDArray[np.int64]:
        while len(self.queue) < self.batch_size:
            self.queue = np.concatenate([self.queue, self.random.permutation(self.rows)])
        batch, self.queue = np.split(self.queue, [self.batch_size])
        return batch


class _BestState:
    """Each member's parameters at its lowest validation loss."""

    def __init__(self, readout: Readout, splits: list[Split]) -> None:
        self.readout = readout
        self.trusted = [len(split.validation) >= SMALLEST_VALIDATION for split in splits]
        self.lowest = torch.full((len(splits),), torch.inf)
        self.state = {name: p.detach().clone() for name, p in readout.named_parameters()}

    def offer(self, losses: Tensor) -> None:
        losses = losses.cpu()
        better = [
            not trusted or bool(loss < low)
            for trusted, loss, low in zip(self.trusted, losses, self.lowest, strict=True)
        ]
        chosen = torch.tensor(better)
        self.lowest = torch.where(chosen, losses, self.lowest)
        for name, parameter in self.readout.named_parameters():
            self.state[name][chosen] = parameter.detach()[chosen]

    def restore(self) -> None:
        self.readout.load_state_dict(self.state)
