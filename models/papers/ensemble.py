"""A published model behind the predictor's interface: an ensemble with calibrated error bars.

Each member has a network for the electronic part and one for the ionic part. What they put out is
projected on the crystal's point group and made positive definite, which the models do not do by
themselves, and spread out to the errors made on held-out crystals, as ours is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from models.cache import FeatureCache, ForceConstantCache
from models.calibrating import Flags, calibrated, unseen_by
from models.calibration import Calibration
from models.data import Normalisation
from models.domain import Domain
from models.encoder import FeatureLayout
from models.ensemble import Prediction, resolve_device
from models.fitting import (
    FOLDS,
    composition_of,
    deterministic,
    folds_of,
    has_tensor,
    training_hash,
    usable,
)
from models.inputs import Examples
from models.metrics import held_out_metrics
from models.papers.fitting import fitted, graphs_of
from models.papers.network import PaperNetwork
from models.papers.pretraining import require_pretrained
from models.papers.training import Budget, evaluate
from models.settings import FUNCTIONALS, ModelSettings
from models.splits import split_by_group
from models.targets import electronic_from_target, electronic_target, from_target, to_target
from screening.material import KnownMaterial
from screening.progress import NamedProgress, Progress, labelled
from screening.symmetry import project

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

LEARNED = ("electronic", "ionic")
"""Parts that have networks; the static one is their sum."""


@dataclass
class PaperEnsemble:
    """Made by :func:`fit_paper` or :func:`models.predictor.load`.

    Attributes
    ----------
    networks
        Part → one network per member.
    normalise, domain
        Of the frozen encoder's features, which tell the crystals unlike the training set.
    """

    settings: ModelSettings
    layout: FeatureLayout
    networks: dict[str, list[PaperNetwork]]
    normalise: Normalisation
    domain: Domain
    calibration: Calibration
    metrics: dict[str, Any]
    training_hash: str

    @property
    def has_physics(self) -> bool:
        """Force constants of a crystal never change its prediction."""
        return False

    def predict(
        self,
        structures: Sequence[Structure],
        functional: str,
        cache: FeatureCache,
        progress: NamedProgress | None = None,
        band_gaps: Sequence[float | None] | None = None,
        force_constants: ForceConstantCache | None = None,
    ) -> Prediction:
        """Members' tensors; functional, band gaps and force constants make no difference."""
        del functional, band_gaps, force_constants

        def some(chunk: slice) -> Prediction:
            own = structures[chunk]
            examples = _examples(own, cache, self.layout)
            return self.finished(self.targets(self.graphs(own, cache), examples), examples)

        return Prediction.in_chunks(some, len(structures), self.settings.members, progress)

    def graphs(self, structures: Sequence[Structure], cache: FeatureCache) -> list[Data]:
        """What the networks see of crystals; all of them see the same."""
        network = self.networks[LEARNED[0]][0]
        return [network.graph(structure, cache) for structure in structures]

    def targets(self, graphs: Sequence[Data], examples: Examples) -> Array:
        """Members' L, (members, n, 2, 3, 3), of what the networks put out."""
        device = resolve_device(self.settings.device)
        raw = {
            part: np.stack([evaluate(n, graphs, device).double().numpy() for n in networks])
            for part, networks in self.networks.items()
        }
        for tensors in raw.values():
            for i, crystal in enumerate(examples.crystals):
                tensors[:, i] = project(tensors[:, i], crystal.rotations)
        return np.stack([electronic_target(raw["electronic"]), to_target(raw["ionic"])], axis=2)

    def finished(self, targets: Array, examples: Examples) -> Prediction:
        """Tensors from L, with calibrated spread."""
        none = np.zeros(len(examples.crystals))
        inputs = examples.inputs(self.normalise, self.layout, torch.device("cpu"))
        distance = self.domain.distances(inputs, examples.crystals).astype(float)
        spread = self.calibration.spread_out(targets, none, distance)
        return Prediction(
            electronic=electronic_from_target(spread[:, :, 0]),
            ionic=from_target(spread[:, :, 1]),
            distance=distance,
            physical=none > 0,
        )


def fit_paper(
    known: Sequence[KnownMaterial],
    settings: ModelSettings,
    seed: int,
    cache: FeatureCache,
    progress: NamedProgress | None = None,
    held_out: Callable[[KnownMaterial], bool] | None = None,
) -> PaperEnsemble:
    """Like :func:`models.fitting.fit`, for a published model.

    Raises
    ------
    UserError
        Too few compositions, an unknown functional, or no pretrained weights.
    """
    rows = usable(known)
    wanted = training_hash(rows, settings, seed)
    known = [k for k in rows if has_tensor(k)]
    deterministic()
    require_pretrained(settings.name, cache.root)
    groups = [composition_of(k) for k in known]
    if held_out is None:
        left_out = split_by_group(groups, seed).validation
    else:
        left_out = np.flatnonzero([held_out(k) for k in known])
    training = np.setdiff1d(np.arange(len(known)), left_out)
    layout = cache.encoder.layout
    structures = [k.material.structure for k in known]
    examples = _examples(structures, cache, layout, labelled(progress, "encoding known crystals"))
    normalise = Normalisation.of(examples.rows, layout)
    inputs = examples.inputs(normalise, layout, torch.device("cpu"))
    numbers = {int(z) for i in training for z in examples.crystals[i].cell[2]}
    graphs = graphs_of(settings.name, structures, cache)
    unseen = unseen_by(folds_of(groups, FOLDS, seed), left_out, settings.members, FOLDS)
    networks, seconds = _networks(known, graphs, training, unseen, settings, seed, cache, progress)
    ensemble = PaperEnsemble(
        settings, layout, networks, normalise, Domain.of(inputs, numbers), Calibration.none(), {},
        wanted,
    )  # fmt: skip
    targets = ensemble.targets(graphs, examples)

    def finished(calibration: Calibration) -> Prediction:
        ensemble.calibration = calibration
        return ensemble.finished(targets, examples)

    none = np.zeros(len(known))
    ensemble.calibration = calibrated(targets, known, unseen, none, finished)
    prediction = ensemble.finished(targets, examples)
    central = [prediction.central(part)[None] for part in LEARNED]
    ensemble.metrics = {
        "seconds": round(seconds, 2),
        "n_held_out": len(left_out),
        **held_out_metrics(central[0], central[1], [k.tensors for k in known], [left_out]),
    }
    return ensemble


def _networks(
    known: Sequence[KnownMaterial],
    graphs: Sequence[Data],
    training: Indices,
    unseen: Flags,
    settings: ModelSettings,
    seed: int,
    cache: FeatureCache,
    progress: NamedProgress | None,
) -> tuple[dict[str, list[PaperNetwork]], float]:
    """Part → a network per member, which leaves out its own tenth and stops by it; seconds."""
    device = resolve_device(settings.device)
    budget = Budget(epochs=settings.epochs, steps=(settings.min_steps, settings.max_steps))
    networks: dict[str, list[PaperNetwork]] = {part: [] for part in LEARNED}
    seconds = 0.0
    for part in LEARNED:
        labels = [getattr(k.tensors, part) for k in known]
        rows = np.array([i for i in training if labels[i] is not None], dtype=np.int64)
        values = np.stack([np.zeros((3, 3)) if y is None else y for y in labels])
        targets = torch.as_tensor(values, dtype=torch.get_default_dtype())
        for member in range(settings.members):
            mine = rows[~unseen[member, rows]]
            validation = np.setdiff1d(rows, mine)
            mine = mine if len(mine) else rows
            what = f"training {settings.name}, {part}, {member + 1} of {settings.members}"
            network, facts = fitted(
                settings.name, cache, graphs, targets, mine, validation, budget,
                1000 * seed + 10 * member, device, labelled(progress, what),
            )  # fmt: skip
            seconds += facts.get("seconds", 0.0)
            networks[part].append(network.cpu().eval())
    return networks, seconds


def _examples(
    structures: Sequence[Structure],
    cache: FeatureCache,
    layout: FeatureLayout,
    progress: Progress | None = None,
) -> Examples:
    functionals = np.full(len(structures), FUNCTIONALS.index("PBE"))
    return Examples.of(structures, functionals, [None] * len(structures), cache, layout, progress)
