"""Records that the tests of this package start from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ELECTRONIC = [[2.4, 0.0, 0.0], [0.0, 2.4, 0.0], [0.0, 0.0, 2.9]]
IONIC = [[5.5, 0.0, 0.0], [0.0, 5.5, 0.0], [0.0, 0.0, 1.5]]


@pytest.fixture
def row(prototypes: dict[str, Any], as_json: Callable[[Any], str]) -> dict[str, Any]:
    """A row of a table of known tensors that is right in everything: a tetragonal crystal."""
    return {
        "material_id": "rutile",
        "structure": as_json(prototypes["rutile"]),
        "band_gap": 1.8,
        "functional": "PBE",
        "eps_electronic": json.dumps(ELECTRONIC),
        "eps_ionic": json.dumps(IONIC),
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write(rows, kind)``: a table of that kind on disk."""

    def save(rows: list[dict[str, Any]], kind: str = "csv", name: str = "table") -> Path:
        import pandas as pd

        frame, path = pd.DataFrame(rows), tmp_path / f"{name}.{kind}"
        match kind:
            case "csv":
                frame.to_csv(path, index=False)
            case "parquet":
                frame.to_parquet(path)
            case "jsonl":
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return save


@pytest.fixture(scope="session")
def point_group_orders() -> dict[str, int]:
    """Orders of the point groups of the prototypes (International Tables A, table 10.1.2.2)."""
    return {
        "baddeleyite": 4,  # 2/m
        "I2": 8,  # mmm
        "rutile": 16,  # 4/mmm
        "anatase": 16,  # 4/mmm
        "quartz": 6,  # 32
        "Te": 6,  # 32
        "wurtzite": 12,  # 6mm
        "MoS2": 24,  # 6/mmm
        "CO2": 24,  # m-3
        "zincblende": 24,  # -43m
        "NaCl": 48,  # m-3m
        "SrTiO3": 48,  # m-3m
    }


@pytest.fixture(scope="session")
def random_symmetric() -> Callable[[int], np.ndarray]:
    """``random_symmetric(seed)``: a symmetric matrix without any further symmetry."""

    def make(seed: int) -> np.ndarray:
        a = np.random.default_rng(seed).normal(size=(3, 3))
        return a + a.T

    return make
