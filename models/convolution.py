"""The potential's convolution, rearranged: the same numbers in a third of the time.

For each degree l₁ of the sender's features all paths (l₁, l₂ → l₃) are one small matrix product per
edge, messages are added up before they are put in the order that the next layer wants, and no
intermediate is larger than it has to be. Mathematically nothing changes; see
``tests/models/test_convolution.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Convolution(nn.Module):
    """Stands in for sevenn's ``IrrepsConvolution``, from which it takes its weights."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        from e3nn.o3 import Irreps, wigner_3j

        product = original.convolution
        self.weights = original.weight_nn
        self.denominator = original.denominator
        self.keys = (original.key_x, original.key_filter, original.key_weight_input)
        self.key_edges = original.key_edge_idx
        into, sphere, out = (
            Irreps(str(i)) for i in (product.irreps_in1, product.irreps_in2, product.irreps_out)
        )
        self.parts = [
            (part.start, part.stop, mul, ir.dim)
            for (mul, ir), part in zip(into, into.slices(), strict=True)
        ]
        weight_starts, total = [], 0
        for instruction in product.instructions:
            weight_starts.append(total)
            total += into[instruction.i_in1].mul
        width = sphere.dim
        couplings: list[Tensor] = []
        columns: list[list[int]] = []
        self.outputs: list[list[tuple[int, int, int]]] = [[] for _ in out]
        self.rows: list[int] = []
        for i, (_, ir) in enumerate(into):
            blocks, weight_columns, row = [], [], 0
            for k, instruction in enumerate(product.instructions):
                if instruction.i_in1 != i:
                    continue
                second, third = sphere[instruction.i_in2].ir, out[instruction.i_out].ir
                block = torch.zeros(width, ir.dim, third.dim)
                block[sphere.slices()[instruction.i_in2]] = (
                    wigner_3j(ir.l, second.l, third.l).permute(1, 0, 2) * instruction.path_weight
                )
                blocks.append(block)
                for _ in range(third.dim):
                    weight_columns.append(weight_starts[k])
                self.outputs[instruction.i_out].append((i, row, third.dim))
                row += third.dim
            couplings.append(torch.cat(blocks, dim=2))
            columns.append(weight_columns)
            self.rows.append(row)
        for i, (coupling, starts) in enumerate(zip(couplings, columns, strict=True)):
            mul = self.parts[i][2]
            index = torch.tensor(starts)[None, :] + torch.arange(mul)[:, None]
            self.register_buffer(f"coupling_{i}", coupling.flatten(1), persistent=False)
            self.register_buffer(f"index_{i}", index.flatten(), persistent=False)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add up the messages of all neighbours of each atom."""
        key_x, key_sphere, key_weights = self.keys
        x, sphere = data[key_x], data[key_sphere]
        weights = self.weights(data[key_weights]) / self.denominator
        receiver, sender = data[self.key_edges]
        sums = []
        for i, (start, stop, mul, dim) in enumerate(self.parts):
            own = x[:, start:stop].reshape(-1, mul, dim)[sender]
            coupling = sphere @ getattr(self, f"coupling_{i}")
            messages = torch.bmm(own, coupling.reshape(len(sphere), dim, self.rows[i]))
            index = getattr(self, f"index_{i}")
            messages = messages.flatten(1) * weights.index_select(1, index)
            total = messages.new_zeros(len(x), mul * self.rows[i])
            total = total.index_add(0, receiver, messages)
            sums.append(total.reshape(len(x), mul, self.rows[i]))
        parts = [
            sums[i][:, :, row : row + dim].flatten(1)
            for part in self.outputs
            for i, row, dim in part
        ]
        data[key_x] = torch.cat(parts, dim=1)
        return data


def replace_convolutions(model: nn.Module) -> None:
    """Put :class:`Convolution` in the place of every convolution of a sevenn model."""
    for name, module in list(model.named_children()):
        if name.endswith("_convolution"):
            setattr(model, name, Convolution(module))
