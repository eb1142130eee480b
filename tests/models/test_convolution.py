"""The rearranged convolution gives the potential's own numbers."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from models.convolution import Convolution, replace_convolutions
from models.potential import Graph, stack
from models.settings import EncoderName
from screening.symmetry import cell_of


def build(name: str) -> Any:
    from sevenn.util import load_checkpoint

    model = load_checkpoint(name).build_model()
    model.delete_module_by_key("force_output")
    model.key_grad = None
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("name", get_args(EncoderName))
def test_energies_and_gradients_are_those_of_sevenn(name: str, prototypes: dict[str, Any]) -> None:
    original, ours = build(name), build(name)
    replace_convolutions(ours)
    kinds = [type(m) for m in ours.modules()]
    assert kinds.count(Convolution) == 5
    cells = [cell_of(prototypes[k]) for k in ("quartz", "rutile", "SrTiO3")]
    inputs = stack([Graph(cell, 5.0, torch.device("cpu")) for cell in cells])
    found = []
    for model in (original, ours):
        vectors = inputs["edge_vec"].clone().requires_grad_()
        energy = model({**inputs, "edge_vec": vectors})["inferred_total_energy"]
        (gradient,) = torch.autograd.grad(energy.sum(), vectors)
        found.append((energy.detach().numpy(), gradient.numpy()))
    (e0, g0), (e1, g1) = found
    assert np.abs(e0).min() > 10
    assert np.allclose(e0, e1, rtol=1e-6)
    assert np.abs(g0 - g1).max() < 2e-5 * np.abs(g0).max()
