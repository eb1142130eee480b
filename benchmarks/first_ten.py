"""The first ten candidates of a screening for each task, and why the model believes in them.

    python benchmarks/first_ten.py --data ../shared/data --out docs/figures

Reads ``stable_nonmetals.parquet``, leaves out what ``dielectric_tensors.parquet`` knows and what a
campaign's filters take, predicts the rest in two passes with the shipped ensemble, and prints a
table per task. The pictures show for each of the ten what its ionic part is made of: how much every
mode adds, against the mode's stiffness, and the Born charges of its elements.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.reporter import Reporter
from models.cache import FeatureCache, ForceConstantCache
from models.encoder import supported_elements
from models.ensemble import Ensemble, Prediction
from models.passes import in_two_passes
from models.physics import Modes
from models.shipped import shipped
from screening.acquisition import acquisition, top
from screening.filters import filter_candidates
from screening.material import Material
from screening.settings import AcquisitionSettings, FilterSettings
from screening.tables import read_candidates, read_usable
from screening.tasks import Task, get_task
from screening.tensors import mean_permittivity

Array = NDArray[np.float64]

FUNCTIONAL = "PBE"
N_SHOWN = 10


@dataclass(frozen=True)
class Belief:
    """What the ionic part of a candidate is made of.

    Attributes
    ----------
    stiffness, shares
        Of each optical mode: eigenvalue of Φ in eV/Å², and what it adds to ε̄_ionic, (3n − 3,).
    charges
        Element → mean Born charge in e.
    """

    stiffness: Array
    shares: Array
    charges: dict[str, float]


def main() -> None:
    """Screen for both tasks, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    ensemble = shipped()
    cache = FeatureCache(ensemble.settings.encoder)
    offered = read_candidates(options.data / "stable_nonmetals.parquet")
    known, _ = read_usable(options.data / "dielectric_tensors.parquet")
    with Reporter() as reporter:
        for name in ("high-k", "anisotropy"):
            task = get_task(name)
            pool = filter_candidates(
                offered, task, FilterSettings(),
                {"encoder": supported_elements(cache.encoder_name)},
                [k.material for k in known if k.has_been_calculated], reporter.progress,
            )  # fmt: skip
            print(f"\n## {name}\n\n{pool.summary()}.\n")
            prediction, values = screened(ensemble, cache, task, pool.candidates, reporter)
            order = top(values, N_SHOWN, 0)
            print(table(task, pool.candidates, prediction, order))
            chosen = [pool.candidates[i] for i in order]
            draw(
                task,
                chosen,
                beliefs(ensemble, cache, chosen),
                options.out / f"first-ten-{name}.png",
            )


def screened(
    ensemble: Ensemble, cache: FeatureCache, task: Task, pool: list[Material], reporter: Reporter
) -> tuple[Prediction, Array]:
    """Predictions of the pool and their acquisition values."""
    gaps = np.array([np.nan if m.band_gap is None else m.band_gap for m in pool])
    settings = AcquisitionSettings()

    def values(prediction: Prediction) -> Array:
        merits = task.figure_of_merit(gaps[None, :], prediction.static)
        return acquisition(merits, settings, 0)

    prediction = in_two_passes(
        ensemble, [m.structure for m in pool], [m.band_gap for m in pool], FUNCTIONAL, cache,
        lambda first: top(values(first), ensemble.settings.physics_candidates, 0),
        reporter.progress,
    )  # fmt: skip
    return prediction, values(prediction)


def table(
    task: Task, pool: list[Material], prediction: Prediction, order: NDArray[np.int64]
) -> str:
    """Markdown table of the chosen candidates."""
    lines = [
        f"| candidate | {task.label} | ε̄ static | ε̄∞ | λmax/λmin | gap (eV) | atoms | notes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for i in order:
        material = pool[i]
        merits = task.figure_of_merit(
            np.array([material.band_gap or np.nan]), prediction.static[:, i : i + 1]
        )
        static, electronic = (prediction.central(part)[i] for part in ("static", "electronic"))
        values = np.linalg.eigvalsh(static)
        notes = ["force constants"] if prediction.physical[i] else []
        notes += ["outside the domain"] if prediction.distance[i] > 1 else []
        lines.append(
            f"| {material.formula} ({material.material_id}) | {merits.mean():.3g} ± "
            f"{merits.std(ddof=1):.2g} | {mean_permittivity(static):.3g} | "
            f"{mean_permittivity(electronic):.3g} | {values[2] / values[0]:.2f} | "
            f"{material.band_gap:.2f} | {material.n_sites} | {', '.join(notes)} |"
        )
    return "\n".join(lines)


def beliefs(ensemble: Ensemble, cache: FeatureCache, chosen: list[Material]) -> list[Belief]:
    """Modes and Born charges of the chosen candidates, whatever their size."""
    examples = ensemble.examples(
        [m.structure for m in chosen], [FUNCTIONAL] * len(chosen), cache,
        [m.band_gap for m in chosen],
    )  # fmt: skip
    cells = [c.cell for c in examples.crystals]
    found = []
    for crystal, charges, matrix in zip(
        examples.crystals, ensemble.born_charges(examples),
        ForceConstantCache.beside(cache).compute(cells), strict=True,
    ):  # fmt: skip
        modes, born = Modes.of(matrix), charges.mean(axis=0)
        strengths = (modes.polarities(born) ** 2).sum(axis=1)
        whole = np.trace(modes.ionic(born, crystal.volume, modes.regular())) / 3
        shares = strengths / modes.regular()
        own = np.trace(born, axis1=1, axis2=2) / 3
        symbols = np.array([_symbol(z) for z in crystal.cell[2]])
        by_element = {str(s): float(own[symbols == s].mean()) for s in sorted(set(symbols))}
        found.append(Belief(modes.stiffness, shares / shares.sum() * whole, by_element))
    return found


def _symbol(number: int) -> str:
    from pymatgen.core import Element

    return str(Element.from_Z(int(number)).symbol)


def draw(task: Task, chosen: list[Material], found: list[Belief], path: Path) -> None:
    """One row of two panels per candidate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        5, 4, figsize=(14, 13), width_ratios=[3, 1, 3, 1], layout="constrained"
    )
    for (left, right), material, belief in zip(panels.reshape(-1, 2), chosen, found, strict=True):
        _modes(left, belief)
        left.set_title(
            f"{material.formula}  ({material.material_id}, gap {material.band_gap:.2f} eV)",
            fontsize=10,
        )
        colours = ["#b3432b" if c > 0 else "#2b5fb3" for c in belief.charges.values()]
        right.barh(list(belief.charges), list(belief.charges.values()), color=colours)
        right.axvline(0, color="black", linewidth=0.6)
        right.set_xlabel("Z* (e)", fontsize=8)
        right.tick_params(labelsize=8)
    figure.suptitle(
        f"First ten for {task.name}: what each mode adds to ε̄ ionic, and Born charges", fontsize=13
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def _modes(panel: Any, belief: Belief) -> None:
    stable = belief.stiffness > 0
    size = np.maximum(np.abs(belief.stiffness), 0.02)
    for rows, colour, name in ((stable, "#3a7d44", "stable"), (~stable, "#b3432b", "unstable")):
        if rows.any():
            panel.vlines(
                size[rows], 0, belief.shares[rows], color=colour, linewidth=2.5, label=name
            )
    panel.set_xscale("log")
    panel.set_xlabel("stiffness of the mode (eV/Å²)", fontsize=8)
    panel.set_ylabel("part of ε̄ ionic", fontsize=8)
    panel.set_ylim(bottom=0)
    panel.tick_params(labelsize=8)
    panel.legend(fontsize=7, frameon=False)


if __name__ == "__main__":
    main()
