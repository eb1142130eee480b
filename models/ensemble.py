"""The predictor: an ensemble of readouts on a frozen encoder.

Its predictions are positive definite, equivariant under rotation and inversion of the crystal,
exactly invariant under the crystal's point group, and do not depend on which cell describes the
crystal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.born import BornNetwork
from models.cache import FeatureCache, ForceConstantCache
from models.calibration import Calibration
from models.data import CRYSTALS_PER_CHUNK, Normalisation
from models.dielectric import DielectricModel
from models.domain import Domain
from models.encoder import FeatureLayout
from models.inputs import PHYSICS, Examples
from models.readout import Dropout, Readout, Width
from models.settings import FUNCTIONALS, ModelSettings
from models.targets import FLOOR, electronic_from_target, from_target
from screening.errors import UserError
from screening.progress import NamedProgress, Progress, labelled
from screening.symmetry import project
from screening.tensors import mean_permittivity

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

LATENT = Width(scalars=128, vectors=64, tensors=64)
LATENT_BORN = Width(scalars=64, vectors=32, tensors=32)
FORMAT = 4
SMALLEST_MEAN = 1e-3
"""Mean of an ionic part below which its logarithm says nothing, as where there is none."""


@dataclass(frozen=True)
class Prediction:
    """Members' tensors for n crystals, in each crystal's own Cartesian frame.

    Attributes
    ----------
    electronic, ionic
        Shape (members, n, 3, 3); their spread is the expected error.
    distance
        From the training crystals, (n,): above 1 a crystal is outside their domain.
    physical
        Whether Born charges and force constants entered, (n,).
    """

    electronic: Array
    ionic: Array
    distance: Array
    physical: NDArray[np.bool_]

    @property
    def static(self) -> Array:
        """Static tensors, (members, n, 3, 3)."""
        return self.electronic + self.ionic

    def part(self, name: str) -> Array:
        """Members' tensors of ``electronic``, ``ionic`` or ``static``."""
        return np.asarray(getattr(self, name))

    def central(self, name: str) -> Array:
        """Best single tensors (n, 3, 3): the exponential of the members' mean logarithm.

        In the members' mean a single high member would decide.
        """
        members = self.part(name)
        values, vectors = np.linalg.eigh(members)
        logs = (vectors * np.log(np.maximum(values, 1e-6))[..., None, :]) @ np.swapaxes(
            vectors, -1, -2
        )
        values, vectors = np.linalg.eigh(logs.mean(axis=0))
        return np.asarray((vectors * np.exp(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2))

    def deviation(self, name: str) -> Array:
        """Standard deviation of ln ε̄ over members, (n,)."""
        return np.asarray(np.log(mean_permittivity(self.part(name))).std(axis=0, ddof=1))

    def replaced(self, rows: NDArray[np.int64], other: Prediction) -> Prediction:
        """The same, with the crystals in ``rows`` as ``other`` has them."""
        found = Prediction(*(np.array(x) for x in vars(self).values()))
        found.electronic[:, rows], found.ionic[:, rows] = other.electronic, other.ionic
        found.distance[rows], found.physical[rows] = other.distance, other.physical
        return found

    @classmethod
    def joined(cls, parts: Sequence[Prediction]) -> Prediction:
        """Predictions of crystals one after the other."""
        return cls(
            np.concatenate([p.electronic for p in parts], axis=1),
            np.concatenate([p.ionic for p in parts], axis=1),
            np.concatenate([p.distance for p in parts]),
            np.concatenate([p.physical for p in parts]),
        )

    @classmethod
    def in_chunks(
        cls,
        predict: Callable[[slice], Prediction],
        n: int,
        members: int,
        progress: NamedProgress | None = None,
    ) -> Prediction:
        """Of n crystals, some at a time, so that memory does not grow with them."""
        none = np.zeros((members, 0, 3, 3))
        found = [cls(none, none, np.zeros(0), np.zeros(0, dtype=bool))]
        for start in range(0, n, CRYSTALS_PER_CHUNK):
            chunk = slice(start, min(start + CRYSTALS_PER_CHUNK, n))
            found.append(predict(chunk))
            if progress is not None:
                progress("predicting", chunk.stop, n)
        return cls.joined(found)


@dataclass
class Ensemble:
    """A trained ensemble; made by :func:`models.fitting.fit` or :func:`models.files.load`.

    Attributes
    ----------
    born
        Network for Born charges: its own, or the one that comes with the software; None if there
        is neither.
    offset
        Mean diagonal target of the ionic part.
    metrics
        Errors on crystals that were not trained on.
    training_hash
        Hash of the training set, the settings and the seed: equal hashes, equal predictions.
    """

    settings: ModelSettings
    layout: FeatureLayout
    readout: Readout
    born: BornNetwork | None
    normalise: Normalisation
    domain: Domain
    offset: float
    calibration: Calibration
    metrics: dict[str, Any]
    training_hash: str

    def examples(
        self,
        structures: Sequence[Structure],
        functionals: Sequence[str],
        cache: FeatureCache,
        band_gaps: Sequence[float | None] | None = None,
        progress: Progress | None = None,
    ) -> Examples:
        """Crystals as this ensemble wants them; one functional and one band gap (eV) each."""
        gaps = band_gaps if band_gaps is not None and self.settings.band_gap else None
        return Examples.of(
            structures,
            np.array([FUNCTIONALS.index(f) for f in functionals], dtype=np.int64),
            gaps if gaps is not None else [None] * len(structures),
            cache,
            self.layout,
            progress,
        )

    def predict(
        self,
        structures: Sequence[Structure],
        functional: str,
        cache: FeatureCache,
        progress: NamedProgress | None = None,
        band_gaps: Sequence[float | None] | None = None,
        force_constants: ForceConstantCache | None = None,
    ) -> Prediction:
        """Members' dielectric tensors of crystals, as ``functional`` would give them.

        Parameters
        ----------
        band_gaps
            In eV (PBE); None where unknown.
        force_constants
            If given, the ionic part of crystals that are small enough (``physics_effort``) is built
            on them; what is not in the cache is computed, at some seconds per crystal.
        """

        def some(chunk: slice) -> Prediction:
            gaps = None if band_gaps is None else band_gaps[chunk]
            own = structures[chunk]
            examples = self.examples(own, [functional] * len(own), cache, gaps)
            if force_constants is not None:
                self.add_physics(
                    examples, force_constants, labelled(progress, "force constants of candidates")
                )
            return self.evaluate(examples)

        return Prediction.in_chunks(some, len(structures), self.settings.members, progress)

    @property
    def has_physics(self) -> bool:
        """Whether force constants of a crystal would change its prediction."""
        return self.born is not None and self.settings.physics_effort > 0

    def add_physics(
        self,
        examples: Examples,
        cache: ForceConstantCache,
        progress: Progress | None = None,
    ) -> None:
        """Give crystals that are small enough their physical estimate."""
        easy = examples.within(self.settings.physics_effort)
        if self.born is not None and easy:
            examples.add_physics(self.born_charges(examples), cache, easy, progress)

    def born_charges(self, examples: Examples) -> list[Array]:
        """Members' Born charges of all atoms of the primitive cells, (members, n, 3, 3) each.

        Raises
        ------
        UserError
            The ensemble had too few to learn from, and another encoder than the one that comes
            with the software.
        """
        if self.born is None:
            raise UserError(
                "This ensemble knows no Born charges; train it on materials that have them."
            )
        return self.born.charges(examples, self.layout, resolve_device(self.settings.device))

    def evaluate(self, examples: Examples) -> Prediction:
        """Predictions with calibrated spread."""
        return self.finished(self.targets(examples), examples)

    @torch.no_grad()
    def targets(self, examples: Examples) -> Array:
        """Members' L, (members, n, 2, 3, 3), as the networks give them."""
        device = resolve_device(self.settings.device)
        self.readout.to(device).eval()
        members = self.settings.members
        outputs = [np.zeros((members, 0, 2, 3, 3))]
        for start in range(0, len(examples.rows), CRYSTALS_PER_CHUNK):
            part = slice(start, start + CRYSTALS_PER_CHUNK)
            inputs = examples.inputs(self.normalise, self.layout, device, part)
            estimate = examples.estimates()[:, part].to(device)
            model = DielectricModel(self.readout, inputs, estimate, self.offset)
            rows = np.arange(len(inputs.sizes))
            found = model(np.tile(rows, (members, 1)), Dropout(0.0))
            outputs.append(found.cpu().numpy().astype(float))
        targets = np.concatenate(outputs, axis=1)
        for i, crystal in enumerate(examples.crystals):
            targets[:, i] = project(targets[:, i], crystal.rotations)
        return targets

    def finished(self, targets: Array, examples: Examples) -> Prediction:
        """Tensors from the networks' L, with calibrated spread."""
        physical = examples.context[:, PHYSICS.start].astype(float)
        inputs = examples.inputs(self.normalise, self.layout, torch.device("cpu"))
        distance = self.domain.distances(inputs, examples.crystals).astype(float)
        spread = self.calibration.spread_out(targets, physical, distance)
        ionic = from_target(spread[:, :, 1])
        ceiling = np.maximum(examples.ceiling, FLOOR)
        allowed = np.minimum(1.0, ceiling / mean_permittivity(ionic))
        return Prediction(
            electronic=electronic_from_target(spread[:, :, 0]),
            ionic=ionic * allowed[..., None, None],
            distance=distance,
            physical=physical > 0,
        )


def log_errors(
    prediction: Prediction, part: str, true: Array, rows: Indices
) -> tuple[Array, Array]:
    """Errors of ln ε̄ and the members' standard deviations, for the labelled ``rows``."""
    central = mean_permittivity(prediction.central(part)[rows])
    error = np.log(central / np.maximum(mean_permittivity(true), SMALLEST_MEAN))
    return error, prediction.deviation(part)[rows]


def resolve_device(wanted: str) -> torch.device:
    """``auto`` → CUDA where there is one.

    Raises
    ------
    UserError
        CUDA wanted and not there.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError("The model is set to 'cuda' but PyTorch finds no GPU; set device: auto.")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")
