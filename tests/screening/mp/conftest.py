"""A server with a dozen crystals that speaks the Materials Project's API, and a key to it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import screening.mp.pull
from screening.http import PoliteSession
from screening.mp.pull import Question
from screening.pulling import PullContext

CRYSTALS = (
    "I2", "NaCl", "SrTiO3", "Te", "anatase", "baddeleyite", "quartz", "rutile", "wurtzite", "MoS2",
)  # fmt: skip


def _load_server() -> Any:
    path = Path(__file__).parents[3] / "benchmarks" / "mp_server.py"
    if "mp_server" not in sys.modules:
        spec = importlib.util.spec_from_file_location("mp_server", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["mp_server"] = module
        spec.loader.exec_module(module)
    return sys.modules["mp_server"]


@pytest.fixture(scope="session")
def mp() -> Any:
    """The module ``benchmarks/mp_server.py``."""
    return _load_server()


@pytest.fixture(scope="session")
def crystals(prototypes: dict[str, Any]) -> dict[str, Any]:
    """Crystals with tensors that their point groups allow, by id: (structure, ε∞, ε_ionic)."""
    from screening.symmetry import point_group_rotations, project

    found = {}
    random = np.random.default_rng(7)
    for number, name in enumerate(CRYSTALS):
        structure = prototypes[name]
        rotations = point_group_rotations(structure)
        tensors = []
        for floor in (2.0, 1.0):
            a = random.normal(size=(3, 3))
            tensors.append(project(a @ a.T + floor * np.eye(3), rotations))
        found[f"mp-{100 + number}"] = (structure, *tensors, name)
    return found


@pytest.fixture(scope="session")
def built(mp: Any, crystals: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Summary and dielectric documents of the crystals, built by emmet-core."""
    summary, dielectric = [], []
    for number, (material_id, (structure, electronic, ionic, _)) in enumerate(crystals.items()):
        tensors = mp.dielectric_document(material_id, structure, electronic, ionic)
        dielectric.append(tensors)
        summary.append(mp.summary_document(material_id, structure, tensors, band_gap=1 + number))
    return summary, dielectric


@pytest.fixture
def documents(built: tuple[list[Any], list[Any]]) -> tuple[list[Any], list[Any]]:
    """Fresh copies, to be spoiled at will."""
    import copy

    return copy.deepcopy(built)


@pytest.fixture
def server(
    mp: Any, documents: tuple[list[Any], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The server; its key is in MP_API_KEY, and pages have four documents."""
    monkeypatch.setenv("MP_API_KEY", mp.KEY)
    monkeypatch.setattr(screening.mp.pull, "PAGE", 4)
    with mp.MpServer(*documents) as running:
        yield running


@pytest.fixture
def notes() -> list[str]:
    """What a person was told."""
    return []


@pytest.fixture
def context(tmp_path: Path, notes: list[str]) -> PullContext:
    """An empty cache."""
    return PullContext(cache=tmp_path / "cache", note=notes.append)


@pytest.fixture
def impatient() -> PoliteSession:
    """Two attempts, no wait."""
    return PoliteSession(attempts=2, first_wait=0.0)


@pytest.fixture
def question(server: Any) -> Callable[[str], Question]:
    """``question(what)``: all candidates or all labels of the server."""

    def ask(what: str = "candidates") -> Question:
        from screening.mp.source import candidate_criteria, label_criteria
        from screening.settings import MaterialsProjectLabels, MaterialsProjectSource

        if what == "labels":
            labels = MaterialsProjectLabels(endpoint=server.url)
            return Question(what, server.url, label_criteria(labels), True)
        candidates = MaterialsProjectSource(endpoint=server.url)
        return Question(what, server.url, candidate_criteria(candidates), False)

    return ask
