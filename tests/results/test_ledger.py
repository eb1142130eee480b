"""What goes into the ledger comes out of it, once, and on every database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sqlalchemy import select

from results import encoding
from results.ledger import Ledger
from results.schema import Base, RoundStatus
from results.transfer import dump_campaign, load_campaign
from screening.errors import UserError

# The keys that JSON text uses for itself are among the likely ones.
keys = st.text() | st.sampled_from(["$float", "$$float", "$$$float"])
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
    max_leaves=20,
)
on_one_database = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def same(a: Any, b: Any) -> bool:
    """Equal with NaN equal to itself, and 0.0 not equal to -0.0."""
    return repr(a) == repr(b)


def content(ledger: Ledger) -> dict[str, list[Any]]:
    """Everything in the ledger but the times; generated ids are counted through from 0."""
    tables: dict[str, list[Any]] = {}
    ids: dict[tuple[str, Any], int] = {}
    with ledger._database.reading() as connection:
        for table in Base.metadata.sorted_tables:
            name = table.name
            columns = [c for c in table.columns if c.name != "at" and not c.name.endswith("_at")]
            rows = connection.execute(select(*columns).order_by(*table.primary_key.columns))
            tables[name] = []
            for row in rows.mappings():
                values = dict(row)
                for column in values.keys() & {"id", "campaign_id", "round_id"}:
                    kind = name if column == "id" else column.removesuffix("_id")
                    values[column] = ids.setdefault((kind, values[column]), len(ids))
                tables[name].append(repr(values))
    return tables


def trained(ledger: Ledger, samples: Any, name: str = "alpha", n: int = 5) -> int:
    """A round that waits for its selection."""
    ledger.create_campaign(name, {"name": name}, "high-k", 1, {})
    current = ledger.start_round(name, 1).id
    ledger.record_training(current, "t", 4, "model", "m", {})
    ledger.record_predictions(current, samples.predictions(n))
    return current


def test_every_write_twice_is_once(url: str, samples: Any, tmp_path: Any) -> None:
    twice = content(samples.run(url, times=2))
    assert twice == content(samples.run(str(tmp_path / "once.sqlite")))
    assert {name: len(rows) for name, rows in twice.items()} == {
        "campaign": 1,
        "known": 4,
        "round": 2,
        "prediction": 40,
        "material": 6,
        "calculation": 6,
        "verdict": 6,
        "selection": 6,
        "event": 2,
    }


def test_second_write_says_so_and_changes_nothing(ledger: Ledger, samples: Any) -> None:
    current = trained(ledger, samples)
    material = samples.material(1)
    selection, planned = samples.plan(material)
    writes = [
        lambda x: ledger.select(current, [selection][:x], [planned], [material]),
        lambda x: ledger.record_result(
            planned.key, {"x": x}, "accepted", str(x), x * np.eye(3), x * np.eye(3), "PBE"
        ),
        lambda x: ledger.record_seconds(current, "train", x, x),
        lambda _: ledger.finish_round(current),
        lambda x: ledger.event("alpha", "end", {"x": x}, once="end"),
    ]
    for write in writes:
        assert write(1) is True
        before = content(ledger)
        assert write(2) is False
        assert content(ledger) == before
    assert ledger.record_training(current, "other", 5, "x", "y", {}) is False
    assert ledger.record_predictions(current, samples.predictions(7)) is False
    assert ledger.claim([planned.key], "host 18") == {planned.key: None}
    assert ledger.release(planned.key) is False
    assert content(ledger) == before
    record = ledger.calculation(planned.key)
    assert record is not None and record.accepted and record.output == {"x": 1}


def test_campaign_is_found_again_and_guarded(ledger: Ledger, samples: Any) -> None:
    config = {"task": "high-k", "model": {"epochs": 60, "width": [128, 64]}, "rounds": 3}
    known = samples.known(3)
    made = ledger.create_campaign("alpha", config, "high-k", 2**40, {"screen": "0.1"}, known)
    assert ledger.create_campaign("alpha", config, "high-k", 2**40, {"screen": "0.2"}, []) == made
    assert ledger.campaign("alpha") == made
    assert ledger.campaigns() == [made]
    assert (made.config, made.seed, made.status) == (config, 2**40, "running")
    assert made.versions == {"screen": "0.1"}
    assert ledger.campaign("beta") is None

    other = {"task": "high-k", "model": {"epochs": 61, "width": [128, 64]}, "batch": 20}
    with pytest.raises(UserError) as caught:
        ledger.create_campaign("alpha", other, "high-k", 2**40, {})
    message = str(caught.value)
    assert "model.epochs was 60 and is now 61" in message
    assert "batch was not set and is now 20" in message
    assert "rounds was 3 and is now not set" in message
    assert "width" not in message and "task" not in message
    assert "another name" in message and "screen resume alpha" in message
    with pytest.raises(UserError, match="seed was 1099511627776 and is now 8"):
        ledger.create_campaign("alpha", config, "high-k", 8, {})

    table = ledger.known("alpha")
    assert table["material_id"].tolist() == [k.material.material_id for k in known]
    for row, entry in zip(table.itertuples(), known, strict=True):
        assert row.structure_hash == entry.material.structure_hash
        assert np.array_equal(row.electronic, entry.tensors.electronic)
        assert (row.ionic is None) == (entry.tensors.ionic is None)


def test_campaign_ends_once(ledger: Ledger) -> None:
    ledger.create_campaign("alpha", {}, "high-k", 1, {})
    ledger.finish_campaign("alpha", "stopped")
    stopped = ledger.campaign("alpha")
    assert stopped is not None and stopped.status == "stopped" and stopped.finished_at is not None
    ledger.finish_campaign("alpha", "stopped")
    assert ledger.campaign("alpha") == stopped


def test_times_are_utc(ledger: Ledger) -> None:
    made = ledger.create_campaign("alpha", {}, "high-k", 1, {}).created_at
    ledger.event("alpha", "hello", {})
    at = ledger.events("alpha")["at"][0]
    for moment in (made, at):
        assert moment.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


def test_unknown_campaign_is_named_with_those_there_are(ledger: Ledger) -> None:
    with pytest.raises(UserError, match=r"no campaign 'alhpa'.*has none"):
        ledger.start_round("alhpa", 1)
    ledger.create_campaign("alpha", {}, "high-k", 1, {})
    for question in (
        ledger.known,
        ledger.rounds,
        ledger.calculations,
        ledger.pending,
        ledger.refused,
        ledger.events,
        lambda name: ledger.accepted(name, 1),
        lambda name: ledger.finish_campaign(name, "finished"),
        lambda name: ledger.event(name, "x", {}),
    ):
        with pytest.raises(UserError, match=r"no campaign 'alhpa'.*it has: alpha"):
            question("alhpa")


def test_round_takes_its_steps_in_order(ledger: Ledger, samples: Any) -> None:
    ledger.create_campaign("alpha", {}, "high-k", 1, {})
    made = ledger.start_round("alpha", 1)
    assert ledger.start_round("alpha", 1) == made
    assert (made.campaign, made.number, made.status) == ("alpha", 1, RoundStatus.STARTED)
    with pytest.raises(ValueError, match="only started"):
        ledger.record_predictions(made.id, samples.predictions(3))
    assert ledger.predictions(made.id).empty
    metrics = {"mae": np.float64(0.25), "n": np.int64(3), "fold": np.array([1.0, np.nan])}
    ledger.record_training(made.id, "t", np.int64(9), "model", "m", metrics)
    ledger.record_seconds(made.id, "train", 3, 2.5)
    now = ledger.round(made.id)
    assert now.status == RoundStatus.TRAINED
    assert (now.training_hash, now.n_training, now.model_hash) == ("t", 9, "m")
    assert same(now.metrics, {"mae": 0.25, "n": 3, "fold": [1.0, float("nan")]})
    assert now.seconds == {"train": {"wall_s": 3.0, "cpu_s": 2.5}}
    ledger.record_predictions(made.id, samples.predictions(3))
    with pytest.raises(ValueError, match="only predicted"):
        ledger.finish_round(made.id)
    material = samples.material(1)
    selection, planned = samples.plan(material)
    ledger.select(made.id, [selection], [planned], [material])
    with pytest.raises(ValueError, match="1 calculations of round"):
        ledger.finish_round(made.id)
    ledger.record_result(planned.key, {}, "timeout", "", None, None, None)
    assert ledger.finish_round(made.id)
    second = ledger.start_round("alpha", 2)
    assert [r.id for r in ledger.rounds("alpha")] == [made.id, second.id]
    assert [r.status for r in ledger.rounds("alpha")] == ["finished", "started"]


def test_predictions_come_back_as_they_were(ledger: Ledger, samples: Any) -> None:
    frame = samples.predictions(60)
    frame.loc[3, ["merit_mean", "acquisition"]] = np.nan
    frame.at[5, "ionic"] = None
    ledger.create_campaign("alpha", {}, "high-k", 1, {})
    current = ledger.start_round("alpha", 1).id
    ledger.record_training(current, "t", 4, "model", "m", {})
    with pytest.raises(ValueError, match="lack the columns acquisition, rank"):
        ledger.record_predictions(current, frame.drop(columns=["rank", "acquisition"]))
    ledger.record_predictions(current, frame.assign(note="not recorded"))
    back = ledger.predictions(current)
    tensors = ["electronic", "ionic"]
    pd.testing.assert_frame_equal(back.drop(columns=tensors), frame.drop(columns=tensors))
    for part in tensors:
        was = [None if t is None else t.tolist() for t in frame[part]]
        assert back[part].tolist() == was


def test_calculation_is_shared_between_campaigns(ledger: Ledger, samples: Any) -> None:
    first, second = trained(ledger, samples, "alpha"), trained(ledger, samples, "beta")
    material, namesake = samples.material(3), samples.material(3)
    namesake.material_id, namesake.band_gap = "my-crystal", 9.75
    selection, planned = samples.plan(material)
    ledger.select(first, [selection], [planned], [material])
    _, replanned = samples.plan(namesake)
    elsewhere = type(replanned)(**{**replanned.__dict__, "directory": "somewhere/else"})
    ledger.select(second, [selection], [elsewhere], [namesake])

    (waiting,) = ledger.pending("beta")
    assert (waiting.key, waiting.campaign) == (planned.key, "alpha")
    assert waiting.directory == planned.directory
    assert waiting.material.to_dict() == material.to_dict()
    assert waiting.material.structure_hash == material.structure_hash
    ledger.record_result(planned.key, {}, "accepted", "", np.eye(3), 2 * np.eye(3), "PBE")
    assert ledger.pending("alpha") == ledger.pending("beta") == []

    tables = {name: ledger.calculations(name) for name in ("alpha", "beta")}
    assert [tables[n]["shared"].tolist() for n in ("alpha", "beta")] == [[False], [True]]
    assert tables["alpha"]["material_id"].tolist() == ["mp-3"]
    assert tables["beta"]["material_id"].tolist() == ["my-crystal"]
    (known,) = ledger.accepted("beta", 2)
    assert (known.material.material_id, known.material.band_gap) == ("my-crystal", 9.75)


def test_selection_must_fit_together(ledger: Ledger, samples: Any) -> None:
    current = trained(ledger, samples)
    material = samples.material(1)
    selection, planned = samples.plan(material)
    for picks, plans, materials in (
        ([selection], [], [material]),
        ([selection], [planned], []),
        ([selection, selection], [planned], [material]),
    ):
        with pytest.raises(ValueError):
            ledger.select(current, picks, plans, materials)
        assert ledger.round(current).status == RoundStatus.PREDICTED
    assert ledger.select(current, [], [], [])
    assert ledger.selections(current).empty
    assert ledger.finish_round(current)


def test_refused_is_seen_everywhere_but_never_learned_from(url: str, samples: Any) -> None:
    ledger = samples.run(url, n_picks=4)
    table = ledger.calculations("alpha")
    assert table[["round", "rank"]].to_numpy().tolist() == [
        [n, k] for n in (1, 2) for k in (1, 2, 3, 4)
    ]
    assert table["verdict"].tolist() == (["accepted", "imaginary mode"] + ["accepted"] * 2) * 2
    refused = ledger.refused("alpha")
    assert refused["material_id"].tolist() == ["mp-1", "mp-5"]
    assert refused["detail"].tolist() == ["said so"] * 2
    assert refused["electronic"].isna().all()
    assert refused["cpu_s"].tolist() == [1.5, 1.5]

    assert ledger.accepted("alpha", 1) == []
    for before, numbers in ((2, [0, 2, 3]), (3, [0, 2, 3, 4, 6, 7])):
        known = ledger.accepted("alpha", before)
        expected = {samples.material(n).structure_hash: n for n in numbers}
        assert [k.material.structure_hash for k in known] == sorted(expected)
        for k in known:
            number = expected[k.material.structure_hash]
            assert k.material.to_dict() == samples.material(number).to_dict()
            assert np.array_equal(k.tensors.electronic, samples.tensor(number % 4))
            assert np.array_equal(k.tensors.ionic, samples.tensor(number % 4 + 50))
            assert (k.functional, k.extras) == ("PBE", {"min_optical_thz": 3.25})


def test_open_calculations_are_pending_in_order(ledger: Ledger, samples: Any) -> None:
    current = trained(ledger, samples)
    materials = [samples.material(n) for n in range(4)]
    plans = [samples.plan(m, rank) for m, rank in zip(materials, (3, 1, 4, 2), strict=True)]
    ledger.select(current, [s for s, _ in plans], [p for _, p in plans], materials)
    keys = [plans[i][1].key for i in (1, 3, 0, 2)]
    assert [c.key for c in ledger.pending("alpha")] == keys
    assert ledger.claim(keys[:1], "host 1") == {keys[0]: "host 1"}
    with pytest.raises(LookupError):
        ledger.claim([*keys, "nonsense"], "host 2")
    assert [c.status for c in ledger.pending("alpha")] == ["submitted", *["planned"] * 3]
    owners = ledger.claim(keys[:2], "host 2")
    assert owners == {keys[0]: "host 1", keys[1]: "host 2"}, "what one place has, others leave"
    assert ledger.release(keys[1])
    assert ledger.release(keys[0]) and not ledger.release(keys[0])
    assert ledger.pending("alpha")[0].status == "planned"
    for _ in range(2):
        assert ledger.claim(keys[:1], "host 2") == {keys[0]: "host 2"}
    record = ledger.pending("alpha")[0]
    assert (record.status, record.handle, record.verdict) == ("submitted", "host 2", None)
    table = ledger.selections(current)
    assert table["status"].tolist() == ["submitted", "planned", "planned", "planned"]
    assert table["verdict"].isna().all() and table["cpu_s"].isna().all()
    pd.testing.assert_frame_equal(table, ledger.calculations("alpha"))


def test_result_needs_a_calculation_and_whole_tensors(ledger: Ledger, samples: Any) -> None:
    current = trained(ledger, samples)
    material = samples.material(1)
    selection, planned = samples.plan(material)
    ledger.select(current, [selection], [planned], [material])
    with pytest.raises(LookupError):
        ledger.record_result("nonsense", {}, "timeout", "", None, None, None)
    with pytest.raises(LookupError):
        ledger.claim(["nonsense"], "host 1")
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        ledger.record_result(planned.key, {}, "accepted", "", np.eye(2), None, "PBE")
    with pytest.raises(ValueError, match="without a tensor"):
        ledger.record_result(planned.key, {}, "accepted", "", None, None, "PBE")
    with pytest.raises(LookupError):
        ledger.record_training(12345, "t", 1, "d", "m", {})
    record = ledger.calculation(planned.key)
    assert record is not None and record.status == "planned"
    assert ledger.calculation("nonsense") is None
    assert list(ledger.records(["nonsense", planned.key, planned.key])) == [planned.key]
    assert ledger.records([]) == {}


def test_what_a_crashed_engine_prints_is_kept(ledger: Ledger, samples: Any) -> None:
    current = trained(ledger, samples)
    material = samples.material(1)
    selection, planned = samples.plan(material)
    ledger.select(current, [selection], [planned], [material])
    output = {"error": "NUL \0, surrogate \udcff, ε", "cpu_s": float("nan")}
    ledger.record_result(planned.key, output, "engine error", output["error"], None, None, None)
    record = ledger.calculation(planned.key)
    assert record is not None and same(record.output, output) and record.cpu_s is None
    assert record.detail == "NUL \ufffd, surrogate \ufffd, ε"


def test_events_add_up_unless_once(ledger: Ledger) -> None:
    ledger.create_campaign("alpha", {}, "high-k", 1, {})
    ledger.create_campaign("beta", {}, "high-k", 1, {})
    for name in ("alpha", "beta", None):
        assert ledger.event(name, "resumed", {"by": name})
        assert ledger.event(name, "resumed", {"by": name})
        assert ledger.event(name, "created", {}, once="created")
        assert not ledger.event(name, "created", {}, once="created")
    for name in ("alpha", "beta", None):
        table = ledger.events(name)
        assert table["kind"].tolist() == ["resumed", "resumed", "created"]
        assert table["detail"].tolist() == [{"by": name}, {"by": name}, {}]


@given(any_json)
def test_json_text_is_standard_and_exact(value: Any) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = encoding.dumps(value)
    json.loads(text, parse_constant=refuse)
    assert same(encoding.loads(text), value)
    assert same(encoding.loads(text.encode()), value)


@on_one_database
@given(detail=st.dictionaries(st.text(), any_json))
def test_json_survives_the_database(ledger: Ledger, detail: dict[str, Any]) -> None:
    ledger.event(None, "any", detail)
    assert same(ledger.events(None)["detail"].iloc[-1], detail)


@on_one_database
@given(tensors=hnp.arrays(np.float64, (4, 2, 3, 3)))
def test_tensors_survive_the_database(ledger: Ledger, samples: Any, tensors: np.ndarray) -> None:
    ledger.create_campaign("alpha", {"name": "alpha"}, "high-k", 1, {})
    current = ledger.start_round("alpha", len(ledger.rounds("alpha")) + 1)
    ledger.record_training(current.id, "t", 4, "model", "m", {})
    frame = samples.predictions(4)
    frame["electronic"], frame["ionic"] = list(tensors[:, 0]), list(tensors[:, 1])
    ledger.record_predictions(current.id, frame)
    material = samples.material(current.number)
    selection, planned = samples.plan(material)
    ledger.select(current.id, [selection], [planned], [material])
    ledger.record_result(planned.key, {}, "accepted", "", *tensors[0], "PBE")
    predicted = ledger.predictions(current.id)[["electronic", "ionic"]]
    assert same(predicted.to_numpy().tolist(), tensors.tolist())
    record = ledger.calculation(planned.key)
    assert record is not None
    calculated = [record.tensors.electronic, record.tensors.ionic]
    assert same(np.array(calculated).tolist(), tensors[0].tolist())


def test_what_is_open_here_and_finished_elsewhere(
    ledger: Ledger, samples: Any, tmp_path: Path
) -> None:
    """An imported campaign brings its results; nobody calculates them again."""
    other = Ledger(tmp_path / "other.sqlite")
    material = samples.material(3)
    selection, planned = samples.plan(material)
    for book, name in ((ledger, "alpha"), (other, "beta")):
        book.select(trained(book, samples, name), [selection], [planned], [material])
    output = {"cpu_s": 3.0, "wall_s": 2.0}
    other.record_result(planned.key, output, "accepted", "", np.eye(3), 2 * np.eye(3), "PBE")
    load_campaign(ledger, dump_campaign(other, "beta"), lambda _, row: row, lambda: None)
    assert ledger.pending("alpha") == ledger.pending("beta") == []
    record = ledger.calculation(planned.key)
    assert record is not None and record.campaign == "alpha"
    assert (record.status, record.verdict, record.output) == ("finished", "accepted", output)
    assert record.cpu_s == 3.0 and record.tensors.ionic == pytest.approx(2 * np.eye(3))
