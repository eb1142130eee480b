"""Training of all members of an ensemble side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.readout import Dropout
from models.settings import ModelSettings
from screening.progress import Progress

Loss = Callable[[NDArray[np.int64], Dropout], Tensor]
"""Crystals (m, b) → mean loss of each member (m,)."""

PRECISION = "medium"
"""Of matrix products in training: in bfloat16 where the processor multiplies those faster."""
CLIP = 2.0
"""Largest gradient norm of a member (DTNet)."""


def train(
    network: nn.Module,
    loss: Loss,
    rows: Sequence[NDArray[np.int64]],
    settings: ModelSettings,
    seeds: Sequence[int],
    device: torch.device,
    progress: Progress | None = None,
) -> float:
    """Fit every member on its own training crystals; returns the wall time in seconds.

    AdamW on one learning-rate cycle, gradients clipped member by member. Nothing is chosen by the
    crystals that a member was not trained on, so that they stay a fair test of it. Batches and
    masks come from the members' seeds.

    Parameters
    ----------
    network
        Every parameter has a leading member axis; initialised.
    rows
        Row numbers of each member's training crystals.
    """
    start = time.perf_counter()
    batch_size = min(settings.batch_size, min(len(r) for r in rows))
    steps = settings.epochs * -(-max(len(r) for r in rows) // batch_size)
    steps = min(max(steps, settings.min_steps), settings.max_steps)
    network.to(device).train()
    streams = [_Stream(r, batch_size, seed) for r, seed in zip(rows, seeds, strict=True)]
    dropout = Dropout(
        settings.dropout, [torch.Generator(device).manual_seed(seed + 1) for seed in seeds]
    )
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay,
        fused=True,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(PRECISION)
    try:
        for step in range(1, steps + 1):
            crystals = np.stack([next(stream) for stream in streams])
            optimiser.zero_grad(set_to_none=True)
            loss(crystals, dropout).sum().backward()
            _clip(network)
            optimiser.step()
            schedule.step()
            if progress is not None and (step % 20 == 0 or step == steps):
                progress(step, steps)
    finally:
        torch.set_float32_matmul_precision(before)
    network.eval()
    return time.perf_counter() - start


def _clip(network: nn.Module) -> None:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
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
