"""Polite, patient HTTP: one session for every server that crystals are fetched from."""

from __future__ import annotations

import email.utils
import functools
import logging
import random
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from screening.errors import UserError

logger = logging.getLogger(__name__)

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that mean "later", not "no"."""
ATTEMPTS = 7
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 120.0
UNTRUSTED = "does not prove who it is (TLS); is this machine's clock right?"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
USER_AGENT = "dielectric-screen (https://materialsproject.org/api user; python-requests)"


class UnreachableError(Exception):
    """The server could not be reached, or did not give a whole answer, in all attempts."""


class _QuietAdapter(HTTPAdapter):
    """Connections that print no headers, and so no key.

    ``http.client.HTTPConnection.debuglevel = 1`` is the usual way to look at traffic, and makes
    every connection print what it sends; a class with a ``debuglevel`` of its own does not.
    """

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _quiet(pool.ConnectionCls)
        return pool


@functools.cache
def _quiet(kind: type) -> type:
    return kind if "debuglevel" in vars(kind) else type(kind.__name__, (kind,), {"debuglevel": 0})


class PoliteSession(requests.Session):
    """A session that waits and asks again where that can help.

    Connections that cannot be made, that break off half-way or time out, and the statuses 408,
    425, 429, 500, 502, 503 and 504 are tried again, after a wait that doubles from ``first_wait``
    with a random part, or as long as the server's ``Retry-After`` says (one minute at most).
    Redirects are not followed: a key must not travel to another host. Headers are never printed,
    whatever Python's own HTTP library is told.

    Parameters
    ----------
    attempts
        How often one request is made in all.
    first_wait
        Seconds before the second attempt.
    """

    def __init__(self, attempts: int = ATTEMPTS, first_wait: float = FIRST_WAIT_S) -> None:
        super().__init__()
        self.attempts = attempts
        self.first_wait = first_wait
        self.headers["User-Agent"] = USER_AGENT
        for scheme in ("http://", "https://"):
            self.mount(scheme, _QuietAdapter())

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """As ``requests.Session.request``, with patience.

        Raises
        ------
        UnreachableError
            No whole answer in all attempts.
        """
        kwargs["timeout"] = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        kwargs["allow_redirects"] = False
        where = place(str(url))
        problem = ""
        for attempt in range(self.attempts):
            response = None
            try:
                response = super().request(method, url, *args, **kwargs)
            except requests.exceptions.SSLError:
                problem = UNTRUSTED
            except (requests.exceptions.RequestException, OSError) as error:
                problem = _reason(error)
            if problem == UNTRUSTED:
                break
            if response is not None:
                if response.status_code in RETRIED:
                    problem = f"status {response.status_code}"
                elif _is_whole(response):
                    return response
                else:
                    problem = "the answer broke off"
            if attempt + 1 < self.attempts:
                wait = self._wait(attempt, response)
                logger.debug("%s: %s; again in %.1f s", where, problem, wait)
                time.sleep(wait)
        # Raised here and not where it was caught: the library's exceptions carry the request with
        # its headers, and so the key; they must not be chained to what may be shown or stored.
        if problem == UNTRUSTED:
            raise UnreachableError(f"{where} {UNTRUSTED}")
        raise UnreachableError(f"{where} gave no answer in {self.attempts} attempts ({problem})")

    def _wait(self, attempt: int, response: requests.Response | None) -> float:
        wanted = retry_after(response) if response is not None else None
        if wanted is None:
            wanted = self.first_wait * 2**attempt * (1 + random.random())  # noqa: S311 - no secret
        return min(wanted, LONGEST_WAIT_S)


def _is_whole(response: requests.Response) -> bool:
    """Whether an answer that should be JSON can be read as JSON.

    A server that gives no length can break off half-way through a page without any other sign.
    """
    if response.status_code != 200 or "json" not in response.headers.get("Content-Type", ""):
        return True
    try:
        response.json()
    except ValueError:
        return False
    return True


def retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait, if it does.

    A date is compared with the server's own clock, so that a wrong clock here does no harm.
    """
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    until = http_date(text)
    if until is None:
        return None
    now = http_date(response.headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def http_date(text: str) -> datetime | None:
    """A date as HTTP headers give it; None where there is none."""
    try:
        found = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def place(url: str) -> str:
    """Scheme and host of a URL: enough for a message, and without its query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}"


def require_safe(url: str, what: str) -> None:
    """Refuse to send anything over an open line, except to this machine itself.

    Raises
    ------
    UserError
        The URL is neither https nor local.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in LOCAL_HOSTS:
        return
    raise UserError(f"The {what} '{place(url)}' is no https:// address; correct it.")


def _reason(error: Exception) -> str:
    """Why a request failed, in words without addresses or headers."""
    text = str(error)
    for sign, words in (
        ("NameResolution", "its name cannot be resolved; is there a network?"),
        ("Connection refused", "connection refused"),
        ("unreachable", "no route; is there a network?"),
        ("timed out", "no answer in time"),
        ("IncompleteRead", "the answer broke off"),
        ("Connection aborted", "the connection broke off"),
        ("reset by peer", "the connection broke off"),
    ):
        if sign in text:
            return words
    return type(error).__name__
