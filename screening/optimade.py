"""Candidates from any database that speaks OPTIMADE.

Queries and paging are left to optimade-python-tools' client (pymatgen's ``OptimadeRester`` goes on
silently without the pages it could not get); the connection is ours, because its own retries on
nothing but status 429, without an end. What came is kept, so that a campaign finds the same
materials again.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from screening.errors import UserError
from screening.http import PoliteSession, place, require_safe
from screening.io import atomic_write, stable_hash
from screening.material import OVERLAPS, Material, has_overlaps
from screening.pulling import PullContext, PulledCandidates, Refusals
from screening.settings import OptimadeSource

PROVIDERS = {
    "alexandria": "https://alexandria.icams.rub.de/pbe",
    "alexandria-pbesol": "https://alexandria.icams.rub.de/pbesol",
    "cod": "https://www.crystallography.net/cod/optimade",
    "jarvis": "https://jarvis.nist.gov/optimade/jarvisdft",
    "mc3d": "https://aiida.materialscloud.org/mc3d/optimade",
    "mp": "https://optimade.materialsproject.org",
    "nmd": "https://nomad-lab.eu/prod/rae/optimade",
    "odbx": "https://optimade.odbx.science",
    "oqmd": "https://oqmd.org/optimade",
}
"""Base URLs, from the list of providers of the OPTIMADE consortium."""

GAPS = {
    "alexandria": "_alexandria_band_gap",
    "alexandria-pbesol": "_alexandria_band_gap",
    "oqmd": "_oqmd_band_gap",
}
"""What providers call the band gap in eV; the others' names have to be given."""

FIELDS = (
    "lattice_vectors", "cartesian_site_positions", "species", "species_at_sites", "nsites",
    "dimension_types",
)  # fmt: skip
LAYOUT = 1


class _Session(PoliteSession):
    """What the client makes its connection of; it gives no arguments."""


def pull_optimade(source: OptimadeSource, context: PullContext) -> PulledCandidates:
    """Crystals that match the filter, in order of their id.

    Raises
    ------
    UserError
        An unknown provider, a filter that is none, no network, an error of the provider, fewer
        entries than the provider says there are, more than ``max_materials``, nothing usable.
    """
    url = PROVIDERS.get(source.provider, source.provider)
    if "://" not in url:
        known = ", ".join(sorted(PROVIDERS))
        raise UserError(
            f"There is no OPTIMADE provider '{source.provider}'; choose one of {known}, or give "
            "its base URL."
        )
    require_safe(url, "OPTIMADE provider")
    gap = source.band_gap_property or GAPS.get(source.provider)
    question = {"layout": LAYOUT, "url": url, "filter": source.filter, "gap": gap}
    path = context.cache / "optimade" / f"{stable_hash(question)[:24]}.json"
    kept = None if source.refresh else _read(path)
    if kept is None:
        entries = _fetch(url, source, gap, context)
        kept = {"pulled_at": datetime.now(UTC).isoformat(timespec="seconds"), "entries": entries}
        atomic_write(path, json.dumps({**question, **kept}))
    else:
        context.note(
            f"Using the local copy of {place(url)}, pulled on {kept['pulled_at'][:10]}; "
            "set refresh to pull again."
        )
    refused = Refusals()
    items: dict[str, Material] = {}
    for number, entry in enumerate(kept["entries"]):
        name = str(entry.get("id") or f"(entry {number + 1})") if isinstance(entry, dict) else ""
        try:
            items.setdefault(name, _material(name, entry["attributes"], gap, source.provider))
        except _RefusedError as reason:
            refused.add(str(reason), name)
        except (KeyError, TypeError, ValueError, AttributeError):
            refused.add("malformed entry", name or f"(entry {number + 1})")
    if not items:
        raise UserError(
            f"{place(url)} has no usable crystal for this filter ({len(kept['entries'])} offered, "
            f"{len(refused)} refused); loosen the filter."
        )
    provenance = {"source": f"OPTIMADE {url}", "filter": source.filter, **kept}
    del provenance["entries"]
    ordered = [items[i] for i in sorted(items)]
    return PulledCandidates(ordered, len(kept["entries"]), refused, provenance=provenance)


class _RefusedError(Exception):
    """A reason from the list that users see."""


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"pulled_at": str(found["pulled_at"]), "entries": list(found["entries"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fetch(
    url: str, source: OptimadeSource, gap: str | None, context: PullContext
) -> list[dict[str, Any]]:
    fields = [*FIELDS, *([gap] if gap else [])]
    done = 0

    def count(_url: str, page: dict[str, Any]) -> None:
        nonlocal done
        done += len(page["data"])
        total = int(page["meta"].get("data_returned") or done)
        if total > source.max_materials:
            raise _TooManyError(total)
        context.progress(f"OPTIMADE {place(url)}", done, max(total, done))

    results = _query(url, source.filter, fields, source.max_materials, count)
    data: list[dict[str, Any]] = list(results["data"])
    if results["errors"]:
        said = " ".join(str(results["errors"][0]).split())
        raise UserError(_failure(url, said, source))
    expected = results["meta"].get("data_returned")
    different = len({str(e.get("id")) for e in data if isinstance(e, dict)})
    if expected is not None and different < int(expected):
        raise UserError(
            f"{place(url)} says it has {expected} entries but gave only {different}; "
            "try again later."
        )
    if len(data) > source.max_materials:
        raise UserError(_too_many(url, len(data), source))
    return data


class _TooManyError(Exception):
    """More entries than the user allows."""


def _query(url: str, text: str, fields: list[str], limit: int, callback: Any) -> dict[str, Any]:
    """What the client collected: data, meta and errors."""
    from optimade.client import OptimadeClient

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its errors
        try:
            client = OptimadeClient(
                base_urls=[url], max_results_per_provider=limit + 1, use_async=False, silent=True,
                http_client=_Session, callbacks=[callback],
            )  # fmt: skip
            found = client.get(filter=text, endpoint="structures", response_fields=fields)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:160]
            raise UserError(
                f"The OPTIMADE filter '{text}' cannot be understood ({said})."
            ) from None
    results: dict[str, Any] = found["structures"][text][url]
    return results


def _failure(url: str, said: str, source: OptimadeSource) -> str:
    if said.startswith("_TooManyError"):
        return _too_many(url, int(said.rsplit(" ", 1)[-1]), source)
    kind, _, text = said.partition(": ")
    if kind == "UnreachableError":
        return f"{text}; nothing was kept, the same command tries again."
    said = text.rsplit(": ", 1)[-1][:200]  # what comes before is the whole query
    return f"{place(url)} does not answer the query (it says: “{said}”); check the filter."


def _too_many(url: str, n: int, source: OptimadeSource) -> str:
    return (
        f"{place(url)} has {n} entries for this filter, more than max_materials "
        f"({source.max_materials}); narrow the filter or raise max_materials."
    )


def _material(name: str, attributes: dict[str, Any], gap: str | None, provider: str) -> Material:
    from pymatgen.core import Lattice, Structure

    if attributes.get("dimension_types") not in (None, [1, 1, 1]):
        raise _RefusedError("not periodic in three dimensions")
    species = {s["name"]: s for s in attributes["species"]}
    symbols = [_symbol(species[at]) for at in attributes["species_at_sites"]]
    lattice = np.array(attributes["lattice_vectors"], dtype=float)
    positions = np.array(attributes["cartesian_site_positions"], dtype=float)
    if lattice.shape != (3, 3) or positions.shape != (len(symbols), 3) or not symbols:
        raise _RefusedError("malformed entry")
    if not (np.isfinite(lattice).all() and np.isfinite(positions).all()):
        raise _RefusedError("malformed entry")
    if abs(np.linalg.det(lattice)) < 1.0:
        raise _RefusedError("malformed entry")
    structure = Structure(Lattice(lattice), symbols, positions, coords_are_cartesian=True)
    if has_overlaps(structure):
        raise _RefusedError(OVERLAPS)
    value = attributes.get(gap) if gap else None
    band_gap = float(value) if isinstance(value, int | float) and 0 <= value < math.inf else None
    return Material(name, structure, band_gap=band_gap, source=f"OPTIMADE {provider}")


def _symbol(species: dict[str, Any]) -> str:
    symbols, shares = list(species["chemical_symbols"]), list(species["concentration"])
    if species.get("attached"):
        raise _RefusedError("hydrogen given only as attached to another atom")
    if len(symbols) != 1 or abs(float(shares[0]) - 1) > 1e-6 or symbols[0] == "vacancy":
        raise _RefusedError("disordered or partially occupied")
    if symbols[0] == "X":
        raise _RefusedError("an atom of no element (X)")
    return str(symbols[0])
