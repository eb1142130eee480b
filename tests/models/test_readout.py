"""The networks on made-up features in double precision: equivariance and separate members."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.data import Inputs, Normalisation, Rows
from models.encoder import FeatureLayout
from models.readout import Dropout, Readout, Width

MEMBERS, ATOMS = 3, 7
N_PARTS = 2
INPUTS, LATENT = Width(6, 5, 4), Width(8, 7, 6)
EXACT = 1e-10
SILENT = Dropout(0.0)


def exact_basis() -> Tensor:
    """Orthonormal symmetric traceless matrices (5, 3, 3), to the last digit."""
    x, y, z = torch.eye(3, dtype=torch.float64)

    def mixed(a: Tensor, b: Tensor) -> Tensor:
        return (torch.outer(a, b) + torch.outer(b, a)) / 2**0.5

    planar = (torch.outer(x, x) - torch.outer(y, y)) / 2**0.5
    axial = (3 * torch.outer(z, z) - torch.eye(3)) / 6**0.5
    return torch.stack([mixed(x, y), mixed(y, z), mixed(z, x), planar, axial])


BASIS = exact_basis()


@pytest.fixture(scope="module")
def readout() -> Readout:
    """Random networks with large weights, in double precision."""
    network = Readout(MEMBERS, INPUTS, LATENT, BASIS, n_tensors=N_PARTS).double()
    network.basis = BASIS  # the module keeps single precision
    network.reset([1, 2, 3], torch.zeros(MEMBERS, N_PARTS))
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 4
    return network


def features(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (INPUTS.scalars,), (3, INPUTS.vectors), (5, INPUTS.tensors)
    s, v, t = (
        torch.randn(MEMBERS, ATOMS, *shape, generator=generator, dtype=torch.float64)
        for shape in shapes
    )
    return s, v, t


def rotate(features: tuple[Tensor, Tensor, Tensor], matrix: np.ndarray) -> tuple[Tensor, ...]:
    r = torch.as_tensor(matrix)
    wigner = torch.einsum("aij,ik,jl,bkl->ab", BASIS, r, r, BASIS)
    s, v, t = features
    return s, r @ v, wigner @ t


@given(seed=st.integers(0, 2**31 - 1), improper=st.booleans())
def test_tensors_turn_with_the_features(
    seed: int, improper: bool, readout: Readout, rotation: Callable[..., np.ndarray]
) -> None:
    matrix = rotation(seed, improper)
    r = torch.as_tensor(matrix)
    with torch.no_grad():
        before = readout(*features(seed), SILENT)[0]
        after = readout(*rotate(features(seed), matrix), SILENT)[0]
    assert before.shape == (MEMBERS, ATOMS, N_PARTS, 3, 3)
    assert torch.allclose(before, before.mT, atol=EXACT)
    assert torch.allclose(
        after, r @ before @ r.T, rtol=EXACT, atol=EXACT * float(before.abs().max())
    )


@pytest.mark.parametrize("zeroed", [None, 1, 2])
def test_vectors_and_tensors_both_make_the_result_anisotropic(
    zeroed: int | None, readout: Readout
) -> None:
    """Guards the test of equivariance: isotropic matrices would pass it."""
    inputs = [x if i != zeroed else torch.zeros_like(x) for i, x in enumerate(features(0))]
    with torch.no_grad():
        found = readout(*inputs, SILENT)[0]
    isotropic = found.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * torch.eye(3)
    assert float((found - isotropic).abs().amax(dim=(-1, -2)).min()) > 1e-3


@given(seed=st.integers(0, 2**31 - 1), moved=st.integers(0, MEMBERS - 1))
def test_members_and_atoms_do_not_see_each_other(seed: int, moved: int, readout: Readout) -> None:
    first, second = features(seed), features(seed + 1)
    mixed = [x.clone() for x in first]
    for x, y in zip(mixed, second, strict=True):
        x[moved, 0] = y[moved, 0]
    with torch.no_grad():
        before, after = readout(*first, SILENT)[0], readout(*mixed, SILENT)[0]
    changed = (before != after).flatten(2).any(dim=-1)
    expected = torch.zeros(MEMBERS, ATOMS, dtype=torch.bool)
    expected[moved, 0] = True
    assert torch.equal(changed, expected)


def test_members_have_networks_of_their_own(readout: Readout) -> None:
    same = [x[:1].expand_as(x).contiguous() for x in features(3)]
    with torch.no_grad():
        found = readout(*same, SILENT)[0]
    assert float((found[0] - found[1]).abs().max()) > 1e-2
    assert float((found[1] - found[2]).abs().max()) > 1e-2


def test_initial_weights_depend_on_the_member_s_seed_alone() -> None:
    def weights(seeds: list[int]) -> dict[str, Tensor]:
        network = Readout(len(seeds), INPUTS, LATENT, BASIS, n_tensors=N_PARTS)
        network.reset(seeds, torch.zeros(len(seeds), N_PARTS))
        return {name: p.detach().clone() for name, p in network.named_parameters()}

    three, one = weights([5, 6, 7]), weights([6])
    for name, values in three.items():
        assert torch.equal(values[1:2], one[name])
    assert not torch.equal(three["scalar_in.weight"][0], three["scalar_in.weight"][1])


def test_a_fresh_network_puts_out_the_mean_targets() -> None:
    network = Readout(2, INPUTS, LATENT, BASIS, n_tensors=N_PARTS)
    means = torch.tensor([[1.5, 0.5], [2.5, -1.0]])
    network.reset([0, 1], means)
    with torch.no_grad():
        for layer in (network.scalar_out, network.vector_out, network.tensor_out):
            layer.weight.zero_()
        s, v, t = (x[:2].float() for x in features(0))
        found = network(s, v, t, SILENT)[0]
    assert torch.allclose(found, (means[:, None, :, None, None] * torch.eye(3)).expand_as(found))


def test_dropout_masks_come_from_the_members_generators() -> None:
    x = torch.ones(2, 400, 50)

    def dropped(seeds: list[int]) -> Tensor:
        return Dropout(0.2, [torch.Generator().manual_seed(s) for s in seeds])(x)

    found = dropped([1, 2])
    assert torch.equal(found, dropped([1, 2]))
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], dropped([3, 2])[1])
    assert set(found.unique().tolist()) == {0.0, 1.25}
    assert abs(float((found == 0).float().mean()) - 0.2) < 0.01
    assert torch.equal(Dropout(0.2)(x), x)


LAYOUT = FeatureLayout(scalars=3, vectors=2, tensors=2)


CPU = torch.device("cpu")


def atom_rows(sizes: list[int], seed: int = 0, scale: float = 1.0) -> Rows:
    """Random features of crystals without symmetry."""
    random = np.random.default_rng(seed)
    found = (scale * random.normal(size=(sum(sizes), LAYOUT.width))).astype(np.float16)
    return Rows(
        torch.from_numpy(found),
        np.array(sizes),
        np.cumsum(sizes) - sizes,
        torch.from_numpy(np.repeat(1 / np.array(sizes), sizes).astype(np.float32)),
        torch.eye(9).repeat(len(sizes), 1, 1),
    )


def inputs_of(
    rows: Rows, normalise: Normalisation | None = None, crystals: slice = slice(None)
) -> Inputs:
    """Every other crystal is PBEsol's."""
    context = (torch.arange(len(rows)) % 2).float()[:, None]
    normalise = normalise or Normalisation.of(rows, LAYOUT)
    return rows.inputs(normalise, LAYOUT, context, CPU, crystals)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=4, max_size=8),
    seed=st.integers(0, 2**31 - 1),
)
def test_batches_average_over_the_atoms_of_each_crystal(sizes: list[int], seed: int) -> None:
    atoms = atom_rows(sizes, seed)
    inputs = inputs_of(atoms)
    crystals = np.random.default_rng(seed).integers(0, len(sizes), size=(2, 5))
    batch = inputs.batch(crystals)
    for part, of_all in zip(
        batch.features, (inputs.scalars, inputs.vectors, inputs.tensors), strict=True
    ):
        found = batch.mean_over_atoms(part)
        pieces = of_all.split(sizes)
        for member, line in enumerate(crystals):
            for place, crystal in enumerate(line):
                expected = pieces[crystal].mean(dim=0)
                assert torch.allclose(found[member, place], expected, atol=1e-5)
    functional = batch.mean_over_atoms(batch.with_context()[0])[..., -1].numpy()
    assert np.allclose(functional, crystals % 2, atol=1e-6)


def test_some_of_the_crystals_have_the_inputs_they_have_among_all() -> None:
    sizes = [2, 5, 1, 3, 4]
    atoms = atom_rows(sizes)
    normalise = Normalisation.of(atoms, LAYOUT)
    everything, some = (inputs_of(atoms, normalise, c) for c in (slice(None), slice(2, 4)))
    assert some.sizes.tolist() == [1, 3]
    first, second = everything.batch(np.array([[2, 3]])), some.batch(np.array([[0, 1]]))
    assert torch.equal(first.weight, second.weight)
    for a, b in zip(first.with_context(), second.with_context(), strict=True):
        assert torch.equal(a[:, :4], b[:, :4])


def test_normalised_features_are_of_order_one_and_bounded() -> None:
    atoms = atom_rows([4] * 50)
    stretched = atoms.features * torch.linspace(0.1, 20, LAYOUT.width).half() + 1.0
    atoms = dataclasses.replace(atoms, features=stretched)
    normalise = Normalisation.of(atoms, LAYOUT)
    inputs = inputs_of(atoms, normalise)
    assert inputs.scalars.shape == (200, LAYOUT.scalars)
    assert inputs.vectors.shape == (200, 3, LAYOUT.vectors)
    assert inputs.tensors.shape == (200, 5, LAYOUT.tensors)
    assert torch.allclose(inputs.scalars.mean(dim=0), torch.zeros(3), atol=0.02)
    assert torch.allclose(inputs.scalars.std(dim=0), torch.ones(3), atol=0.05)
    far = inputs_of(atom_rows([3] * 4, scale=1e4), normalise)
    assert float(far.scalars.abs().max()) <= 6.0
    assert float(far.vectors.norm(dim=1).max()) <= 6.0
    assert float(far.tensors.norm(dim=1).max()) <= 6.0
