"""Documents that make no sense are refused with a reason, and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from screening.pulling import PullContext
from screening.settings import MaterialsProjectLabels, MaterialsProjectSource
from screening.sources import pull_candidates, pull_known

Document = dict[str, Any]


def tensor(name: str, value: Any) -> Callable[[Document], None]:
    def spoil(document: Document) -> None:
        document[name] = value
        if name in ("electronic", "ionic"):
            parts = [np.array(document[part], dtype=float) for part in ("electronic", "ionic")]
            document["total"] = np.sum(parts, axis=0).tolist()

    return spoil


def diagonal(*values: float) -> list[list[float]]:
    return np.diag(values).tolist()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (tensor("electronic", diagonal(1, 1, 1)), "electronic tensor is the identity"),
        (tensor("electronic", diagonal(-31279, 4, 4)), "electronic eigenvalue below 1"),
        (tensor("electronic", diagonal(3e4, 3e4, 3e4)), "electronic eigenvalue above 100"),
        (tensor("total", diagonal(50, 50, 50)), "total is not electronic + ionic"),
        (tensor("electronic", [[1, 2], [3, 4]]), None),
        (lambda d: d.update(electronic=None), "malformed document: tensor"),
        (lambda d: d.update(electronic=[["a"] * 3] * 3), "malformed document: tensor"),
        (lambda d: d.update(electronic=[[2, 1, 0], [0, 2, 0], [0, 0, 2]]), "not symmetric"),
        (lambda d: d.update(volume=2 * d["volume"]), "structure of another volume"),
        (lambda d: d["symmetry"].update(number=1), "another crystal system"),
        (lambda d: d.update(deprecated=True), "deprecated"),
    ],
)
def test_labels_that_make_no_sense(
    spoil: Callable[[Document], None], reason: str | None, server: Any, context: PullContext,
    documents: tuple[list[Document], list[Document]],
) -> None:  # fmt: skip
    chosen = next(d for d in documents[1] if d["material_id"] == "mp-107")  # rutile
    if reason is None:
        chosen["electronic"], reason = [[1, 2], [3, 4]], "malformed document: tensor"
    else:
        spoil(chosen)
    pulled = pull_known(MaterialsProjectLabels(endpoint=server.url), context)
    (found,) = pulled.refused.counts()
    assert reason in found
    assert pulled.refused.ids(found) == ["mp-107"]
    assert len(pulled.items) == len(documents[1]) - 1
    assert pulled.offered == len(pulled.items) + len(pulled.refused)


@pytest.mark.parametrize(
    ("ionic", "reason"),
    [(diagonal(-5, 1, 1), "imaginary mode"), (diagonal(5e3, 1, 1), "ionic part above 1000")],
)
def test_an_ionic_part_that_makes_no_sense_leaves_the_electronic(
    ionic: Any, reason: str, server: Any, context: PullContext,
    documents: tuple[list[Document], list[Document]],
) -> None:  # fmt: skip
    chosen = next(d for d in documents[1] if d["material_id"] == "mp-107")
    tensor("ionic", ionic)(chosen)
    pulled = pull_known(MaterialsProjectLabels(endpoint=server.url), context)
    (known,) = (k for k in pulled.items if k.material.material_id == "mp-107")
    assert known.tensors.ionic is None and known.tensors.electronic is not None
    (found,) = pulled.partly.counts()
    assert reason in found and not len(pulled.refused)


def test_labels_are_in_the_frames_of_their_structures(
    server: Any, context: PullContext, crystals: dict[str, Any]
) -> None:
    pulled = pull_known(MaterialsProjectLabels(endpoint=server.url), context)
    assert len(pulled.items) == len(crystals)
    for known in pulled.items:
        _, electronic, ionic, name = crystals[known.material.material_id]
        assert known.tensors.electronic == pytest.approx(electronic, abs=1e-6), name
        assert known.tensors.ionic == pytest.approx(ionic, abs=1e-6), name
        assert known.functional == "PBE"
    again = pull_known(MaterialsProjectLabels(endpoint=server.url), context)
    for first, second in zip(pulled.items, again.items, strict=True):
        assert np.array_equal(first.tensors.electronic, second.tensors.electronic)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda d: d.pop("structure"), "no structure"),
        (lambda d: d["structure"]["sites"].clear(), "malformed document: structure"),
        (lambda d: d["structure"].update(lattice={}), "malformed document: structure"),
        (lambda d: d["structure"]["lattice"].update(matrix=[[0] * 3] * 3), "structure"),
        (lambda d: d["structure"]["sites"][0].update(abc=[0, 0, None]), "structure"),
        (lambda d: d["structure"]["sites"][0]["species"][0].update(occu=0.5), "partially"),
        (lambda d: d.update(nsites=999), "number of atoms"),
        (lambda d: d.pop("material_id"), "no id"),
        (lambda d: d.update(band_gap="wide"), "malformed document: band_gap"),
        (lambda d: d.update(formula_pretty="Qq7"), "formula and structure differ"),
    ],
)
def test_candidates_that_are_malformed(
    spoil: Callable[[Document], None], reason: str, server: Any, context: PullContext,
    documents: tuple[list[Document], list[Document]],
) -> None:  # fmt: skip
    chosen = next(d for d in documents[0] if d["material_id"] == "mp-105")
    spoil(chosen)
    if isinstance(chosen.get("band_gap"), str):
        server.answer = _unfiltered(server)
    pulled = pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    (found,) = pulled.refused.counts()
    assert reason in found
    assert len(pulled.items) == len(documents[0]) - 1


def _unfiltered(server: Any) -> Callable[[Any], Any]:
    """A server that does not compare what cannot be compared."""
    answer = server.answer

    def send(request: Any) -> Any:
        kept = {n: v for n, v in request.query.items() if not n.startswith("band_gap")}
        request.query = kept
        return answer(request)

    return send


@pytest.mark.parametrize("name", ["mp-aaabbcde", "xx_9~f", "mvc-12", "agm001234567", "Ω/7"])
def test_ids_are_opaque(
    name: str, server: Any, context: PullContext, documents: tuple[list[Document], list[Document]]
) -> None:
    for kind in documents:
        kind[4]["material_id"] = name
    pulled = pull_known(MaterialsProjectLabels(endpoint=server.url), context)
    assert name in [k.material.material_id for k in pulled.items]
    assert not len(pulled.refused)
