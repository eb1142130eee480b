"""What each published network has to obey, and what it is known not to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from models.cache import FeatureCache
from models.papers.goectp import GoeCTP, polar_frame, shortest_vectors
from models.papers.network import PaperNetwork
from models.papers.recipes import Recipe, build
from models.papers.training import Budget, evaluate, train
from screening.symmetry import asymmetry, point_group_rotations

GRAPH = (
    "goectp", "goectp-mat", "goectp-icom+standard", "painn", "m3gnet", "matten", "etgnn", "gmtnet",
)  # fmt: skip
FEATURES = ("dtnet", "dtnet-simple+layer-2", "dtnet-simple+random")
EQUIVARIANT = ("painn", "m3gnet", "matten", "etgnn", "gmtnet")
"""Networks that turn with the crystal by themselves, and so see no more than the crystal."""
NAMES = ("baddeleyite", "rutile", "quartz", "SrTiO3")
EXACT = 1e-9
STEPS = 40
HALF_PRECISION = 1e-3
FELT = 1e-6
"""Gradients of parameters that change nothing are rounding errors, 1e-17."""

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def chosen(prototypes: dict[str, Any]) -> list[Any]:
    return [prototypes[name] for name in NAMES]


def predicted(network: PaperNetwork, crystals: Sequence[Any], cache: FeatureCache) -> np.ndarray:
    graphs = [network.graph(crystal, cache) for crystal in crystals]
    return np.asarray(evaluate(network, graphs, torch.device("cpu")).numpy())


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    scale = np.abs(expected).max(axis=(1, 2))
    return float((np.abs(found - expected).max(axis=(1, 2)) / scale).max())


def anisotropy(tensors: np.ndarray) -> float:
    values = np.linalg.eigvalsh(tensors)
    return float(np.max(values[:, 2] - values[:, 0]) / np.abs(values).max())


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("name", GRAPH)
def test_tensors_turn_with_the_crystal(
    name: str, improper: bool, made: Callable[[str], PaperNetwork], cache: FeatureCache,
    chosen: list[Any], rotation: Callable[..., np.ndarray], turned: Callable[..., Any],
) -> None:  # fmt: skip
    network, r = made(name), rotation(3, improper)
    plain = predicted(network, chosen, cache)
    assert anisotropy(plain) > 1e-3, "nothing to turn"
    found = predicted(network, [turned(s, r) for s in chosen], cache)
    assert difference(found, r @ plain @ r.T) < EXACT


@pytest.mark.parametrize("name", FEATURES)
def test_dtnet_turns_with_its_features(
    name: str, made: Callable[[str], PaperNetwork], cache: FeatureCache, chosen: list[Any],
    rotation: Callable[..., np.ndarray], turned: Callable[..., Any],
) -> None:  # fmt: skip
    network: Any = made(name)
    graphs = [network.graph(crystal, cache) for crystal in chosen]
    network.prepare(graphs)
    r = torch.as_tensor(rotation(5, True))
    plain = evaluate(network, graphs, torch.device("cpu"))
    assert anisotropy(plain.numpy()) > 1e-3
    found = evaluate(network, [_turned(g, r, network) for g in graphs], torch.device("cpu"))
    assert difference(found.numpy(), (r @ plain @ r.T).numpy()) < EXACT
    # Through the encoder too, as far as its features are kept.
    r2 = rotation(6, False)
    found = predicted(network, [turned(s, r2) for s in chosen], cache)
    assert difference(found, r2 @ plain.numpy() @ r2.T) < HALF_PRECISION


def _turned(graph: Data, r: torch.Tensor, network: Any) -> Data:
    s, v, t = network.layout.split(graph.features.double())
    basis = network.basis
    rank2 = torch.einsum("aij,ik,jl,bkl->ab", basis, r, r, basis)
    rank2 = rank2 / basis[0].square().sum()
    found = graph.clone()
    found.features = torch.cat([s, (v @ r.T).flatten(1), (t @ rank2.T).flatten(1)], dim=1)
    found.vectors = graph.vectors @ r.T
    both = torch.kron(r, r)
    found.projector = both @ graph.projector @ both.T
    return found


@pytest.mark.parametrize("name", (*EQUIVARIANT, *FEATURES))
def test_the_cell_and_the_point_group(
    name: str, made: Callable[[str], PaperNetwork], cache: FeatureCache, chosen: list[Any],
    described_anew: Callable[..., dict[str, Any]],
) -> None:  # fmt: skip
    network = made(name)
    plain = predicted(network, chosen, cache)
    ways = [list(described_anew(s, n).values()) for n, s in enumerate(chosen)]
    others = [way[n % len(way)] for n, way in enumerate(ways)]
    tolerance = HALF_PRECISION if name in FEATURES else 1e-7
    assert difference(predicted(network, others, cache), plain) < tolerance
    violations = [
        asymmetry(t, point_group_rotations(s)) for t, s in zip(plain, chosen, strict=True)
    ]
    assert max(violations) < 1e-6


def test_the_published_frame_depends_on_the_cell_and_the_standard_one_does_not(
    made: Callable[[str], PaperNetwork], cache: FeatureCache, prototypes: dict[str, Any]
) -> None:
    crystal = prototypes["baddeleyite"]
    sheared = crystal * [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    both = [crystal, sheared]
    published = predicted(made("goectp-icom"), both, cache)
    assert difference(published[:1], published[1:]) > 1e-3
    standard = predicted(made("goectp-icom+standard"), both, cache)
    assert difference(standard[:1], standard[1:]) < 1e-6


def test_the_frame_is_the_polar_decomposition(rotation: Callable[..., np.ndarray]) -> None:
    lattice = np.array([[3.0, 0.2, 0.1], [0.4, 4.0, 0.3], [-0.5, 0.6, 5.0]])
    for seed, improper in ((1, False), (2, True)):
        r = rotation(seed, improper)
        frame = polar_frame(lattice @ r.T)
        stretch = frame.T @ (lattice @ r.T).T
        assert np.allclose(stretch, stretch.T)
        assert np.linalg.eigvalsh(stretch).min() > 0
        assert np.allclose(frame.T @ frame, np.eye(3))


def test_the_shortest_vectors_do_not_depend_on_the_cell() -> None:
    lattice = np.array([[3.0, 0.0, 0.0], [0.4, 4.0, 0.0], [0.5, 0.6, 5.0]])
    sheared = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ lattice
    lengths = [np.linalg.norm(shortest_vectors(cell), axis=1) for cell in (lattice, sheared)]
    assert np.allclose(*lengths)
    assert np.allclose(lengths[0], np.linalg.norm(lattice, axis=1))


@pytest.mark.parametrize("name", (*GRAPH, *FEATURES, "goectp-icom+1-layer"))
def test_every_parameter_learns(
    name: str, made: Callable[[str], PaperNetwork], cache: FeatureCache, chosen: list[Any]
) -> None:
    network = made(name).train()
    graphs = [network.graph(crystal, cache) for crystal in chosen]
    network.prepare(graphs)
    batch = Batch.from_data_list(graphs)
    target = torch.randn(len(chosen), 3, 3, generator=torch.Generator().manual_seed(1))
    (network(batch) - target).square().sum().backward()
    largest = {
        key: 0.0 if p.grad is None else float(p.grad.abs().max())
        for key, p in network.named_parameters()
        if not key.startswith("energy")  # pretraining's output
    }
    idle = {key: size for key, size in largest.items() if not FELT < size < np.inf}
    assert largest and not idle


@pytest.mark.parametrize("name", (*GRAPH, *FEATURES))
def test_a_few_crystals_can_be_learned_by_heart(
    name: str, cache: FeatureCache, prototypes: dict[str, Any]
) -> None:
    torch.manual_seed(3)
    network = build(name, cache.encoder.layout)
    graphs = [network.graph(prototypes[n], cache) for n in ("NaCl", "zincblende", "CsCl")]
    targets = torch.tensor([12.0, 5.0, 30.0])[:, None, None] * torch.eye(3)
    network.prepare(graphs)
    network.set_targets(targets)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch, errors = Batch.from_data_list(graphs), []
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(STEPS):
        error = (network.train()(batch) - targets).abs().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(float(error.detach()))
    assert min(errors[-5:]) < 0.5 * errors[0]


def test_the_validation_error_decides(
    made: Callable[[str], PaperNetwork], cache: FeatureCache, chosen: list[Any]
) -> None:
    """Training ends ``patience`` passes after the best, whose weights are kept."""
    network = made("etgnn")
    graphs = [network.graph(crystal, cache) for crystal in chosen]
    targets = torch.tensor([12.0, 5.0, 3.0, 30.0])[:, None, None] * torch.eye(3)
    network.set_targets(targets[:2])
    recipe = Recipe(3e-2, 0.0, 60, lambda _: 1.0, patience=3)
    facts = train(
        network, graphs, targets, np.array([0, 1]), np.array([2, 3]), recipe, Budget(), 0,
        torch.device("cpu"),
    )  # fmt: skip
    assert facts["epochs"] - facts["best_epoch"] == 4 and facts["epochs"] < 60
    found = evaluate(network, graphs[2:], torch.device("cpu"))
    error = float((found - targets[2:]).abs().mean())
    assert error == pytest.approx(facts["validation_mae"], abs=1e-4)


def test_energies_do_not_depend_on_the_frame(
    made: Callable[[str], PaperNetwork], cache: FeatureCache, chosen: list[Any],
    rotation: Callable[..., np.ndarray], turned: Callable[..., Any],
) -> None:  # fmt: skip
    network: Any = made("goectp")
    assert isinstance(network, GoeCTP)
    found = []
    for crystals in (chosen, [turned(s, rotation(4, True)) for s in chosen]):
        graphs = [network.graph(crystal, cache) for crystal in crystals]
        found.append(evaluate(network, graphs, torch.device("cpu"), network.energies).numpy())
    assert np.allclose(*found)
    assert np.ptp(found[0]) > 1e-3


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield
