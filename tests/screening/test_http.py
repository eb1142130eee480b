"""Patience with servers, and none with those that do not prove who they are."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from screening import http as module
from screening.http import PoliteSession, UnreachableError, retry_after

TODAY = "Sun, 22 Nov 2026 12:00:00 GMT"
SOON = "Sun, 22 Nov 2026 12:00:30 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "later"}, None),
        # This machine's clock may be years off: the server's own counts.
        ({"Retry-After": SOON, "Date": TODAY}, 30.0),
        ({"Retry-After": TODAY, "Date": SOON}, 0.0),
        ({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0.0),
    ],
)
def test_what_the_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    response = requests.Response()
    response.headers.update(headers)
    assert retry_after(response) == seconds


class _Server:
    """Answers with what it is given, one after the other, the last for ever."""

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                number = min(len(outer.asked), len(outer.answers)) - 1
                status, headers = outer.answers[number]
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Any]:
    made: list[_Server] = []

    def start(*answers: tuple[int, dict[str, str]]) -> _Server:
        made.append(_Server(*answers))
        return made[-1]

    yield start
    for server in made:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were asked of the clock, which does not wait."""
    found: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=found.append))
    return found


def test_it_waits_as_long_as_it_is_asked_to_but_a_minute_at_most(
    serve: Any, waits: list[float]
) -> None:
    server = serve((503, {"Retry-After": "120"}), (429, {"Retry-After": "3"}), (200, {}))
    assert PoliteSession().get(server.url).status_code == 200
    assert waits == [60.0, 3.0]


def test_it_waits_twice_as_long_each_time_and_gives_up(serve: Any, waits: list[float]) -> None:
    server = serve((502, {}))
    with pytest.raises(UnreachableError, match=r"no answer in 7 attempts \(status 502\)"):
        PoliteSession().get(server.url)
    assert len(server.asked) == 7 and len(waits) == 6
    for number, wait in enumerate(waits):
        assert 0.5 * 2**number <= wait <= 2**number


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_no_is_a_no(status: int, serve: Any, waits: list[float]) -> None:
    server = serve((status, {}))
    assert PoliteSession().get(server.url).status_code == status
    assert len(server.asked) == 1 and not waits


def test_nobody_is_led_to_another_host(serve: Any) -> None:
    other = serve((200, {}))
    server = serve((302, {"Location": f"{other.url}/elsewhere"}))
    assert PoliteSession().get(server.url).status_code == 302
    assert not other.asked


def test_whoever_cannot_prove_who_they_are_is_asked_once(waits: list[float]) -> None:
    """A server that speaks no TLS where TLS is spoken."""
    listener = socket.create_server(("127.0.0.1", 0))
    calls: list[bytes] = []

    def answer() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                calls.append(line.recv(65536))
                line.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    try:
        with pytest.raises(UnreachableError, match="does not prove who it is"):
            PoliteSession().get(f"https://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        listener.close()
    assert len(calls) == 1 and not waits
