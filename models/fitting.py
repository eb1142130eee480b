"""Training an ensemble on materials with known tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.born import BornLoss, BornNetwork
from models.cache import FeatureCache, ForceConstantCache
from models.calibrating import calibrated, unseen_by
from models.calibration import Calibration
from models.data import Inputs, Normalisation
from models.dielectric import DielectricLoss, DielectricModel, Labels
from models.domain import Domain
from models.encoder import rank2_basis
from models.ensemble import (
    FORMAT,
    LATENT,
    LATENT_BORN,
    Ensemble,
    Prediction,
    resolve_device,
)
from models.inputs import N_CONTEXT, PHYSICS, Examples
from models.metrics import held_out_metrics
from models.readout import Readout, Width
from models.settings import FUNCTIONALS, ModelSettings
from models.shipped import shipped
from models.splits import split_by_group
from models.targets import targets_of, to_target
from models.training import train
from screening.errors import UserError
from screening.io import stable_hash
from screening.material import KnownMaterial
from screening.progress import NamedProgress, labelled

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

BORN_EPOCHS = 0.5
"""Epochs of the Born charges' network, as a share of the other's."""
ENOUGH_BORN = 1000
"""Crystals with known Born charges below which those of the shipped network are better."""
FEW = 500
"""Known tensors below which how far to trust the physical estimate cannot be learned."""
FULL_TRUST = 6.0
"""Logit of the trust that training then starts from; 0 otherwise."""
RECIPE = 4
"""Of training and calibration: another one makes another ensemble of the same crystals."""
FOLDS = 10
"""Each member leaves out one of so many parts of the training crystals."""


def fit(
    known: Sequence[KnownMaterial],
    settings: ModelSettings,
    seed: int,
    cache: FeatureCache,
    progress: NamedProgress | None = None,
    held_out: Callable[[KnownMaterial], bool] | None = None,
) -> Ensemble:
    """Train on materials with at least one known part, or the mean of one.

    Parameters
    ----------
    known
        Training materials in any order; the result does not depend on it.
    seed
        Fixes splits, initial weights and batches.
    progress
        Called with (what, done, total).
    held_out
        Tells the materials that serve to calibrate error bars and are not trained on; by
        default a tenth of them, by composition.

    Raises
    ------
    UserError
        Fewer than ten compositions, or a functional other than PBE and PBEsol.
    """
    known = usable(known)
    deterministic()
    return _Fit(known, settings, seed, cache, progress, held_out).ensemble()


def deterministic() -> None:
    """From now on the same seed gives the same numbers, on a GPU too."""
    # Without it cuBLAS refuses to work deterministically; it is read when cuBLAS starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


class _Fit:
    """One training, step by step."""

    def __init__(
        self,
        known: list[KnownMaterial],
        settings: ModelSettings,
        seed: int,
        cache: FeatureCache,
        progress: NamedProgress | None,
        held_out: Callable[[KnownMaterial], bool] | None,
    ) -> None:
        self.known, self.settings, self.seed, self.progress = known, settings, seed, progress
        self.cache = cache
        self.device = resolve_device(settings.device)
        self.layout = cache.encoder.layout
        groups = [composition_of(k) for k in known]
        # A mean tests nothing, and is not trained on where its composition is held out.
        whole = np.flatnonzero([has_tensor(k) for k in known])
        if held_out is None:
            self.held_out = whole[split_by_group([groups[i] for i in whole], seed).validation]
        else:
            self.held_out = np.array([i for i in whole if held_out(known[i])], dtype=np.int64)
        unseen = {groups[i] for i in self.held_out}
        self.training = np.array([i for i, group in enumerate(groups) if group not in unseen])
        self.unseen = unseen_by(
            folds_of(groups, FOLDS, seed), self.held_out, settings.members, FOLDS
        )
        self.seeds = [1000 * seed + 10 * member for member in range(settings.members)]
        gaps = [k.material.band_gap if settings.band_gap else None for k in known]
        self.examples = Examples.of(
            [k.material.structure for k in known],
            np.array([FUNCTIONALS.index(k.functional) for k in known]),
            gaps,
            cache,
            self.layout,
            labelled(progress, "encoding known crystals"),
        )
        self.normalise = Normalisation.of(self.examples.rows, self.layout)

    def ensemble(self) -> Ensemble:
        """Train both networks and calibrate."""
        born, left_out_by, seconds_born = self._born()
        if born is not None:
            self._estimate(born, left_out_by)
        labels = labels_of(self.known, self.device)
        readout = self._network(LATENT, n_tensors=2, n_scalars=1)
        means = _mean_targets(labels, self.training)
        trust = FULL_TRUST if sum(map(has_tensor, self.known)) < FEW else 0.0
        start = torch.tensor([*means, trust]).expand(self.settings.members, 3)
        readout.reset(self.seeds, start)
        inputs = self._inputs()
        estimates = self.examples.estimates().to(self.device)
        model = DielectricModel(readout, inputs, estimates, means[1])
        seconds = train(
            readout, DielectricLoss(model, labels), self._training_rows(), self.settings,
            self.seeds, self.device, labelled(self.progress, "training"),
        )  # fmt: skip
        ensemble = Ensemble(
            self.settings, self.layout, readout, born, self.normalise,
            self._domain(inputs), means[1], Calibration.none(), {},
            training_hash(self.known, self.settings, self.seed),
        )  # fmt: skip
        targets = ensemble.targets(self.examples)
        ensemble.calibration = self._calibration(ensemble, targets)
        ensemble.metrics = {
            "seconds": round(seconds + seconds_born, 2),
            "n_held_out": len(self.held_out),
            **self._metrics(ensemble.finished(targets, self.examples)),
        }
        return ensemble

    def _born(self) -> tuple[BornNetwork | None, dict[int, int], float]:
        """Learn Born charges; where few are known, those of the shipped network have to do.

        Returns
        -------
        tuple
            The network, by row the member that has not seen the crystal's composition for the
            crystals of compositions that it was trained on, seconds.
        """
        if self.settings.physics_effort == 0:
            return None, {}, 0.0
        charges = [self._charges(i) for i in range(len(self.known))]
        has_charges = np.array([c is not None for c in charges])
        rows = self.training[has_charges[self.training]]
        if len(rows) < ENOUGH_BORN:
            return _shipped_born(self.settings), {}, 0.0
        unknown = [np.full((size, 3, 3), np.nan) for size in self.examples.rows.sizes]
        table = [u if c is None else c for c, u in zip(charges, unknown, strict=True)]
        target = torch.as_tensor(np.concatenate(table), dtype=torch.float32, device=self.device)
        members = self.settings.members
        inputs = self._inputs()
        network = self._network(LATENT_BORN, n_tensors=1, asymmetric=True)
        network.reset(self.seeds, torch.zeros(members, 1))
        settings = self.settings.model_copy(
            update={"epochs": max(1, round(BORN_EPOCHS * self.settings.epochs))}
        )
        groups = [composition_of(k) for k in self.known]
        parts = folds_of(groups, members, self.seed + 1)
        seconds = train(
            network, BornLoss(network, inputs, target),
            [rows[parts[rows] != member] for member in range(members)], settings, self.seeds,
            self.device, labelled(self.progress, "training Born charges"),
        )  # fmt: skip
        # A record without charges may have those of a twin, calculated with another functional.
        taught = {groups[i] for i in rows}
        left_out_by = {i: parts[i] for i, group in enumerate(groups) if group in taught}
        return BornNetwork(network, self.normalise), left_out_by, seconds

    def _estimate(self, born: BornNetwork, left_out_by: dict[int, int]) -> None:
        """Give every crystal that is small enough its physical estimate.

        A crystal of a composition that the network was trained on gets the charges of the member
        that left it out: its estimate is then as good or bad as those of crystals never seen.
        """
        found = born.charges(self.examples, self.layout, self.device)
        fair = [c[left_out_by[i], None] if i in left_out_by else c for i, c in enumerate(found)]
        within = self.examples.within(self.settings.physics_effort)
        easy = [i for i in within if self.known[i].tensors.ionic is not None]
        self.examples.add_physics(
            fair, ForceConstantCache.beside(self.cache), easy,
            labelled(self.progress, "force constants of known crystals"),
        )  # fmt: skip

    def _charges(self, row: int) -> Array | None:
        """Labels of the representatives, if the record has them for this very cell."""
        given = self.known[row].extras.get("born_charges")
        crystal = self.examples.crystals[row]
        if given is None or np.shape(given) != (len(crystal.owner), 3, 3):
            return None
        return crystal.reduced_tensors(np.array(given, dtype=float))

    def _network(self, latent: Width, **outputs: Any) -> Readout:
        inputs = Width(self.layout.scalars + N_CONTEXT, self.layout.vectors, self.layout.tensors)
        return Readout(self.settings.members, inputs, latent, rank2_basis(), **outputs)

    def _domain(self, inputs: Inputs) -> Domain:
        species = (self.examples.crystals[i].cell[2].tolist() for i in self.training)
        return Domain.of(inputs, {number for own in species for number in own})

    def _inputs(self) -> Inputs:
        return self.examples.inputs(self.normalise, self.layout, self.device)

    def _training_rows(self) -> list[Indices]:
        rows = self.training
        own = [rows[~unseen[rows]] for unseen in self.unseen]
        return [part if len(part) else rows for part in own]

    def _calibration(self, ensemble: Ensemble, targets: Array) -> Calibration:
        def finished(calibration: Calibration) -> Prediction:
            ensemble.calibration = calibration
            return ensemble.finished(targets, self.examples)

        physics = self.examples.context[:, PHYSICS.start].astype(float)
        return calibrated(targets, self.known, self.unseen, physics, finished)

    def _metrics(self, prediction: Prediction) -> dict[str, Any]:
        central = [prediction.central(part)[None] for part in ("electronic", "ionic")]
        truth = [k.tensors for k in self.known]
        return held_out_metrics(central[0], central[1], truth, [self.held_out])


def _shipped_born(settings: ModelSettings) -> BornNetwork | None:
    """The network for Born charges that comes with the software, if it is for this encoder."""
    ensemble = shipped()
    return ensemble.born if ensemble.settings.encoder == settings.encoder else None


def training_hash(known: Sequence[KnownMaterial], settings: ModelSettings, seed: int) -> str:
    """Hash of everything that decides the outcome of a training on :func:`usable` materials."""
    ignored = {"device", "physics_candidates"}
    decides = settings.model_dump(exclude=ignored)
    return stable_hash([FORMAT, RECIPE, decides, seed, _learned_from(known)])


def known_hash(known: Sequence[KnownMaterial]) -> str:
    """Hash of all that an ensemble may learn of materials, whatever it makes of them."""
    return stable_hash(_learned_from(known))


def _learned_from(known: Sequence[KnownMaterial]) -> list[Any]:
    return [
        [
            k.material.structure_hash, k.functional, k.tensors.to_dict(), k.material.band_gap,
            [k.extras.get(name) for name in ("born_charges", "mean_electronic", "mean_ionic")],
        ]
        for k in _in_order(known)
    ]  # fmt: skip


def _in_order(known: Sequence[KnownMaterial]) -> list[KnownMaterial]:
    return sorted(
        known, key=lambda k: (k.material.structure_hash, k.functional, k.material.material_id)
    )


def composition_of(known: KnownMaterial) -> str:
    """Reduced formula of the structure; a table may spell its formulas in any way."""
    return str(known.material.structure.composition.reduced_formula)


def usable(known: Sequence[KnownMaterial]) -> list[KnownMaterial]:
    """Materials to learn from, in an order of their own.

    Raises
    ------
    UserError
        Fewer than ten compositions, or a functional other than PBE and PBEsol.
    """
    rows = [
        k
        for k in _in_order(known)
        if has_tensor(k) or "mean_electronic" in k.extras or "mean_ionic" in k.extras
    ]
    n_groups = len({composition_of(k) for k in rows if has_tensor(k)})
    if n_groups < 10:
        raise UserError(
            f"Only {n_groups} compositions with known dielectric tensors to learn from; the "
            "80/10/10 splits need at least 10: add known materials."
        )
    for row in rows:
        if row.functional not in FUNCTIONALS:
            raise UserError(
                f"{row.material.material_id} was calculated with '{row.functional}'; known tensors "
                f"must be {' or '.join(FUNCTIONALS)}."
            )
    return rows


def has_tensor(known: KnownMaterial) -> bool:
    """Whether more than a mean is known."""
    return known.tensors.electronic is not None or known.tensors.ionic is not None


def folds_of(groups: Sequence[str], n: int, seed: int) -> Indices:
    """Number of the part (0 to n − 1) of each row, whole groups at a time."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed + 77).permutation(len(names))
    part = {names[name]: place % n for place, name in enumerate(order)}
    return np.array([part[group] for group in groups])


def labels_of(known: Sequence[KnownMaterial], device: torch.device) -> Labels:
    """What networks are trained on; zeros where a part, or its mean, is unknown."""
    targets, mask = targets_of([k.tensors for k in known])
    means, weak = np.zeros((len(known), 2)), np.zeros((len(known), 2))
    for i, k in enumerate(known):
        for part, (name, least) in enumerate((("mean_electronic", 1.0), ("mean_ionic", 0.0))):
            if not mask[i, part] and name in k.extras:
                isotropic = (k.extras[name] - least) * np.eye(3)
                means[i, part], weak[i, part] = to_target(isotropic)[0, 0], 1.0
    arrays = (targets, mask, means, weak)
    return Labels(*(torch.as_tensor(a, dtype=torch.float32, device=device) for a in arrays))


def _mean_targets(labels: Labels, rows: Indices) -> list[float]:
    """Mean diagonal target of the electronic and the ionic part."""
    trace = labels.targets.diagonal(dim1=-2, dim2=-1).mean(-1).cpu()[rows]
    known = labels.known.cpu()[rows]
    means = (trace * known).sum(0) / known.sum(0).clamp(min=1.0)
    return [float(x) for x in means]
