"""The Materials Project's web API, page by page.

Why not ``MPRester.search``: it gives all pages or none, so that a pull cannot go on where it was
cut off; it hides how many documents there are, so that a short page goes unnoticed; one malformed
document fails a whole page; it refuses ids of a form it does not know; and it tries neither 500 and
503 nor broken-off answers again. The requests made here are the ones it makes (a test compares
them), with the names and limits of its routes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from requests import PreparedRequest, Response
from requests.auth import AuthBase

from screening.errors import UserError
from screening.http import PoliteSession, UnreachableError, http_date, place, require_safe
from screening.mp.key import GET_KEY, Key

SUMMARY = "materials/summary/"
DIELECTRIC = "materials/dielectric/"
PAGE = 1000
"""Documents per request, the most that the API gives."""
IDS_PER_REQUEST = 200
"""Ids in one URL: 2 to 3 kB, well below what servers take."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Heartbeat:
    """Version of the database and the server's time."""

    database_version: str
    server_time: datetime | None


@dataclass(frozen=True)
class Page:
    """Documents of one request and how many match in all."""

    documents: list[Any]
    total: int


class _KeyHeader(AuthBase):
    """Adds the key when a request leaves; the session itself never holds it."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        r.headers["x-api-key"] = _Unshown(self._key.secret.get_secret_value())
        return r


class _Unshown(str):
    """Text that a listing of variables, as in a traceback with locals, does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class MaterialsProjectApi:
    """The endpoints that a screening needs.

    Parameters
    ----------
    endpoint
        Base URL; https, or http on this machine.
    session
        What carries the requests.
    """

    def __init__(self, endpoint: str, session: PoliteSession | None = None) -> None:
        require_safe(endpoint, "endpoint of the Materials Project")
        self.endpoint = endpoint.rstrip("/") + "/"
        self._session = session if session is not None else PoliteSession()
        self.requests = 0

    def heartbeat(self) -> Heartbeat:
        """Version of the database; needs no key.

        Raises
        ------
        UnreachableError
            There is no network, or the server is down.
        UserError
            What answers is not the Materials Project.
        """
        self.requests += 1
        response = self._session.get(self.endpoint + "heartbeat", headers=_JSON)
        body = _json(response)
        if response.is_redirect:
            raise _moved(response)
        version = body.get("db_version") if isinstance(body, dict) else None
        found = isinstance(version, str) and re.fullmatch(r"[\w.-]{1,64}", version)
        if response.status_code != 200 or not found or version is None:
            raise UserError(
                f"What answers at {place(self.endpoint)} is not the Materials Project's API "
                f"(status {response.status_code}, no database version); is the endpoint right, or "
                "does a proxy want you to log in?"
            )
        return Heartbeat(version, http_date(response.headers.get("Date", "")))

    def page(
        self,
        route: str,
        key: Key,
        criteria: Mapping[str, Any],
        fields: Sequence[str],
        skip: int = 0,
        limit: int = PAGE,
    ) -> Page:
        """One page of the documents that match ``criteria``, in the order of the server.

        Raises
        ------
        UnreachableError
            No whole answer in all attempts.
        UserError
            The key is not accepted, or the request is not understood.
        """
        if not criteria:
            raise ValueError("an unfiltered query is not answered by the API")
        parameters = {**criteria, "_limit": limit, "_fields": ",".join(fields)}
        if skip:
            parameters["_skip"] = skip
        self.requests += 1
        response = self._session.get(
            self.endpoint + route, params=parameters, headers=_JSON, auth=_KeyHeader(key)
        )
        if response.status_code != 200:
            raise _refused(response, key)
        body = _json(response)
        try:
            return Page(list(body["data"]), int(body["meta"]["total_doc"]))
        except (KeyError, TypeError, ValueError):
            raise UnreachableError(
                f"{place(self.endpoint)} gave an answer of an unknown form"
            ) from None

    def by_ids(
        self, route: str, key: Key, ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, Document]:
        """Documents of some ids, by id; those that do not exist are absent."""
        found: dict[str, Document] = {}
        for start in range(0, len(ids), IDS_PER_REQUEST):
            left = list(ids[start : start + IDS_PER_REQUEST])
            # A short page is asked for again until all came or the server says there are no more.
            while left:
                page = self.page(route, key, {"material_ids": ",".join(left)}, fields)
                new = {
                    str(document["material_id"]): document
                    for document in page.documents
                    if isinstance(document, dict) and document.get("material_id") in left
                }
                found |= new
                if not new or len(page.documents) >= page.total:
                    break
                left = [i for i in left if i not in new]
        return found


_JSON = {"Accept": "application/json"}


def _json(response: Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _refused(response: Response, key: Key) -> UserError:
    """The sentence for an answer that will not change by asking again."""
    said = key.redact(_message(response))
    quoted = f" (it says: “{said}”)" if said else ""
    where = place(response.url)
    match response.status_code:
        case 401 | 403 if "expired" in said.lower():
            return UserError(f"The key from {key.origin} has expired{quoted}; {GET_KEY}.")
        case 401 | 403:
            return UserError(
                f"{where} does not accept the key from {key.origin}{quoted}; check it, or "
                f"{GET_KEY}."
            )
        case 300 | 301 | 302 | 303 | 307 | 308:
            return _moved(response)
        case status:
            return UserError(
                f"{where} does not answer this request (status {status}){quoted}; is the software "
                "out of date?"
            )


def _moved(response: Response) -> UserError:
    return UserError(
        f"{place(response.url)} sends the request on to another address, which is not followed so "
        "that the key stays where it belongs; correct the endpoint."
    )


def _message(response: Response) -> str:
    body = _json(response)
    if isinstance(body, dict):
        found = body.get("message") or body.get("detail") or body.get("error") or ""
        text = found if isinstance(found, str) else str(found)
    else:
        text = "" if "<" in response.text[:200] else response.text
    return " ".join(text.split())[:160]


def utc_now() -> datetime:
    """The time on this machine's clock."""
    return datetime.now(UTC)
