"""Reports over HTTP, for links from Prefect's UI: a page may not open a file of the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from flows.server import HOST

VARIABLE = "SCREEN_REPORTS"
"""Where reports can be had, e.g. ``http://127.0.0.1:4201``; set by ``screen up``."""

KINDS = {
    "report.html": "text/html; charset=utf-8",
    "validated.csv": "text/csv; charset=utf-8",
    "validated.json": "application/json",
    "validated.parquet": "application/vnd.apache.parquet",
}
"""The files of a campaign that are served, and nothing else."""


def report_link(name: str) -> str | None:
    """Address of a campaign's report, where somebody serves it."""
    base = os.environ.get(VARIABLE)
    return f"{base.rstrip('/')}/{quote(name)}/report.html" if base else None


@contextlib.contextmanager
def serve_reports(directory: Path, port: int = 0) -> Iterator[str]:
    """Serve the reports below ``directory`` to this machine alone; yields the address.

    A port that is taken is no reason to go without: another one is used then.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            path = directory / parts[0] / parts[-1]
            if len(parts) != 2 or parts[0].startswith(".") or parts[1] not in KINDS:
                self.send_error(404)
                return
            try:
                with path.open("rb") as file:
                    self.send_response(200)
                    self.send_header("Content-Type", KINDS[parts[1]])
                    self.send_header("Content-Length", str(path.stat().st_size))
                    self.end_headers()
                    shutil.copyfileobj(file, self.wfile)
            except (OSError, ValueError):  # of a zero byte in the name
                self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002
            return

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError):
        server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
