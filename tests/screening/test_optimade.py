"""Other people's databases, over OPTIMADE."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import screening.optimade
from screening.errors import UserError
from screening.http import PoliteSession
from screening.pulling import PullContext
from screening.settings import OptimadeSource
from screening.sources import pull_candidates

FILTER = 'elements HAS "O" AND nsites<=20'


def entry(name: str, structure: Any, **values: Any) -> dict[str, Any]:
    symbols = [site.specie.symbol for site in structure]
    attributes = {
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "species_at_sites": symbols,
        "species": [
            {"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in set(symbols)
        ],
        "nsites": len(symbols),
        "dimension_types": [1, 1, 1],
        **values,
    }
    return {"id": name, "type": "structures", "attributes": attributes}


class Provider:
    """Pages of two entries; a fault for the n-th request."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries
        self.fault: Callable[[int], str] = lambda _n: ""
        self.queries: list[dict[str, list[str]]] = []
        self.returned: int | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                outer.queries.append(query)
                status, body = outer.answer(query, outer.fault(len(outer.queries)))
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.api+json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                half = outer.fault(len(outer.queries)) == "half"
                self.wfile.write(content[: len(content) // 2] if half else content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, query: dict[str, list[str]], fault: str) -> tuple[int, Any]:
        if fault in ("429", "502"):
            return int(fault), {"errors": [{"title": "later", "detail": "busy"}]}
        if fault == "400":
            return 400, {"errors": [{"title": "Bad Request", "detail": "unknown property"}]}
        offset = int(query.get("page_offset", ["0"])[0])
        left = offset + 2 < len(self.entries)
        after = f"{self.url}/v1/structures?page_offset={offset + 2}" if left else None
        total = len(self.entries) if self.returned is None else self.returned
        return 200, {
            "data": self.entries[offset : offset + 2],
            "links": {"next": after},
            "meta": {"data_returned": total, "data_available": total, "more_data_available": left},
        }


@pytest.fixture
def provider(prototypes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setattr(
        screening.optimade, "_Session", type("S", (PoliteSession,), {"__init__": _quick})
    )
    entries = [
        entry("a", prototypes["rutile"], _x_gap=1.8), entry("b", prototypes["quartz"]),
        entry("c", prototypes["NaCl"], _x_gap=5.0), entry("d", prototypes["MoS2"], _x_gap=None),
        entry("e", prototypes["wurtzite"], _x_gap="wide"),
    ]  # fmt: skip
    running = Provider(entries)
    yield running
    running.server.shutdown()


def _quick(self: PoliteSession) -> None:
    PoliteSession.__init__(self, attempts=3, first_wait=0.0)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def context(tmp_path: Path, notes: list[str]) -> PullContext:
    return PullContext(cache=tmp_path / "cache", note=notes.append)


def source(provider: Provider, **values: Any) -> OptimadeSource:
    values.setdefault("band_gap_property", "_x_gap")
    return OptimadeSource(provider=provider.url, filter=FILTER, **values)


def test_all_pages_come_and_are_kept(
    provider: Provider, context: PullContext, notes: list[str], prototypes: dict[str, Any]
) -> None:
    pulled = pull_candidates(source(provider), context)
    assert [m.material_id for m in pulled.items] == list("abcde")
    assert [m.band_gap for m in pulled.items] == [1.8, None, 5.0, None, None]
    assert pulled.items[0].structure.matches(prototypes["rutile"])
    assert provider.queries[0]["filter"] == [FILTER]
    assert "_x_gap" in provider.queries[0]["response_fields"][0]
    assert any("3 of 5 materials" in note and "no band gap" in note for note in notes)
    asked = len(provider.queries)
    again = pull_candidates(source(provider), context)
    assert len(provider.queries) == asked and "local copy" in " ".join(notes)
    assert [m.structure_hash for m in again.items] == [m.structure_hash for m in pulled.items]
    pull_candidates(source(provider, refresh=True), context)
    assert len(provider.queries) > asked


@pytest.mark.parametrize("fault", ["429", "502", "half"])
def test_faults_lose_nothing(fault: str, provider: Provider, context: PullContext) -> None:
    provider.fault = lambda n: fault if n % 2 else ""
    pulled = pull_candidates(source(provider), context)
    assert [m.material_id for m in pulled.items] == list("abcde")


def test_a_gap_is_assumed_only_if_asked_for(
    provider: Provider, context: PullContext, notes: list[str], tmp_path: Path
) -> None:
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("material_id,band_gap\nb,8.9\n")
    pulled = pull_candidates(source(provider, assumed_band_gap=2.5, band_gaps=gaps), context)
    assert [m.band_gap for m in pulled.items] == [1.8, 8.9, 5.0, 2.5, 2.5]
    assert [m.material_id for m in pulled.items if "assumed" in m.source] == ["d", "e"]
    assert any("2.5 eV is assumed for them, as asked" in note for note in notes)
    gaps.write_text("material_id,band_gap\nz,8.9\n")
    with pytest.raises(UserError, match="gives a band gap for 'z'"):
        pull_candidates(source(provider, band_gaps=gaps), context)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda a: a["species"][0].update(concentration=[0.5]), "disordered"),
        (lambda a: a["species"][0].update(chemical_symbols=["X"]), "no element"),
        (lambda a: a["species"][0].update(attached=["H"], nattached=[1]), "hydrogen given only"),
        (lambda a: a.update(dimension_types=[1, 1, 0]), "not periodic"),
        (lambda a: a.update(lattice_vectors=None), "malformed"),
        (lambda a: a["cartesian_site_positions"].pop(), "malformed"),
    ],
)
def test_unusable_entries_are_counted(
    spoil: Callable[[Any], Any], reason: str, provider: Provider, context: PullContext
) -> None:
    spoil(provider.entries[1]["attributes"])
    pulled = pull_candidates(source(provider), context)
    (found,) = pulled.refused.counts()
    assert reason in found and pulled.refused.ids(found) == ["b"]
    assert len(pulled.items) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fault": lambda _n: "400"}, "unknown property"),
        ({"fault": lambda _n: "502"}, "gave no answer in 3 attempts"),
        ({"returned": 9}, "says it has 9 entries but gave only 5"),
    ],
)
def test_errors_are_sentences(
    change: dict[str, Any], message: str, provider: Provider, context: PullContext
) -> None:
    for name, value in change.items():
        setattr(provider, name, value)
    with pytest.raises(UserError, match=message):
        pull_candidates(source(provider), context)


def test_mistakes_of_the_user(provider: Provider, context: PullContext) -> None:
    with pytest.raises(UserError, match=r"no OPTIMADE provider 'oqdm'; choose one of .*oqmd"):
        pull_candidates(OptimadeSource(provider="oqdm", filter=FILTER), context)
    with pytest.raises(UserError, match="cannot be understood"):
        pull_candidates(OptimadeSource(provider=provider.url, filter="elements HAZ O"), context)
    with pytest.raises(UserError, match=r"5 entries .* more than max_materials"):
        pull_candidates(source(provider, max_materials=3), context)
    with pytest.raises(UserError, match="no https"):
        pull_candidates(OptimadeSource(provider="http://example.org", filter=FILTER), context)
