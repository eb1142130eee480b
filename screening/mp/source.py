"""The Materials Project as a source of candidates and of known tensors."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from screening.errors import UserError
from screening.mp.api import utc_now
from screening.mp.documents import RULES, Placed, place_all, read_candidates, read_labels
from screening.mp.pull import Answer, Question, pull
from screening.mp.store import age
from screening.pulling import PullContext, PulledCandidates, PulledKnown
from screening.settings import MaterialsProjectLabels, MaterialsProjectSource

STABLE_EV = 1e-6
"""eV/atom; a window of this width means the hull itself."""


def pull_candidates(source: MaterialsProjectSource, context: PullContext) -> PulledCandidates:
    """Materials that match the source's windows, in order of their id."""
    answer = _answer(source, "candidates", candidate_criteria(source), context)
    rows = answer.copy.rows(answer.manifest.pages)
    items, refused = read_candidates(rows, _name(answer))
    if not items:
        raise UserError(
            f"The Materials Project has no usable material for these windows "
            f"({answer.manifest.documents} offered, {len(refused)} refused); widen them."
        )
    return PulledCandidates(
        items, answer.manifest.documents, refused,
        provenance=_provenance(answer), pin=("candidates", answer.manifest.database_version),
    )  # fmt: skip


def pull_known(source: MaterialsProjectLabels, context: PullContext) -> PulledKnown:
    """Materials with dielectric documents, tensors in the frame of each structure."""
    answer = _answer(source, "labels", label_criteria(source), context)
    placed = _placed(answer, context)
    rows = answer.copy.rows(answer.manifest.pages)
    items, refused, partly = read_labels(rows, placed, _name(answer))
    whole_database = not (source.with_elements or source.without_elements or source.only_elements)
    for n in range(answer.manifest.unmatched if whole_database else 0):
        refused.add("no summary document (deprecated material)", f"(unknown {n + 1})")
    if not items:
        raise UserError(
            f"The Materials Project has no usable dielectric tensor for these elements "
            f"({answer.manifest.documents} offered, {len(refused)} refused); name fewer elements."
        )
    offered = answer.manifest.documents + (answer.manifest.unmatched if whole_database else 0)
    return PulledKnown(
        items, offered, refused, partly,
        provenance=_provenance(answer), pin=("known", answer.manifest.database_version),
    )  # fmt: skip


def _placed(answer: Answer, context: PullContext) -> list[Placed]:
    """What became of each document; worked out once for a copy and kept beside it."""
    name = f"placed-{RULES}.parquet"
    total = answer.manifest.documents
    kept = answer.copy.read_columns(name)
    if kept is not None:
        return [Placed(**row) for row in kept]
    rows = answer.copy.rows(answer.manifest.pages)
    placed = list(
        place_all(rows, lambda n: context.progress("tensors into their frames", n, total))
    )
    columns = {f.name: [getattr(p, f.name) for p in placed] for f in fields(Placed)}
    answer.copy.write_columns(name, columns)
    return placed


def candidate_criteria(source: MaterialsProjectSource) -> dict[str, Any]:
    """Query of the summary route, with the names that mp-api gives its parameters."""
    criteria: dict[str, Any] = {
        "_sort_fields": "material_id",
        "deprecated": False,
        "is_metal": False,
        "energy_above_hull_min": 0.0,
        "energy_above_hull_max": source.max_energy_above_hull,
    }
    if source.max_energy_above_hull < STABLE_EV:
        criteria["is_stable"] = True
    for name, low, high in (
        ("band_gap", source.min_band_gap, source.max_band_gap),
        ("nsites", source.min_sites, source.max_sites),
    ):
        if low is not None:
            criteria[f"{name}_min"] = low
        if high is not None:
            criteria[f"{name}_max"] = high
    return criteria | _elements(source)


def label_criteria(source: MaterialsProjectLabels) -> dict[str, Any]:
    """Query of the summary route for materials with a dielectric document."""
    criteria = {"_sort_fields": "material_id", "deprecated": False, "has_props": "dielectric"}
    return criteria | _elements(source)


def _elements(source: MaterialsProjectSource | MaterialsProjectLabels) -> dict[str, Any]:
    from pymatgen.core import Element

    without = set(source.without_elements)
    if source.only_elements:
        without |= {e.symbol for e in Element if e.symbol not in source.only_elements} - {"D", "T"}
    criteria: dict[str, Any] = {}
    if source.with_elements:
        criteria["elements"] = ",".join(sorted(source.with_elements))
    if without:
        criteria["exclude_elements"] = ",".join(sorted(without))
    if not source.include_gnome:
        criteria["batch_id_not_eq"] = "gnome_r2scan_statics"
    return criteria


def _answer(
    source: MaterialsProjectSource | MaterialsProjectLabels,
    what: str,
    criteria: dict[str, Any],
    context: PullContext,
) -> Answer:
    question = Question(what, source.endpoint.rstrip("/") + "/", criteria, what == "labels")
    pinned = context.pinned.get("known" if what == "labels" else "candidates")
    return pull(question, context, pinned or source.database_version, source.offline)


def _name(answer: Answer) -> str:
    return f"Materials Project {answer.manifest.database_version}"


def _provenance(answer: Answer) -> dict[str, Any]:
    manifest = answer.manifest
    return {
        "source": "Materials Project",
        "endpoint": manifest.endpoint,
        "database_version": manifest.database_version,
        "pulled_at": manifest.pulled_at,
        "age": age(manifest, utc_now()),
        "criteria": manifest.question["criteria"],
        "requests": answer.requests,
        "pages_fetched": answer.pages_fetched,
        "documents_fetched": answer.documents_fetched,
        "copy": str(answer.copy.directory),
    }
