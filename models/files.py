"""Trained ensembles on disk: ``model.safetensors`` and ``model.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from models.born import BornNetwork
from models.calibration import Calibration
from models.data import Normalisation
from models.domain import Domain
from models.encoder import FeatureLayout, rank2_basis
from models.ensemble import FORMAT, LATENT, LATENT_BORN, Ensemble
from models.inputs import N_CONTEXT
from models.readout import Readout, Width
from models.settings import ModelSettings
from screening.errors import UserError
from screening.io import atomic_path, atomic_write

Tensors = dict[str, torch.Tensor]
T = TypeVar("T")

BORN_SCALES = "born-normalise."
READABLE = range(2, FORMAT + 1)
"""Formats that are read; earlier ones are upgraded on the way."""


def save(ensemble: Ensemble, directory: Path, *, half: bool = False) -> None:
    """Write the weights, then the manifest, whose presence means whole.

    ``half`` keeps the weights in half precision, for shipping.
    """
    networks = {"readout": ensemble.readout}
    tensors: Tensors = {}
    if ensemble.born is not None:
        networks["born"] = ensemble.born.readout
        scales = vars(ensemble.born.normalise)
        tensors |= {f"{BORN_SCALES}{k}": v for k, v in scales.items()}
    for name, network in networks.items():
        weights = network.state_dict()
        tensors |= {f"{name}.{k}": v.half() if half else v for k, v in weights.items()}
    write(directory, ensemble, tensors, {"offset": ensemble.offset})


class Saved(Protocol):
    """What every ensemble has beside its networks."""

    settings: ModelSettings
    layout: FeatureLayout
    normalise: Normalisation
    domain: Domain
    calibration: Calibration
    metrics: dict[str, Any]
    training_hash: str


def write(
    directory: Path, ensemble: Saved, networks: Tensors, more: Mapping[str, Any] | None = None
) -> None:
    """Write weights, then the manifest with format and digest."""
    from safetensors.torch import save as to_bytes

    tensors = dict(networks)
    tensors |= {f"normalise.{k}": v for k, v in vars(ensemble.normalise).items()}
    tensors |= {f"domain.{k}": v for k, v in vars(ensemble.domain).items()}
    manifest = {
        "settings": ensemble.settings.model_dump(),
        "layout": asdict(ensemble.layout),
        "training_hash": ensemble.training_hash,
        **(more or {}),
        "calibration": ensemble.calibration.to_dict(),
        "metrics": ensemble.metrics,
    }
    with atomic_path(directory / "model.safetensors") as temporary:
        # Not with save_file, which hides from us that a disk is full.
        temporary.write_bytes(to_bytes({k: v.cpu().contiguous() for k, v in tensors.items()}))
        digest = _digest(temporary)
    content = {"format": FORMAT, **manifest, "digest": digest}
    atomic_write(directory / "model.json", json.dumps(content, indent=2) + "\n")


def load(directory: Path) -> Ensemble:
    """Read a saved ensemble of ours.

    Raises
    ------
    UserError
        No model there, one of another format, or a damaged file.
    """
    return read(directory, _built)


def read(directory: Path, built: Callable[[dict[str, Any], Tensors], T]) -> T:
    """What ``built`` makes of manifest and weights; errors as in :func:`load`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        manifest = json.loads((directory / "model.json").read_text())
        if manifest["format"] not in READABLE:
            raise UserError(
                f"The model in {directory} has format {manifest['format']}, this version reads "
                f"formats {READABLE[0]} to {FORMAT}; train it again with this version."
            )
        weights = directory / "model.safetensors"
        if _digest(weights) != manifest["digest"]:
            raise ValueError("not the weights that the manifest was written for")
        return built(manifest, _upgraded(load_file(weights)))
    except FileNotFoundError:
        raise UserError(f"There is no trained model in {directory}.") from None
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError):
        raise UserError(
            f"The model in {directory} is damaged or cut short; delete the directory and train "
            "again."
        ) from None


def _upgraded(tensors: Tensors) -> Tensors:
    """What later formats have and earlier ones lack.

    Format 3: the elements in the training crystals. Of an ensemble that does not say which they
    were, no element counts as a stranger.
    Format 4: the scales of the network for Born charges, which was always the ensemble's own.
    """
    own = {f"{BORN_SCALES}{k}": v for k, v in below("normalise.", tensors).items()}
    return {"domain.numbers": torch.arange(1, 119), **own, **tensors}


def _built(manifest: dict[str, Any], tensors: Tensors) -> Ensemble:
    settings = ModelSettings(**manifest["settings"])
    layout = FeatureLayout(**manifest["layout"])
    inputs = Width(layout.scalars + N_CONTEXT, layout.vectors, layout.tensors)
    readout = Readout(settings.members, inputs, LATENT, rank2_basis(), n_tensors=2, n_scalars=1)
    readout.load_state_dict(below("readout.", tensors))
    born = None
    if weights := below("born.", tensors):
        members = len(weights["scalar_in.weight"])
        network = Readout(members, inputs, LATENT_BORN, rank2_basis(), n_tensors=1, asymmetric=True)
        network.load_state_dict(weights)
        born = BornNetwork(network, Normalisation(**below(BORN_SCALES, tensors)))
    return Ensemble(
        settings,
        layout,
        readout,
        born,
        Normalisation(**below("normalise.", tensors)),
        Domain(**below("domain.", tensors)),
        manifest["offset"],
        Calibration.from_dict(manifest["calibration"]),
        manifest["metrics"],
        manifest["training_hash"],
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def below(prefix: str, tensors: Tensors) -> Tensors:
    """Those whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
