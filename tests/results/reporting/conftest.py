"""A made-up campaign that looks like a real one, at any stage and of any size."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Composition, Lattice, Structure

from results.view import CampaignView
from screening.material import KnownMaterial, Material
from screening.tasks import get_task
from screening.tensors import DielectricTensors

PICKS = (
    "BaHfO3", "SrZrO3", "CaHfO3", "KTaO3", "NaTaO3", "LiTaO3", "Ba2MgWO6", "SrHfO3",
    "LaAlO3", "Y2O3", "KMgF3", "RbCaF3", "CsSrF3", "LiScO2", "NaScO2", "Sr2TiO4",
    "Ca3Zr2O7", "BaSnO3", "HfO2", "ZrO2", "TlCl", "CsPbCl3", "LiNbO3", "La2O3",
    "PbF2", "SrO", "BaO", "Rb2HfCl6", "K2ZrF6", "Ba3Ta2ZnO9", "Al2O3", "Sc2O3",
    "GdScO3", "LaLuO3", "TiO2", "ScF3", "BaZrO3", "NaMgF3", "CsCaF3", "Lu2O3",
)  # fmt: skip
REFUSALS = (
    ("imaginary mode", "The lowest optical mode at Γ is at −1.84 THz; the limit is −0.30 THz."),
    ("unconverged", "The response to the electric field did not converge in 100 iterations."),
    ("engine error", "The engine stopped: ZBRENT: fatal error in bracketing (run.log)."),
)
VERSIONS = {"screen": "0.1.0", "python": "3.11.7", "packages": {"torch": "2.13.0"}}


class Example:
    """Maker of views; every number follows from ``seed``."""

    @staticmethod
    def tensors(gaps: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Electronic and ionic tensors (n, 3, 3) that fall with the gap, as real ones do."""
        n = len(gaps)
        electronic = 1 + 9 / (1 + gaps) * np.exp(rng.normal(0, 0.15, n))
        ionic = np.exp(rng.normal(2.1, 0.75, n)) * np.exp(-0.08 * gaps)
        axes = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]

        def turned(mean: np.ndarray, width: float) -> np.ndarray:
            values = mean[:, None] * np.exp(rng.normal(0, width, (n, 3)))
            tensors = np.einsum("nia,na,nja->nij", axes, values, axes)
            return np.asarray((tensors + tensors.transpose(0, 2, 1)) / 2)

        return turned(electronic, 0.05), turned(ionic, 0.25)

    @staticmethod
    def structure(formula: str) -> Structure:
        """Some structure of that composition; the report never looks into it."""
        symbols = [el.symbol for el, n in Composition(formula).items() for _ in range(int(n))]
        rng = np.random.default_rng(sum(map(ord, formula)))
        lattice = Lattice.orthorhombic(*(3.9 + 2 * rng.random(3)))
        places = np.unravel_index(rng.permutation(27)[: len(symbols)], (3, 3, 3))
        return Structure(lattice, symbols, np.array(places).T / 3)

    @classmethod
    @functools.cache
    def material(cls, formula: str) -> Material:
        number = 1000 + 37 * PICKS.index(formula)
        gap = float(np.random.default_rng(number).uniform(2.4, 6.8))
        return Material(f"mp-{number}", cls.structure(formula), band_gap=round(gap, 3))

    @classmethod
    def table(cls, n: int, seed: int) -> pd.DataFrame:
        """Known materials."""
        rng = np.random.default_rng(seed)
        gaps = rng.gamma(3.0, 1.0, n) + 0.05
        electronic, ionic = cls.tensors(gaps, rng)
        cations = ["Na", "K", "Rb", "Ca", "Sr", "Ba", "Y", "Ti", "Zr", "Zn", "Al", "Ga", "La", "Sn"]
        anions = ["O3", "O4", "O2", "F4", "F6", "Cl3", "S2", "Se2", "N2", "O7"]
        names = ["".join(rng.choice(cations, 2, replace=False)) for _ in range(n)]
        names = [f"{pair}{anion}" for pair, anion in zip(names, rng.choice(anions, n), strict=True)]
        return pd.DataFrame(
            {
                "material_id": [f"mp-{seed * 100_000 + i}" for i in range(n)],
                "structure_hash": [f"{seed * 100_000 + i:032x}" for i in range(n)],
                "formula": names,
                "n_sites": rng.integers(2, 20, n),
                "band_gap": gaps.round(4),
                "functional": "PBEsol",
                "electronic": electronic.tolist(),
                "ionic": ionic.tolist(),
            }
        )

    @classmethod
    def predictions(cls, task: str, n: int) -> pd.DataFrame:
        """Candidates as a model sees them."""
        table = cls.table(n, seed=7)
        static = np.array(table["electronic"].tolist()) + np.array(table["ionic"].tolist())
        mean = np.trace(static, axis1=1, axis2=2) / 3
        merit = get_task(task).figure_of_merit(table["band_gap"].to_numpy(), static)
        spread = np.random.default_rng(n).uniform(0.05, 0.3, n)
        return table.drop(columns=["functional"]).assign(
            epsilon_mean=mean, epsilon_std=mean * spread, merit_mean=merit,
            merit_std=merit * spread, acquisition=merit * (1 + 1.5 * spread),
            rank=np.argsort(np.argsort(-merit * (1 + 1.5 * spread))) + 1,
        )  # fmt: skip

    @classmethod
    def calculations(cls, task: str, rounds: int, picks: int, seed: int) -> pd.DataFrame:
        """Picks of all rounds with their results, about a quarter of them refused."""
        rng = np.random.default_rng(seed)
        rows: list[dict[str, Any]] = []
        for i, formula in enumerate(PICKS[: rounds * picks]):
            material = cls.material(formula)
            gaps = np.array([material.band_gap])
            electronic, ionic = cls.tensors(gaps, rng)
            ionic = ionic * 4.5
            static = electronic + ionic
            merit = float(get_task(task).figure_of_merit(gaps, static)[0])
            mean, sigma = float(np.trace(static[0]) / 3), rng.uniform(0.08, 0.25)
            off = float(np.exp(rng.normal(0, 0.18)))
            fails = rng.random() < 0.25
            verdict, detail = REFUSALS[i % 3] if fails else ("accepted", "")
            rows.append(
                {
                    "round": i // picks + 1, "rank": i % picks + 1, "key": f"key-{i:04d}",
                    "material_id": material.material_id, "formula": material.formula,
                    "structure_hash": material.structure_hash, "n_sites": material.n_sites,
                    "band_gap": material.band_gap, "epsilon_mean": mean * off,
                    "epsilon_std": mean * off * sigma, "merit_mean": merit * off,
                    "merit_std": merit * off * sigma, "status": "finished",
                    "acquisition": merit * off * (1 + 1.5 * sigma),
                    "verdict": verdict, "detail": detail,
                    "electronic": None if fails else electronic[0].tolist(),
                    "ionic": None if fails else ionic[0].tolist(),
                    "functional": None if fails else "PBEsol",
                    "cpu_s": float(rng.uniform(600, 9000)), "wall_s": float(rng.uniform(300, 4500)),
                    "shared": False,
                }
            )  # fmt: skip
        return pd.DataFrame(rows)

    @classmethod
    def view(
        cls,
        task: str = "high-k",
        rounds: int = 3,
        picks: int = 8,
        n_known: int = 300,
        n_candidates: int = 800,
        seed: int = 5,
        **changes: Any,
    ) -> CampaignView:
        """A finished campaign; ``changes`` replace fields of the view."""
        fields: dict[str, Any] = {
            "name": f"{task} search",
            "task": get_task(task),
            "seed": 42,
            "status": "finished",
            "config": {"task": task, "rounds": rounds, "acquisition": {"kind": "ucb", "beta": 1.5}},
            "versions": VERSIONS,
            "created_at": datetime(2026, 3, 1, 9, 30, tzinfo=UTC),
            "finished_at": datetime(2026, 3, 2, 18, 5, tzinfo=UTC),
            "known": cls.table(n_known, seed=3),
            "rounds": pd.DataFrame(
                {
                    "number": range(1, rounds + 1),
                    "status": "finished",
                    "n_training": [n_known + picks * i for i in range(rounds)],
                    "started_at": datetime(2026, 3, 1, 9, 31, tzinfo=UTC),
                    "finished_at": datetime(2026, 3, 2, 18, 4, tzinfo=UTC),
                }
            ),
            "metrics": {
                n: {"test": {"mae": 1.3 / n, "log_error": 0.13}, "epochs": 60}
                for n in range(1, rounds + 1)
            },
            "seconds": {
                n: {
                    "train": {"wall_s": 312.0 * n, "cpu_s": 600.0 * n},
                    "predict": {"wall_s": 41.5, "cpu_s": 80.1},
                    "calculate": {"wall_s": 8000.0, "cpu_s": 31000.0},
                }
                for n in range(1, rounds + 1)
            },
            "candidates": cls.predictions(task, n_candidates),
            "candidates_round": rounds,
            "calculations": cls.calculations(task, rounds, picks, seed),
        }
        return CampaignView(**fields | changes)

    @classmethod
    def materials(cls, view: CampaignView) -> list[KnownMaterial]:
        """What the gate accepted, with structures, as the ledger gives it: by structure hash."""
        found = [
            KnownMaterial(
                cls.material(row["formula"]),
                DielectricTensors(np.array(row["electronic"]), np.array(row["ionic"])),
                row["functional"],
            )
            for _, row in view.validated.iterrows()
        ]
        return sorted(found, key=lambda known: known.material.structure_hash)


@pytest.fixture(scope="session")
def example() -> type[Example]:
    """Maker of views."""
    return Example
