"""Predicted tensors as plain records and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from models.ensemble import Prediction
    from models.predictor import Predictor
    from screening.material import Material

NINETY = 2
"""Place of the 90 % interval."""


def prediction_rows(
    materials: list[Material], prediction: Prediction, ensemble: Predictor
) -> list[dict[str, Any]]:
    """One plain record per crystal, tensors in the crystal's own Cartesian frame."""
    from models.calibration import PARTS

    central = {part: prediction.central(part) for part in PARTS}
    rows = []
    for i, material in enumerate(materials):
        row: dict[str, Any] = {
            "material_id": material.material_id,
            "formula": material.formula,
            "n_sites": material.n_sites,
            "band_gap": material.band_gap,
        }
        for part in PARTS:
            tensor = central[part][i]
            mean = float(np.trace(tensor) / 3)
            reach = prediction.deviation(part)[i] * ensemble.calibration.quantiles[part][NINETY]
            row[part] = {
                "tensor": np.round(tensor, 4).tolist(),
                "eigenvalues": np.round(np.linalg.eigvalsh(tensor), 4).tolist(),
                "mean": round(mean, 4),
                "interval_90": [round(float(mean * np.exp(s * reach)), 4) for s in (-1, 1)],
            }
        electronic, static = row["electronic"], row["static"]
        row["refractive_index"] = round(float(np.sqrt(electronic["mean"])), 4)
        row["anisotropy"] = round(static["eigenvalues"][2] / static["eigenvalues"][0], 4)
        row["in_domain"] = bool(prediction.distance[i] <= 1)
        row["physical"] = bool(prediction.physical[i])
        rows.append(row)
    return rows


def show_predictions(rows: list[dict[str, Any]]) -> None:
    """Print a table: a line per crystal, intervals below the means."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("crystal", "ε̄ static", "ε̄∞", "ε̄ ionic", "n", "λmax/λmin", ""):
        table.add_column(heading, justify="left" if heading in ("crystal", "") else "right")
    for row in rows:
        notes = [] if row["in_domain"] else ["outside the domain"]
        notes += ["force constants"] if row["physical"] else []
        parts = [_with_interval(row[part]) for part in ("static", "electronic", "ionic")]
        name = row["formula"]
        if row["material_id"] != name:
            name = f"{name} {row['material_id']}"
        table.add_row(
            name, *parts, f"{row['refractive_index']:.2f}", f"{row['anisotropy']:.2f}",
            ", ".join(notes),
        )  # fmt: skip
    Console(markup=False).print(table)


def _with_interval(part: dict[str, Any]) -> str:
    low, high = part["interval_90"]
    return f"{part['mean']:.3g}\n{low:.3g}–{high:.3g}"
