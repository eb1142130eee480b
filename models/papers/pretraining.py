"""Pretraining on formation energies, as GoeCTP does it, and where the weights are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.papers.names import Choice, parse
from models.papers.recipes import PRETRAINING
from models.papers.training import Budget, train
from screening.errors import UserError
from screening.io import atomic_path, atomic_write
from screening.progress import Progress
from screening.symmetry import Cell

if TYPE_CHECKING:
    import pandas as pd

    from models.papers.goectp import GoeCTP
    from models.papers.network import PaperNetwork

MOST_ATOMS = 30
"""Larger crystals are left out: the tensor tables have none."""
MOST_CRYSTALS = 25_000
"""So many, drawn at random, are turned into graphs: more than an hour of a processor core gets
through."""
VALIDATION = 0.05
LARGEST_VALIDATION = 500
WEIGHTS, FACTS = "model.safetensors", "pretraining.json"
COLUMNS = ("cell", "species", "frac", "formation_energy_per_atom")


def directory_of(choice: Choice, root: Path) -> Path:
    """Where the weights of a model lie, below the cache's root."""
    return root / "pretrained" / str(choice.without("pretrained"))


def pretrained(network: PaperNetwork, choice: Choice, root: Path) -> dict[str, Any]:
    """Load pretrained weights into a fresh network; returns what is known of their training.

    Raises
    ------
    UserError
        There are none.
    """
    from safetensors.torch import load_file

    require_pretrained(str(choice), root)
    place = directory_of(choice, root)
    network.load_state_dict(load_file(place / WEIGHTS))
    return dict(json.loads((place / FACTS).read_text()))


def require_pretrained(name: str, root: Path) -> None:
    """Before a long run: whether the model ``name`` finds the pretrained weights that it asks for.

    Raises
    ------
    UserError
        It asks for them, and there are none.
    """
    choice = parse(name)
    place = directory_of(choice, root)
    if "pretrained" in choice.options and not all((place / n).is_file() for n in (WEIGHTS, FACTS)):
        plain = choice.without("pretrained")
        raise UserError(
            f"There are no pretrained weights of {plain}; make them first: screen pretrain "
            f"formation_energies.parquet --model {plain}."
        )


def pretrain(
    network: GoeCTP,
    frame: pd.DataFrame,
    budget: Budget,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit a GoeCTP network's energy output to formation energies (eV/atom).

    Columns of ``frame``: ``COLUMNS``; lengths in Å, angles in degrees, positions fractional. Rows
    without a finite energy are left out and counted in ``rows_left_out``.

    Raises
    ------
    UserError
        The table lacks a column, names an element that does not exist, or has too few crystals.
    """
    import pandas as pd

    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise UserError(f"The table for pretraining has no column '{missing[0]}'.")
    energy = pd.to_numeric(frame["formation_energy_per_atom"], errors="coerce")
    usable = frame.assign(formation_energy_per_atom=energy)[np.isfinite(energy)]
    small = usable[[len(species) <= MOST_ATOMS for species in usable["species"]]]
    chosen = small.sample(min(len(small), MOST_CRYSTALS), random_state=seed)
    n_validation = min(LARGEST_VALIDATION, round(VALIDATION * len(chosen)))
    if n_validation < 1:
        raise UserError(
            f"The table for pretraining has only {len(chosen)} crystals of up to {MOST_ATOMS} "
            "atoms with a formation energy."
        )
    graphs = []
    for done, (cell, species, frac) in enumerate(
        zip(chosen["cell"], chosen["species"], chosen["frac"], strict=True)
    ):
        graphs.append(network.graph_of(_cell(cell, species, frac)))
        if progress is not None and done % 100 == 0:
            progress(done, len(chosen))
    energies = torch.tensor(chosen["formation_energy_per_atom"].to_numpy(dtype=float))
    mean = energies.mean()
    facts = train(
        network, graphs, (energies - mean).to(torch.get_default_dtype()),
        np.arange(n_validation, len(graphs)), np.arange(n_validation), PRETRAINING, budget, seed,
        device, progress, network.energies,
    )  # fmt: skip
    spread = float((energies[:n_validation] - mean).abs().mean())
    return {
        "crystals": len(graphs) - n_validation,
        "rows_left_out": len(frame) - len(usable),
        "mean_deviation": round(spread, 4),
        **facts,
    }


def save_pretrained(
    network: PaperNetwork, choice: Choice, root: Path, facts: dict[str, Any]
) -> Path:
    """Keep the weights where ``+pretrained`` finds them; returns the directory."""
    from safetensors.torch import save

    place = directory_of(choice, root)
    with atomic_path(place / WEIGHTS) as temporary:
        weights = {k: v.cpu().contiguous() for k, v in network.state_dict().items()}
        temporary.write_bytes(save(weights))
    atomic_write(place / FACTS, json.dumps(facts, indent=2) + "\n")
    return place


def _cell(cell: Any, species: Any, frac: Any) -> Cell:
    from pymatgen.core import Element, Lattice

    lattice = Lattice.from_parameters(*(float(x) for x in cell)).matrix
    unknown = [str(symbol) for symbol in species if not Element.is_valid_symbol(str(symbol))]
    if unknown:
        raise UserError(f"The table for pretraining has '{unknown[0]}', which is no element.")
    numbers = np.array([Element(str(symbol)).Z for symbol in species], dtype=np.int64)
    return np.array(lattice), np.asarray(frac, dtype=float).reshape(-1, 3), numbers
