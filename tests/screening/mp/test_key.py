"""The key: where it comes from, and that it goes nowhere else."""

from __future__ import annotations

import http.client
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from screening.errors import UserError
from screening.http import PoliteSession
from screening.mp.key import find_key
from screening.mp.pull import Question, pull
from screening.pulling import PullContext
from screening.settings import MaterialsProjectLabels, MaterialsProjectSource
from screening.sources import pull_candidates, pull_known

FIRST, SECOND, THIRD = "a1" * 16, "b2" * 16, "c3" * 16


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymatgen.core import SETTINGS

    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.delenv("PMG_MAPI_KEY", raising=False)
    monkeypatch.delitem(SETTINGS, "PMG_MAPI_KEY", raising=False)


def test_the_order_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymatgen.core import SETTINGS

    asked = []

    def block() -> SecretStr:
        asked.append(1)
        return SecretStr(THIRD)

    key = find_key(block)
    assert key.secret.get_secret_value() == THIRD and "Secret block" in key.origin
    monkeypatch.setitem(SETTINGS, "PMG_MAPI_KEY", SECOND)
    key = find_key(block)
    assert key.secret.get_secret_value() == SECOND and "PMG_MAPI_KEY" in key.origin
    monkeypatch.setenv("MP_API_KEY", f" {FIRST}\n")
    key = find_key(block)
    assert key.secret.get_secret_value() == FIRST and "MP_API_KEY" in key.origin
    assert len(asked) == 1


def test_no_key() -> None:
    with pytest.raises(UserError, match=r"There is no key .* MP_API_KEY"):
        find_key(lambda: None)


@pytest.mark.parametrize("text", ["short", "x" * 31, "x" * 33, "ключ" * 8, "a b" * 10 + "cd"])
def test_what_is_no_key_is_said_without_showing_it(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_API_KEY", text)
    with pytest.raises(UserError, match="is no key to the Materials Project") as caught:
        find_key(lambda: None)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("", "does not accept the key from the environment variable MP_API_KEY"),
        ("expired", "has expired"),
        ("echo", "does not accept the key"),
        ("redirect", "not followed"),
    ],
)
def test_a_key_that_is_refused(
    fault: str, message: str, server: Any, mp: Any, context: PullContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    key = FIRST if not fault else mp.KEY
    monkeypatch.setenv("MP_API_KEY", key)
    server.fault = lambda _n, request: "" if request.route == "heartbeat" else fault
    with pytest.raises(UserError, match=message) as caught:
        pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    assert key not in str(caught.value)


def test_a_copy_needs_no_key(
    server: Any, mp: Any, context: PullContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_API_KEY", mp.KEY)
    source = MaterialsProjectSource(endpoint=server.url)
    pull_candidates(source, context)
    monkeypatch.delenv("MP_API_KEY")
    assert pull_candidates(source, context).items


def test_the_heartbeat_carries_no_key(
    server: Any, mp: Any, context: PullContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_API_KEY", mp.KEY)
    pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    assert {r.key for r in server.requests if r.route == "heartbeat"} == {None}
    assert {r.key for r in server.pages} == {mp.KEY}


def test_no_headers_are_printed(
    server: Any, mp: Any, context: PullContext, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """``debuglevel`` makes Python's HTTP library print what it sends, but not for us."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    monkeypatch.setenv("MP_API_KEY", mp.KEY)
    pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    assert "header" not in capfd.readouterr().out
    import requests

    requests.get(server.url + "heartbeat", headers={"x-api-key": mp.KEY}, timeout=10)
    assert mp.KEY in capfd.readouterr().out, "as a guard"


@pytest.mark.parametrize("fault", ["", "drop", "502", "echo", "expired", "a bug"])
def test_the_key_is_nowhere(
    fault: str, server: Any, mp: Any, context: PullContext, notes: list[str], tmp_path: Path,
    question: Callable[[str], Question], caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MP_API_KEY", mp.KEY)
    caplog.set_level(logging.DEBUG)
    server.fault = lambda n, _request: fault if n > 3 else ""
    if fault == "a bug":
        begin = http.client.HTTPResponse.begin

        def broken(response: Any) -> None:
            begin(response)
            if server.pages:  # the request for the first page has left, with the key
                raise RuntimeError("with the headers in the frames around")

        monkeypatch.setattr(http.client.HTTPResponse, "begin", broken)
    said = ""
    try:
        pull(question("labels"), context, session=PoliteSession(attempts=2, first_wait=0.0))
        pulled = pull_known(MaterialsProjectLabels(endpoint=server.url), context)
        said = f"{pulled} {pulled.to_dict()} {pulled.summary()}"
        assert not fault, "every fault ends the pull"
    except (UserError, RuntimeError):
        kind, error, trace = sys.exc_info()
        assert error is not None
        shown = traceback.TracebackException(kind, error, trace, capture_locals=True)
        # The environment itself holds the key, and so do variables that show it; ours do not.
        frames = [f for f in shown.stack if "/tests/" not in f.filename]
        said = "".join(shown.format_exception_only()) + "".join(
            f"{name}={value}" for frame in frames for name, value in (frame.locals or {}).items()
        )
        while error is not None:
            assert getattr(error, "request", None) is None
            error = error.__context__
    out, err = capfd.readouterr()
    files = "".join(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file())
    assert caplog.text
    for text in (said, out, err, caplog.text, files, " ".join(notes)):
        assert mp.KEY not in text
