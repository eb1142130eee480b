"""A pull is whole, goes on where it stopped, and fetches nothing that has not changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import screening.mp.pull
import screening.mp.store
from screening.errors import UserError
from screening.http import PoliteSession
from screening.mp.pull import Answer, Question, pull
from screening.pulling import PullContext
from screening.settings import MaterialsProjectLabels, MaterialsProjectSource
from screening.sources import pull_candidates, pull_known

FAULTS = ("drop", "429", "500", "502", "503", "half", "half-silent", "short", "empty", "twice")


def ids(answer: Answer) -> list[str]:
    return [row.material_id for row in answer.copy.rows(answer.manifest.pages)]


def test_candidates_are_what_the_server_has(
    server: Any, context: PullContext, crystals: dict[str, Any]
) -> None:
    pulled = pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    assert [m.material_id for m in pulled.items] == sorted(crystals)
    for material in pulled.items:
        structure = crystals[material.material_id][0]
        assert material.structure.matches(structure)
        assert material.structure.lattice.matrix == pytest.approx(structure.lattice.matrix)
        assert material.n_sites == len(structure)
        assert material.energy_above_hull == 0
    assert pulled.offered == len(crystals)
    assert pulled.provenance["database_version"] == server.version


def test_requests_are_those_of_the_official_client(
    server: Any, context: PullContext, mp: Any
) -> None:
    from mp_api.client import MPRester

    source = MaterialsProjectSource(
        endpoint=server.url, min_band_gap=2, max_band_gap=9, max_sites=12,
        with_elements=("O",), without_elements=("Pb", "Zr"), include_gnome=False,
    )  # fmt: skip
    ours = pull_candidates(source, context)
    our_query = dict(server.pages[0].query)
    first = len(server.requests)
    with MPRester(mp.KEY, endpoint=server.url, mute_progress_bars=True) as rester:
        theirs = rester.materials.summary.search(
            is_stable=True, is_metal=False, deprecated=False, energy_above_hull=(0, 0),
            band_gap=(2, 9), num_sites=(1, 12), elements=["O"], exclude_elements=["Pb", "Zr"],
            include_gnome=False, fields=["material_id", "structure", "band_gap"], chunk_size=4,
            _sort_fields="material_id",
        )  # fmt: skip
    their_query = next(r.query for r in server.requests[first:] if r.route == "materials/summary")
    for query in (our_query, their_query):
        query.pop("_fields")
        query.pop("nsites_min", None)
    numbers = {n for n in our_query if n.endswith(("_min", "_max"))}
    assert {n: float(our_query[n]) for n in numbers} == {
        n: float(their_query[n]) for n in their_query if n.endswith(("_min", "_max"))
    }
    assert {n: v for n, v in our_query.items() if n not in numbers} == {
        n: v for n, v in their_query.items() if n not in numbers
    }
    assert [m.material_id for m in ours.items] == sorted(str(d.material_id) for d in theirs)
    assert ours.items


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_loses_or_doubles_anything(
    fault: str, server: Any, context: PullContext, question: Callable[[str], Question],
    crystals: dict[str, Any],
) -> None:  # fmt: skip
    server.fault = lambda n, _request: fault if n % 3 == 2 else ""
    answer = pull(question("candidates"), context, session=PoliteSession(first_wait=0.0))
    pulled = pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    assert set(ids(answer)) == set(crystals)
    assert [m.material_id for m in pulled.items] == sorted(crystals)
    assert not len(pulled.refused)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_document_without_an_id_counts_once_and_hides_no_other(
    fault: str, server: Any, context: PullContext, question: Callable[[str], Question],
    documents: tuple[list[Any], list[Any]],
) -> None:  # fmt: skip
    documents[0][3].pop("material_id")
    rest = sorted(d["material_id"] for d in documents[0] if "material_id" in d)
    server.fault = lambda n, _request: fault if n % 3 == 2 else ""
    pull(question("candidates"), context, session=PoliteSession(first_wait=0.0))
    pulled = pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    assert [m.material_id for m in pulled.items] == rest
    assert pulled.refused.counts() == {"malformed document: no id": 1}
    assert pulled.offered == len(rest) + 1


@settings(max_examples=20)
@given(plan=st.lists(st.sampled_from(("", *FAULTS)), max_size=20))
def test_no_series_of_faults_does(
    plan: list[str], mp: Any, built: tuple[list[Any], list[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    from screening.mp.source import candidate_criteria

    cache = tmp_path_factory.mktemp("cache")
    page, screening.mp.pull.PAGE = screening.mp.pull.PAGE, 5
    os.environ["MP_API_KEY"] = mp.KEY
    try:
        with mp.MpServer(*built) as server:
            server.fault = lambda n, _request: plan[n - 1] if n <= len(plan) else ""
            criteria = candidate_criteria(MaterialsProjectSource(endpoint=server.url))
            answer = pull(
                Question("candidates", server.url, criteria, False), PullContext(cache=cache),
                session=PoliteSession(attempts=25, first_wait=0.0),
            )  # fmt: skip
        found = ids(answer)
    finally:
        screening.mp.pull.PAGE = page
        os.environ.pop("MP_API_KEY")
        shutil.rmtree(cache)
    assert set(found) == {d["material_id"] for d in built[0]}


def test_a_cut_off_pull_goes_on_where_it_stopped(
    server: Any, context: PullContext, question: Callable[[str], Question], impatient: Any,
    crystals: dict[str, Any],
) -> None:  # fmt: skip
    server.fault = lambda n, _request: "drop" if n > 3 else ""
    with pytest.raises(UserError, match="kept, the same command goes on"):
        pull(question("candidates"), context, session=impatient)
    before = {r.query.get("_skip", "0") for r in server.pages[:2]}
    server.fault = lambda _n, _request: ""
    first = len(server.pages)
    answer = pull(question("candidates"), context, session=impatient)
    after = {r.query.get("_skip", "0") for r in server.pages[first:]}
    assert before == {"0", "4"} and not before & after
    assert sorted(ids(answer)) == sorted(crystals)


@pytest.mark.parametrize("what", ["candidates", "labels"])
def test_the_second_pull_asks_for_the_version_alone(
    what: str, server: Any, context: PullContext, question: Callable[[str], Question]
) -> None:
    pull(question(what), context)
    first = len(server.requests)
    again = pull(question(what), context)
    assert [r.route for r in server.requests[first:]] == ["heartbeat"]
    assert again.pages_fetched == again.documents_fetched == 0


def test_a_new_version_costs_what_has_changed(
    server: Any, context: PullContext, question: Callable[[str], Question],
    documents: tuple[list[Any], list[Any]],
) -> None:  # fmt: skip
    old = pull(question("labels"), context)
    summary, dielectric = documents
    summary[2]["last_updated"] = "2026-10-15T00:00:00Z"
    summary[2]["structure"]["charge"] = 1
    for axis in range(3):
        dielectric[2]["total"][axis][axis] += 0.5
    summary[5]["band_gap"] = 7.75
    gone = summary.pop(8)["material_id"]
    server.version = "2026.11.01"
    first = len(server.requests)
    new = pull(question("labels"), context)
    asked = [r.query for r in server.requests[first:] if r.route == "materials/summary"]
    assert all("structure" not in q["_fields"] for q in asked if "material_ids" not in q)
    assert [q["material_ids"] for q in asked if "material_ids" in q] == [summary[2]["material_id"]]
    assert new.documents_fetched == 1
    assert gone not in ids(new) and gone in ids(old)
    rows = {r.material_id: r for r in new.copy.rows(new.manifest.pages)}
    assert json.loads(rows[summary[5]["material_id"]].summary)["band_gap"] == 7.75
    changed = rows[summary[2]["material_id"]]
    assert json.loads(changed.structure)["charge"] == 1
    assert json.loads(changed.dielectric)["total"] == dielectric[2]["total"]
    before = {r.material_id: r for r in old.copy.rows(old.manifest.pages)}
    same = rows.keys() - {changed.material_id}
    assert same and all(rows[i].structure == before[i].structure for i in same)
    assert all(rows[i].dielectric == before[i].dielectric for i in same)


def test_versions_stand_side_by_side(
    server: Any, context: PullContext, notes: list[str], documents: tuple[list[Any], list[Any]]
) -> None:
    old = pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    documents[0][0]["band_gap"], server.version = 8.25, "2026.11.01"
    new = pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    first = len(server.requests)
    again = pull_candidates(
        MaterialsProjectSource(endpoint=server.url, database_version="2026.10.01"), context
    )
    pinned = PullContext(cache=context.cache, pinned={"candidates": "2026.10.01"})
    by_pin = pull_candidates(MaterialsProjectSource(endpoint=server.url), pinned)
    assert len(server.requests) == first
    assert [m.band_gap for m in again.items] == [m.band_gap for m in old.items]
    assert [m.band_gap for m in by_pin.items] == [m.band_gap for m in old.items]
    assert [m.band_gap for m in new.items] != [m.band_gap for m in old.items]
    with pytest.raises(UserError, match=r"serves database version 2026.11.01, not 2020.1"):
        pull_candidates(
            MaterialsProjectSource(endpoint=server.url, database_version="2020.1"), context
        )


def test_a_version_that_changes_during_the_pull_is_taken_up(
    server: Any, context: PullContext, notes: list[str], question: Callable[[str], Question],
    documents: tuple[list[Any], list[Any]],
) -> None:  # fmt: skip
    def change(n: int, _request: Any) -> str:
        if n == 3:
            server.version = "2026.12.01"
            for document in documents[0]:
                document["band_gap"] = 4.5
        return ""

    server.fault = change
    answer = pull(question("candidates"), context)
    rows = list(answer.copy.rows(answer.manifest.pages))
    assert answer.manifest.database_version == "2026.12.01"
    assert {json.loads(row.summary)["band_gap"] for row in rows} == {4.5}
    assert any("2026.12.01 during the pull" in note for note in notes)


def test_without_network_the_copy_is_used_and_its_age_told(
    server: Any, context: PullContext, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datetime

    source = MaterialsProjectSource(endpoint=server.url)
    with_network = pull_candidates(source, context)
    server.fault = lambda _n, _request: "drop"
    monkeypatch.setattr(screening.mp.pull, "HEARTBEAT_ATTEMPTS", 1)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3, hours=2)
    monkeypatch.setattr(screening.mp.pull, "utc_now", lambda: later)
    without = pull_candidates(source, context)
    assert [m.material_id for m in without.items] == [m.material_id for m in with_network.items]
    assert "version 2026.10.01" in notes[-1] and "3 days ago" in notes[-1]
    asked = len(server.requests)
    offline = pull_candidates(source.model_copy(update={"offline": True}), context)
    assert len(server.requests) == asked
    assert len(offline.items) == len(with_network.items)


def test_without_network_and_copy_there_is_one_sentence(
    context: PullContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screening.mp.pull, "HEARTBEAT_ATTEMPTS", 1)
    with pytest.raises(UserError, match=r"no local copy .*connection refused"):
        pull_candidates(MaterialsProjectSource(endpoint="http://127.0.0.1:9/"), context)


def test_only_safe_endpoints_get_the_key(context: PullContext) -> None:
    source = MaterialsProjectSource(endpoint="http://api.materialsproject.example/")
    with pytest.raises(UserError, match="no https:// address"):
        pull_candidates(source, context)


def test_an_older_layout_is_pulled_again(
    server: Any, context: PullContext, notes: list[str], monkeypatch: pytest.MonkeyPatch,
    crystals: dict[str, Any],
) -> None:  # fmt: skip
    source = MaterialsProjectSource(endpoint=server.url)
    pull_candidates(source, context)
    for module in (screening.mp.store, screening.mp.pull):
        monkeypatch.setattr(module, "LAYOUT", 2)
    with pytest.raises(UserError, match="there is one of an older layout"):
        pull_candidates(source.model_copy(update={"offline": True}), context)
    again = pull_candidates(source, context)
    assert len(again.items) == len(crystals)
    assert any("older layout" in note for note in notes)


def test_a_newer_layout_is_left_alone(server: Any, context: PullContext) -> None:
    source = MaterialsProjectSource(endpoint=server.url)
    pull_candidates(source, context)
    (manifest,) = context.cache.rglob("manifest.json")
    manifest.write_text(manifest.read_text().replace('"layout": 1', '"layout": 9'))
    with pytest.raises(UserError, match="newer version of this software"):
        pull_candidates(source, context)


def test_damaged_pages_are_fetched_again(server: Any, context: PullContext) -> None:
    source = MaterialsProjectSource(endpoint=server.url)
    whole = pull_candidates(source, context)
    page = sorted(context.cache.rglob("page-*.parquet"))[1]
    page.write_bytes(page.read_bytes()[:50])
    again = pull_candidates(source, context)
    assert [m.material_id for m in again.items] == [m.material_id for m in whole.items]
    assert again.provenance["pages_fetched"] == 1


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    server: Any, context: PullContext, monkeypatch: pytest.MonkeyPatch, crystals: dict[str, Any]
) -> None:
    import errno

    import pyarrow.parquet as pq

    write, written = pq.write_table, []

    def full(table: Any, path: Path, **options: Any) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(table, path, **options)

    source = MaterialsProjectSource(endpoint=server.url)
    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(UserError, match="The disk is full"):
        pull_candidates(source, context)
    monkeypatch.setattr(pq, "write_table", write)
    again = pull_candidates(source, context)
    assert len(again.items) == len(crystals)
    assert again.provenance["pages_fetched"] == -(-len(crystals) // 4) - 2


def test_a_wrong_clock_is_told_and_does_no_harm(
    server: Any, context: PullContext, notes: list[str]
) -> None:
    server.clock_offset_s = 3 * 86_400
    pulled = pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
    assert any("clock is 43" in note for note in notes)
    assert "in the future" in pulled.provenance["age"]


def test_what_the_server_cannot_give_is_an_error(
    server: Any, context: PullContext, question: Callable[[str], Question]
) -> None:
    answer = server.answer
    server.answer = lambda request: (
        (200, {**answer(request)[1], "meta": {"total_doc": 30}})
        if request.route == "materials/summary"
        else answer(request)
    )
    with pytest.raises(UserError, match="says it has 30 documents but gave only 10"):
        pull(question("candidates"), context)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("html", "is not the Materials Project's API"),
        ("redirect", "to another address, which is not followed"),
    ],
)
def test_something_else_that_answers(
    fault: str, message: str, server: Any, context: PullContext
) -> None:
    server.fault = lambda _n, _request: fault
    with pytest.raises(UserError, match=message):
        pull_candidates(MaterialsProjectSource(endpoint=server.url), context)


def test_labels_without_a_summary_are_counted(
    server: Any, context: PullContext, documents: tuple[list[Any], list[Any]]
) -> None:
    documents[0][3]["deprecated"] = True
    documents[1].pop(5)
    pulled = pull_known(MaterialsProjectLabels(endpoint=server.url), context)
    counts = pulled.refused.counts()
    assert counts["no dielectric document"] == 1
    assert counts["no summary document (deprecated material)"] == 1
    assert pulled.offered == len(pulled.items) + len(pulled.refused)
