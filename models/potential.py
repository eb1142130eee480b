"""The open interatomic potential (SevenNet) as it comes: loading it, and its forces."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.convolution import replace_convolutions
from models.settings import EncoderName
from screening.symmetry import Cell

Array = NDArray[np.float64]

ATOMS_PER_BATCH = {"cpu": 1, "cuda": 4096}
"""Large batches win on a GPU (launch cost). On a CPU one crystal at a time is as quick, and its
numbers do not depend on its company in the last bit: a campaign that was killed in the middle goes
on exactly as it would have."""


def load(name: EncoderName, *, trained: bool = True) -> tuple[Any, dict[str, Any]]:
    """The network and its configuration; the weights come inside the sevenn package.

    Parameters
    ----------
    trained
        False: the same network with random weights, always the same ones.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.util import load_checkpoint

        checkpoint = load_checkpoint(name)
        model = checkpoint.build_model()
        if not trained:
            model = _untrained(model, checkpoint.config)
    model.delete_module_by_key("force_output")
    model.key_grad = None  # sevenn's own forces need stresses too; ours come from the edges
    replace_convolutions(model)
    return model.eval().requires_grad_(False), checkpoint.config


def _untrained(trained: Any, config: dict[str, Any]) -> Any:
    """The same network with fresh weights; what it divides by is counted, not learned."""
    from sevenn.model_build import build_E3_equivariant_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = build_E3_equivariant_model(config)
    counted = {k: v for k, v in trained.state_dict().items() if k.endswith(".denominator")}
    model.load_state_dict(counted, strict=False)
    return model.float()


class Graph:
    """Neighbours of each atom of a crystal within the potential's cutoff.

    Attributes
    ----------
    numbers
        Atomic numbers, (a,).
    edges
        Receiver and sender of each edge, (2, e).
    vectors
        Sender minus receiver in Å, (e, 3).
    """

    def __init__(self, cell: Cell, cutoff: float, device: torch.device) -> None:
        from matscipy.neighbours import neighbour_list

        lattice, positions, species = cell
        i, j, vectors = neighbour_list(
            "ijD", pbc=[True] * 3, cell=lattice, positions=positions @ lattice, cutoff=cutoff
        )
        self.numbers = torch.as_tensor(np.array(species), device=device)  # a copy: may be read-only
        self.edges = torch.as_tensor(np.stack([i, j]).astype(np.int64), device=device)
        self.vectors = torch.as_tensor(vectors, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        return len(self.numbers)


def stack(graphs: Sequence[Graph]) -> dict[str, torch.Tensor]:
    """Input of the network for several crystals at once."""
    sizes = torch.tensor([len(g) for g in graphs], device=graphs[0].numbers.device)
    offsets = torch.cumsum(sizes, 0) - sizes
    numbers = torch.cat([g.numbers for g in graphs])
    return {
        "atomic_numbers": numbers,
        "x": numbers,
        "edge_index": torch.cat(
            [g.edges + offset for g, offset in zip(graphs, offsets, strict=True)], dim=1
        ),
        "edge_vec": torch.cat([g.vectors for g in graphs]),
        "num_atoms": sizes,
        "batch": torch.repeat_interleave(torch.arange(len(graphs), device=sizes.device), sizes),
    }


class Potential:
    """Forces of the potential around a crystal.

    Parameters
    ----------
    name
        ``7net-l3i5`` or ``7net-0``.
    device
        ``cpu`` or ``cuda``.
    """

    def __init__(self, name: EncoderName, device: str = "cpu") -> None:
        model, config = load(name)
        self.device = torch.device(device)
        self.cutoff = float(config["cutoff"])
        self._model = model.to(self.device)

    def forces(self, cell: Cell, displacements: Array, parity: int = 1) -> Array:
        """Forces on all atoms when the atoms of a crystal, and all their images, are displaced.

        Parameters
        ----------
        cell
            The undisplaced crystal of a atoms.
        displacements
            (k, a, 3) in Å.
        parity
            −1 asks the potential about the inverted crystal, with forces turned back; the two
            differ a little, since SevenNet does not know of inversion.

        Returns
        -------
        Array
            (k, a, 3) in eV/Å.
        """
        graph = Graph(cell, self.cutoff, self.device)
        size = max(1, ATOMS_PER_BATCH[self.device.type] // len(graph))
        shifts = torch.as_tensor(displacements, dtype=torch.float32, device=self.device)
        found = [self._forces(graph, part, parity) for part in shifts.split(size)]
        return np.concatenate(found) if found else np.zeros((0, len(graph), 3))

    def _forces(self, graph: Graph, shifts: torch.Tensor, parity: int) -> Array:
        inputs = stack([graph] * len(shifts))
        receiver, sender = inputs["edge_index"]
        flat = shifts.flatten(0, 1)
        vectors = (parity * (inputs["edge_vec"] + flat[sender] - flat[receiver])).requires_grad_()
        energy = self._model({**inputs, "edge_vec": vectors})["inferred_total_energy"].sum()
        (gradient,) = torch.autograd.grad(energy, vectors)
        force = torch.zeros_like(flat).index_add(0, receiver, parity * gradient)
        force = force.index_add(0, sender, -parity * gradient)
        return force.reshape(shifts.shape).double().cpu().numpy()
