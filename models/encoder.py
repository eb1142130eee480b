"""A frozen open interatomic potential (SevenNet) as an exactly O(3)-equivariant encoder.

SevenNet is equivariant under rotations only. Its features under the inverted crystal are computed
as well; sums and differences of the two are then exactly even or odd under inversion, and the
parts that a symmetric polar tensor can be built from are kept: even scalars (0e), polar vectors
(1o) and even rank-2 tensors (2e), from all layers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from models.potential import ATOMS_PER_BATCH, Graph, load, stack
from models.settings import EncoderName
from screening.errors import UserError
from screening.symmetry import Cell

UNTRAINED_SCALE = 1_000.0
"""With random weights, vectors and rank-2 tensors are about as many times smaller than with trained
ones: too small for half precision and for the floors of the readouts' scales."""


_MPTRJ = frozenset(chemical_symbols[z] for z in (*range(1, 84), *range(89, 95)))  # H–Bi, Ac–Pu
_ELEMENTS: dict[EncoderName, frozenset[str]] = {"7net-l3i5": _MPTRJ, "7net-0": _MPTRJ}
"""As the checkpoints have them; to ask these costs seconds, and a campaign asks at once."""


@dataclass(frozen=True)
class FeatureLayout:
    """Numbers of channels per atom and how they lie in one flat row.

    A row is [scalars | vectors (channel, x y z) | rank-2 tensors (channel, 5 components)].
    """

    scalars: int
    vectors: int
    tensors: int

    @property
    def width(self) -> int:
        """Numbers per atom."""
        return self.scalars + 3 * self.vectors + 5 * self.tensors

    def split(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows (..., width) → scalars (..., s), vectors (..., v, 3), tensors (..., t, 5)."""
        s, v = self.scalars, self.scalars + 3 * self.vectors
        return (
            rows[..., :s],
            rows[..., s:v].unflatten(-1, (self.vectors, 3)),
            rows[..., v:].unflatten(-1, (self.tensors, 5)),
        )


@functools.cache
def rank2_basis() -> torch.Tensor:
    """Matrices (5, 3, 3) that turn the five l = 2 components into a traceless symmetric matrix."""
    from e3nn import o3

    basis = o3.ReducedTensorProducts("ij=ji", i="1o").change_of_basis[1:]
    return torch.as_tensor(basis, dtype=torch.float64).detach()


class Encoder:
    """Frozen SevenNet; features of every layer after its equivariant gate.

    Parameters
    ----------
    name
        ``7net-l3i5`` or ``7net-0``; both come inside the sevenn package, no network needed.
    device
        ``cpu`` or ``cuda``.
    trained
        False: random weights, to see what training the potential was worth.
    """

    def __init__(self, name: EncoderName, device: str = "cpu", *, trained: bool = True) -> None:
        model, config = load(name, trained=trained)
        from e3nn import o3

        self.name = name
        self._scale = (1.0, 1.0, 1.0) if trained else (1.0, UNTRAINED_SCALE, UNTRAINED_SCALE)
        self.device = torch.device(device)
        self.cutoff = float(config["cutoff"])
        self._numbers = {int(z) for z in config["_type_map"]}
        n_layers = int(config["num_convolution_layer"])
        for key in (
            "reduce_input_to_hidden",
            "reduce_hidden_to_energy",
            "rescale_atomic_energy",
            "reduce_total_enegy",  # spelt so in sevenn
        ):
            model.delete_module_by_key(key)
        self._model = model.to(self.device)
        self._outputs: dict[int, torch.Tensor] = {}
        self._slices: list[dict[int, tuple[slice, int]]] = []
        for layer in range(n_layers):
            gate = getattr(model, f"{layer}_equivariant_gate")
            irreps = o3.Irreps(str(model.get_irreps_in(f"{layer}_equivariant_gate", "irreps_out")))
            slices = zip(irreps, irreps.slices(), strict=True)
            self._slices.append({mul_ir.ir.l: (part, mul_ir.mul) for mul_ir, part in slices})
            gate.register_forward_hook(self._keep(layer))
        channels = [sum(s[l][1] for s in self._slices if l in s) for l in range(3)]
        self.layout = FeatureLayout(*channels)

    def _keep(self, layer: int) -> Any:
        def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            self._outputs[layer] = output["x"]

        return hook

    def encode(self, cells: Sequence[Cell]) -> list[NDArray[np.float32]]:
        """Features of every atom.

        Parameters
        ----------
        cells
            Lattice (Å, rows), fractional positions, atomic numbers of each crystal.

        Returns
        -------
        list
            One array (n_atoms, ``layout.width``) per crystal, in the crystal's Cartesian frame.

        Raises
        ------
        UserError
            An element that the potential was not trained on.
        """
        self._check_elements(cells)
        found: list[NDArray[np.float32]] = []
        batch: list[Cell] = []
        limit = ATOMS_PER_BATCH[self.device.type]
        for cell in cells:
            if batch and sum(len(c[2]) for c in batch) + len(cell[2]) > limit:
                found += self._encode_batch(batch)
                batch = []
            batch.append(cell)
        return found + (self._encode_batch(batch) if batch else [])

    def _check_elements(self, cells: Sequence[Cell]) -> None:
        from pymatgen.core import Element

        for _, _, species in cells:
            symbols = {int(z): Element.from_Z(z).symbol if z else "X" for z in set(species)}
            unknown = [symbol for z, symbol in symbols.items() if z not in self._numbers]
            if unknown:
                raise UserError(
                    f"The encoder {self.name} does not know the element {unknown[0]} of a crystal "
                    f"of {'-'.join(sorted(symbols.values()))}; leave that material out."
                )

    def rows(self, cells: Sequence[Cell]) -> torch.Tensor:
        """Features of all atoms of some crystals, (atoms, ``layout.width``); gradients pass."""
        inputs = stack([Graph(cell, self.cutoff, self.device) for cell in cells])
        plain, inverted = (
            self._layers({**inputs, "edge_vec": sign * inputs["edge_vec"]}) for sign in (1.0, -1.0)
        )
        parity = (1.0, -1.0, 1.0)  # 0e, 1o, 2e
        parts = [
            torch.cat([(a[l] + parity[l] * b[l]) * (self._scale[l] / 2)
                       for a, b in zip(plain, inverted, strict=True) if l in a], dim=1)
            for l in range(3)
        ]  # fmt: skip
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def _encode_batch(self, cells: Sequence[Cell]) -> list[NDArray[np.float32]]:
        rows = self.rows(cells).cpu().numpy()
        return np.split(rows, np.cumsum([len(cell[2]) for cell in cells])[:-1])

    def _layers(self, inputs: dict[str, torch.Tensor]) -> list[dict[int, torch.Tensor]]:
        """Per layer: degree l → flat features (n_atoms, channels · (2l + 1))."""
        self._outputs.clear()
        self._model(inputs)
        return [
            {l: self._outputs[layer][:, part] for l, (part, _) in slices.items()}
            for layer, slices in enumerate(self._slices)
        ]


def supported_elements(name: EncoderName) -> frozenset[str]:
    """Symbols of the elements that the encoder was trained on."""
    return _ELEMENTS[name]
