"""The one interface of all models, and how one is trained, saved and loaded by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from models import files, fitting
from models.ensemble import Ensemble, Prediction
from models.papers.names import OURS
from screening.progress import NamedProgress

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from models.cache import FeatureCache, ForceConstantCache
    from models.calibration import Calibration
    from models.settings import ModelSettings
    from screening.material import KnownMaterial


class Predictor(Protocol):
    """A trained ensemble of any model.

    Its predictions are positive definite and invariant under each crystal's point group. Whether
    they turn with the crystal and do not depend on its cell is a matter of the model.
    """

    settings: ModelSettings
    calibration: Calibration
    metrics: dict[str, Any]
    training_hash: str

    @property
    def has_physics(self) -> bool:
        """Whether force constants of a crystal would change its prediction."""
        ...

    def predict(
        self,
        structures: Sequence[Structure],
        functional: str,
        cache: FeatureCache,
        progress: NamedProgress | None = None,
        band_gaps: Sequence[float | None] | None = None,
        force_constants: ForceConstantCache | None = None,
    ) -> Prediction:
        """Members' tensors of crystals; band gaps in eV, None where unknown."""
        ...


def fit(
    known: Sequence[KnownMaterial],
    settings: ModelSettings,
    seed: int,
    cache: FeatureCache,
    progress: NamedProgress | None = None,
    held_out: Callable[[KnownMaterial], bool] | None = None,
) -> Predictor:
    """Train the model that ``settings`` name; see :func:`models.fitting.fit`."""
    if settings.name == OURS:
        return fitting.fit(known, settings, seed, cache, progress, held_out)
    from models.papers.ensemble import fit_paper

    return fit_paper(known, settings, seed, cache, progress, held_out)


def save(predictor: Predictor, directory: Path) -> None:
    """Write weights and manifest; the manifest's presence means whole."""
    if isinstance(predictor, Ensemble):
        files.save(predictor, directory)
        return
    from models.papers.ensemble import PaperEnsemble
    from models.papers.files import save_paper

    assert isinstance(predictor, PaperEnsemble)
    save_paper(predictor, directory)


def load(directory: Path) -> Predictor:
    """Read a saved predictor.

    Raises
    ------
    UserError
        No model there, one of another format, or a damaged file.
    """
    try:
        name = json.loads((directory / "model.json").read_text())["settings"].get("name", OURS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        name = OURS  # whose reader says what is wrong
    if name == OURS:
        return files.load(directory)
    from models.papers.files import load_paper

    return load_paper(directory)
