"""A local server that speaks the Materials Project's API, for tests and benchmarks.

Documents are built by emmet-core's own models, tensors turned into the IEEE frame by its own code.
Like the real one it refuses parameters it does not know (400), unfiltered use is not special, pages
have at most 1000 documents, and a wrong key ends in 401. It binds to 127.0.0.1 only.

    python benchmarks/mp_server.py documents.jsonl   # prints its address, serves until killed
"""

from __future__ import annotations

import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "0123456789abcdefghijKLMNOPQRSTUV"
VERSION = "2026.10.01"
COMMON = {"_skip", "_limit", "_fields", "material_ids"}
RANGES = ("e_total", "e_ionic", "e_electronic", "n")
SUMMARY = {
    *COMMON, "_sort_fields", "deprecated", "is_metal", "is_stable", "has_props", "elements",
    "exclude_elements", "batch_id_not_eq",
    *(f"{name}_{end}" for end in ("min", "max")
      for name in ("energy_above_hull", "band_gap", "nsites", *RANGES)),
}  # fmt: skip
KNOWN = {
    "materials/summary": SUMMARY,
    "materials/dielectric": COMMON | {f"{n}_{end}" for n in RANGES for end in ("min", "max")},
}

Document = dict[str, Any]


def summary_document(
    material_id: str, structure: Any, tensors: Document | None = None, **values: Any
) -> Document:
    """A summary document as emmet-core makes it; ``tensors`` is the dielectric one.

    The symmetry is taken from ``tensors`` where there is one, which saves nine tenths of the time.
    """
    from emmet.core.summary import SummaryDoc

    scalars = {} if tensors is None else {name: tensors[name] for name in RANGES}
    given = {
        "band_gap": 1.0, "is_metal": False, "energy_above_hull": 0.0, "is_stable": True,
        "has_props": {"dielectric": tensors is not None}, "theoretical": False, **scalars, **values,
    }  # fmt: skip
    given.setdefault("last_updated", "2026-09-01T00:00:00Z")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = SummaryDoc(
            structure=structure, material_id="mp-1", deprecated=False, property_name="summary",
            nsites=len(structure), elements=structure.elements, volume=structure.volume,
            density=structure.density, formula_pretty=structure.reduced_formula,
            symmetry=(tensors or {}).get("symmetry"), **given,
        )  # fmt: skip
        dump: Document = json.loads(document.model_dump_json())
    return dump | {"material_id": material_id}


def dielectric_document(material_id: str, structure: Any, electronic: Any, ionic: Any) -> Document:
    """A dielectric document as emmet-core makes it: in the IEEE frame of ``structure``.

    Raises
    ------
    ValueError
        emmet-core cannot make one, because axes tie exactly.
    """
    from emmet.core.polar import DielectricDoc

    document = DielectricDoc.from_ionic_and_electronic(
        epsilon_ionic=ionic, epsilon_static=electronic, structure=structure, material_id="mp-1",
        deprecated=False, last_updated="2026-09-01T00:00:00Z",
    )  # fmt: skip
    dump: Document = json.loads(document.model_dump_json())
    return dump | {"material_id": material_id}


@dataclass
class Request:
    """One request as it came."""

    route: str
    query: dict[str, str]
    key: str | None


@dataclass
class MpServer:
    """Serves documents in a thread; a context manager.

    Attributes
    ----------
    summary, dielectric
        The documents; they may be changed while it serves.
    fault
        Called with the number of the request (from 1) and the request; returns the name of a fault
        or "".
    """

    summary: Sequence[Document]
    dielectric: Sequence[Document] = ()
    version: str = VERSION
    key: str = KEY
    clock_offset_s: float = 0.0
    fault: Callable[[int, Request], str] = lambda _n, _request: ""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> MpServer:
        outer = self

        class Handler(_Handler):
            server_of = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] # who broke off
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def pages(self) -> list[Request]:
        """Requests other than the heartbeat."""
        return [request for request in self.requests if request.route != "heartbeat"]

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and body of a request without faults."""
        if request.route == "heartbeat":
            return 200, {"status": "OK", "version": "0.87.3", "db_version": self.version,
                         "access_controlled_batch_ids": []}  # fmt: skip
        if request.key is None:
            return 401, {"message": "No API key found in request"}
        if request.key != self.key:
            return 403, {"message": "Invalid authentication credentials"}
        if request.route not in KNOWN:
            return 404, {"detail": "Not Found"}
        if strangers := set(request.query) - KNOWN[request.route]:
            names = ", ".join(sorted(strangers))
            return 400, {
                "detail": f"Request contains query parameters which cannot be used: {names}"
            }
        documents = self.summary if request.route == "materials/summary" else self.dielectric
        return 200, _select(list(documents), request.query)


def _select(documents: list[Document], query: dict[str, str]) -> Document:
    if ids := query.get("material_ids"):
        wanted = set(ids.split(","))
        documents = [d for d in documents if d.get("material_id") in wanted]
    tests: list[Callable[[Document], bool]] = []
    for name, value in query.items():
        if name.endswith("_min"):
            tests.append(lambda d, n=name[:-4], v=float(value): (d.get(n, v) or 0) >= v)
        elif name.endswith("_max"):
            tests.append(lambda d, n=name[:-4], v=float(value): (d.get(n, v) or 0) <= v)
        elif name in ("deprecated", "is_metal", "is_stable"):
            wanted_flag = value.lower() == "true"
            tests.append(lambda d, n=name, v=wanted_flag: bool(d.get(n, v)) is v)
        elif name == "has_props":
            tests.append(lambda d, v=value: bool((d.get("has_props") or {}).get(v)))
        elif name == "elements":
            tests.append(lambda d, v=value: set(v.split(",")) <= set(d.get("elements") or ()))
        elif name == "exclude_elements":
            tests.append(lambda d, v=value: not set(v.split(",")) & set(d.get("elements") or ()))
    documents = [d for d in documents if all(test(d) for test in tests)]
    if (order := query.get("_sort_fields")) is not None:
        documents.sort(key=lambda d: str(d.get(order)))
    skip, limit = int(query.get("_skip", 0)), min(int(query.get("_limit", 100)), 1000)
    page = documents[skip : skip + limit]
    if "_fields" in query:
        fields = query["_fields"].split(",")
        page = [{name: d[name] for name in fields if name in d} for d in page]
    return {"data": page, "meta": {"total_doc": len(documents)}}


class _Handler(BaseHTTPRequestHandler):
    server_of: MpServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def date_time_string(self, timestamp: float | None = None) -> str:
        now = (time.time() if timestamp is None else timestamp) + self.server_of.clock_offset_s
        return super().date_time_string(int(now))

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(parts.path.strip("/"), query, self.headers.get("x-api-key"))
        server = self.server_of
        server.requests.append(request)
        fault = server.fault(len(server.requests), request)
        status, body = server.answer(request)
        if fault == "short" and isinstance(body.get("data"), list):
            body["data"] = body["data"][: max(1, 2 * len(body["data"]) // 3)]
        if fault == "empty" and isinstance(body.get("data"), list):
            body["data"] = []
        if fault == "twice" and isinstance(body.get("data"), list):
            body["data"] = body["data"] + body["data"][-3:]
        self._send(status, body, fault)

    def _send(self, status: int, body: Any, fault: str) -> None:
        kind, headers, content = "application/json", {}, json.dumps(body).encode()
        match fault:
            case "drop":
                self.close_connection = True
                self.connection.close()
                return
            case "429":
                status, content, headers = 429, b'{"detail": "slow down"}', {"Retry-After": "0"}
            case "500" | "502" | "503":
                status, kind, content = int(fault), "text/html", b"<html>Bad Gateway</html>"
            case "expired":
                status, content = 401, b'{"message": "Your API key has expired"}'
            case "echo":
                status, content = 403, json.dumps({"message": f"bad {self.server_of.key}"}).encode()
            case "redirect":
                status, headers = 302, {"Location": "http://127.0.0.1:1/elsewhere"}
            case "html":
                kind, content = "text/html", b"<html>Please log in</html>"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault in ("half", "half-silent"):
            if fault == "half":
                self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main(path: Path) -> None:
    """Serve the documents of a JSON-lines file: {"summary": …} or {"dielectric": …} per line."""
    documents: dict[str, list[Document]] = {"summary": [], "dielectric": []}
    with path.open() as file:
        for line in file:
            for kind, document in json.loads(line).items():
                documents[kind].append(document)
    with MpServer(documents["summary"], documents["dielectric"]) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
