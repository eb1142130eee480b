"""Trained ensembles of published models on disk, in the same two files as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.calibration import Calibration
from models.data import Normalisation
from models.domain import Domain
from models.encoder import FeatureLayout
from models.files import Tensors, below, read, write
from models.papers.ensemble import LEARNED, PaperEnsemble
from models.papers.network import PaperNetwork
from models.papers.recipes import build
from models.settings import ModelSettings


def save_paper(ensemble: PaperEnsemble, directory: Path) -> None:
    """Write weights and manifest."""
    tensors: Tensors = {}
    for part, networks in ensemble.networks.items():
        for member, network in enumerate(networks):
            weights = network.state_dict()
            tensors |= {f"{part}.{member}.{k}": v for k, v in weights.items()}
    write(directory, ensemble, tensors)


def load_paper(directory: Path) -> PaperEnsemble:
    """Read a saved ensemble of a published model.

    Raises
    ------
    UserError
        No model there, one of another format, or a damaged file.
    """
    return read(directory, _built)


def _built(manifest: dict[str, Any], tensors: Tensors) -> PaperEnsemble:
    settings = ModelSettings(**manifest["settings"])
    layout = FeatureLayout(**manifest["layout"])
    networks: dict[str, list[PaperNetwork]] = {}
    for part in LEARNED:
        networks[part] = []
        for member in range(settings.members):
            network = build(settings.name, layout)
            network.load_state_dict(below(f"{part}.{member}.", tensors))
            networks[part].append(network.eval())
    return PaperEnsemble(
        settings,
        layout,
        networks,
        Normalisation(**below("normalise.", tensors)),
        Domain(**below("domain.", tensors)),
        Calibration.from_dict(manifest["calibration"]),
        manifest["metrics"],
        manifest["training_hash"],
    )
