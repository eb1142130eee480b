"""The predictor: an ensemble of readouts on a frozen encoder.

Its predictions are positive definite, equivariant under rotation and inversion of the crystal,
exactly invariant under the crystal's point group, and do not depend on which cell describes the
crystal.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.cache import FeatureCache
from models.data import AtomRows, Normalisation
from models.encoder import FeatureLayout, rank2_basis
from models.metrics import held_out_metrics
from models.readout import Dropout, Readout, Width
from models.settings import FUNCTIONALS, ModelSettings
from models.splits import Split, split_by_group
from models.targets import electronic_from_target, electronic_target, from_target, to_target
from models.training import Labels, train
from screening.errors import UserError
from screening.io import atomic_path, atomic_write, stable_hash
from screening.material import KnownMaterial
from screening.symmetry import point_group_rotations, project

if TYPE_CHECKING:
    from pymatgen.core import Structure

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

LATENT = Width(scalars=128, vectors=64, tensors=64)
FORMAT = 1
CRYSTALS_PER_CHUNK = 256


@dataclass(frozen=True)
class Prediction:
    """Members' tensors for n crystals, in each crystal's own Cartesian frame.

    Attributes
    ----------
    electronic, ionic
        Shape (members, n, 3, 3).
    """

    electronic: Array
    ionic: Array

    @property
    def static(self) -> Array:
        """Static tensors, (members, n, 3, 3)."""
        return self.electronic + self.ionic


class Ensemble:
    """A trained ensemble; made by :meth:`fit` or :meth:`load`.

    Attributes
    ----------
    metrics
        Errors of the members on their own test crystals, which they have not seen.
    training_hash
        Hash of the training set, the settings and the seed: equal hashes, equal predictions.
    """

    def __init__(
        self,
        settings: ModelSettings,
        layout: FeatureLayout,
        readout: Readout,
        normalise: Normalisation,
        metrics: dict[str, Any],
        training_hash: str,
    ) -> None:
        self.settings = settings
        self.layout = layout
        self.readout = readout
        self.normalise = normalise
        self.metrics = metrics
        self.training_hash = training_hash

    @classmethod
    def fit(
        cls,
        known: Sequence[KnownMaterial],
        settings: ModelSettings,
        seed: int,
        cache: FeatureCache,
        progress: Progress | None = None,
    ) -> Ensemble:
        """Train on materials with at least one known part.

        Parameters
        ----------
        known
            Training materials in any order; the result does not depend on it.
        seed
            Fixes splits, initial weights, batches and dropout.
        progress
            Called with (what, done, total).

        Raises
        ------
        UserError
            Fewer than ten compositions, or a functional other than PBE and PBEsol.
        """
        known = _usable(known)
        # Without it cuBLAS refuses to work deterministically; it is read when cuBLAS starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        features = cache.features(
            [k.material.structure for k in known], _labelled(progress, "encoding known crystals")
        )
        layout = cache.encoder.layout
        device = resolve_device(settings.device)
        functional = np.array([FUNCTIONALS.index(k.functional) for k in known])
        atoms = AtomRows(features, functional, device)
        labels = _labels(known, device)
        seeds = [1000 * seed + 10 * member for member in range(settings.members)]
        splits = [split_by_group([_composition(k) for k in known], s) for s in seeds]
        inputs = Width(layout.scalars + 1, layout.vectors, layout.tensors)
        readout = Readout(settings.members, inputs, LATENT, rank2_basis())
        normalise = Normalisation.of(atoms, layout)
        seconds = train(
            readout, atoms.inputs(normalise, layout), labels, splits, settings, seeds,
            _labelled(progress, "training"),
        )  # fmt: skip
        ensemble = cls(
            settings, layout, readout, normalise, {}, training_hash(known, settings, seed)
        )
        ensemble.metrics = {
            "seconds": round(seconds, 2),
            **ensemble._held_out(known, atoms, splits),
        }
        return ensemble

    def _held_out(
        self, known: Sequence[KnownMaterial], atoms: AtomRows, splits: list[Split]
    ) -> dict[str, Any]:
        rotations = [point_group_rotations(k.material.structure) for k in known]
        prediction = self._evaluate(atoms, rotations)
        return held_out_metrics(
            prediction.electronic,
            prediction.ionic,
            [k.tensors for k in known],
            [split.test for split in splits],
        )

    def predict(
        self,
        structures: Sequence[Structure],
        functional: str,
        cache: FeatureCache,
        progress: Progress | None = None,
    ) -> Prediction:
        """Members' dielectric tensors of crystals, as ``functional`` would give them."""
        if not structures:
            empty = np.zeros((self.settings.members, 0, 3, 3))
            return Prediction(empty, empty)
        features = cache.features(structures, _labelled(progress, "encoding candidates"))
        label = np.full(len(structures), FUNCTIONALS.index(functional))
        atoms = AtomRows(features, label, resolve_device(self.settings.device))
        return self._evaluate(atoms, [point_group_rotations(s) for s in structures])

    @torch.no_grad()
    def _evaluate(self, atoms: AtomRows, rotations: Sequence[Array]) -> Prediction:
        members = self.settings.members
        self.readout.to(atoms.device).eval()
        outputs = []
        for start in range(0, len(atoms.sizes), CRYSTALS_PER_CHUNK):
            chunk = slice(start, start + CRYSTALS_PER_CHUNK)
            inputs = atoms.inputs(self.normalise, self.layout, chunk)
            rows = np.arange(len(inputs.sizes))
            batch = inputs.batch(np.broadcast_to(rows, (members, len(rows))))
            per_atom = self.readout(*batch.features, Dropout(0.0))
            outputs.append(batch.mean_over_atoms(per_atom).cpu().numpy().astype(float))
        targets = np.concatenate(outputs, axis=1)
        for i, group in enumerate(rotations):
            targets[:, i] = project(targets[:, i], group)
        return Prediction(
            electronic=electronic_from_target(targets[:, :, 0]), ionic=from_target(targets[:, :, 1])
        )

    def save(self, directory: Path) -> None:
        """Write ``model.safetensors``, then ``model.json``, whose presence means whole."""
        from safetensors.torch import save

        tensors = {f"readout.{k}": v.cpu() for k, v in self.readout.state_dict().items()}
        tensors |= {f"normalise.{k}": v.cpu() for k, v in vars(self.normalise).items()}
        with atomic_path(directory / "model.safetensors") as temporary:
            # Not with save_file, which hides from us that a disk is full.
            temporary.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}))
            digest = _digest(temporary)
        manifest = {
            "format": FORMAT,
            "settings": self.settings.model_dump(),
            "layout": asdict(self.layout),
            "training_hash": self.training_hash,
            "metrics": self.metrics,
            "digest": digest,
        }
        atomic_write(directory / "model.json", json.dumps(manifest, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Ensemble:
        """Read a saved ensemble.

        Raises
        ------
        UserError
            No model there, one of another format, or a damaged file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            manifest = json.loads((directory / "model.json").read_text())
            if manifest["format"] != FORMAT:
                raise UserError(
                    f"The model in {directory} has format {manifest['format']}, this version reads "
                    f"format {FORMAT}; train it again with this version."
                )
            weights = directory / "model.safetensors"
            if _digest(weights) != manifest["digest"]:
                raise ValueError("not the weights that the manifest was written for")
            tensors = load_file(weights)
            settings = ModelSettings(**manifest["settings"])
            layout = FeatureLayout(**manifest["layout"])
            inputs = Width(layout.scalars + 1, layout.vectors, layout.tensors)
            readout = Readout(settings.members, inputs, LATENT, rank2_basis())
            device = resolve_device(settings.device)
            readout.load_state_dict(_below("readout.", tensors))
            normalise = Normalisation(
                **{k: v.to(device) for k, v in _below("normalise.", tensors).items()}
            )
            metrics, trained_on = manifest["metrics"], manifest["training_hash"]
        except FileNotFoundError:
            raise UserError(f"There is no trained model in {directory}.") from None
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError):
            raise UserError(
                f"The model in {directory} is damaged or cut short; delete the directory and train "
                "again."
            ) from None
        return cls(settings, layout, readout, normalise, metrics, trained_on)


def training_hash(known: Sequence[KnownMaterial], settings: ModelSettings, seed: int) -> str:
    """Hash of everything that decides the outcome of a training."""
    rows = [
        [k.material.structure_hash, k.functional, k.tensors.to_dict()] for k in _in_order(known)
    ]
    return stable_hash([FORMAT, settings.model_dump(exclude={"device"}), seed, rows])


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


def _in_order(known: Sequence[KnownMaterial]) -> list[KnownMaterial]:
    return sorted(
        known, key=lambda k: (k.material.structure_hash, k.functional, k.material.material_id)
    )


def _composition(known: KnownMaterial) -> str:
    """Reduced formula of the structure; a table may spell its formulas in any way."""
    return str(known.material.structure.composition.reduced_formula)


def _usable(known: Sequence[KnownMaterial]) -> list[KnownMaterial]:
    rows = [
        k
        for k in _in_order(known)
        if k.tensors.electronic is not None or k.tensors.ionic is not None
    ]
    n_groups = len({_composition(k) for k in rows})
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


def _labels(known: Sequence[KnownMaterial], device: torch.device) -> Labels:
    targets = np.zeros((len(known), 2, 3, 3))
    mask = np.zeros((len(known), 2))
    for i, k in enumerate(known):
        if k.tensors.electronic is not None:
            targets[i, 0], mask[i, 0] = electronic_target(k.tensors.electronic), 1.0
        if k.tensors.ionic is not None:
            targets[i, 1], mask[i, 1] = to_target(k.tensors.ionic), 1.0
    return Labels(
        torch.as_tensor(targets, dtype=torch.float32, device=device),
        torch.as_tensor(mask, dtype=torch.float32, device=device),
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _labelled(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)
