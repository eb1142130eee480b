"""Killed at any moment, or written by many at once: the ledger is whole and nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine, event, inspect, select
from sqlalchemy.engine import make_url

from results.ledger import Ledger
from results.migrations import VERSION_TABLE
from results.schema import Base, RoundStatus

SMALL = {"n_rounds": 1, "n_picks": 2, "n_candidates": 3}
LARGE = {"n_rounds": 2, "n_picks": 2, "n_candidates": 400}

STRIDE = int(os.environ.get("SCREEN_TEST_KILL_STRIDE", "12"))
"""Kill at every so many-th statement; 1 takes half a minute per database."""


def content(ledger: Ledger) -> dict[str, list[Any]]:
    """Everything in the ledger but times and generated ids."""
    tables: dict[str, list[Any]] = {}
    with ledger._database.reading() as connection:
        for name, table in Base.metadata.tables.items():
            columns = [
                c
                for c in table.columns
                if c.name not in ("at", "id", "round_id", "campaign_id")
                and not c.name.endswith("_at")
            ]
            tables[name] = sorted(repr(row) for row in connection.execute(select(*columns)))
    return tables


def check_consistent(url: str, sizes: dict[str, int]) -> None:
    """No trace of half a write."""
    if "://" not in url and not Path(url).exists():
        return
    address = f"sqlite:///{url}" if "://" not in url else make_url(url).set(
        drivername="postgresql+psycopg"
    )  # fmt: skip
    engine = create_engine(address)
    tables = set(inspect(engine).get_table_names())
    engine.dispose()
    assert tables in (set(), {*Base.metadata.tables, VERSION_TABLE})
    if not tables:
        return
    ledger = Ledger(url)
    if "://" not in url:
        with ledger._database.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    if ledger.campaign("alpha") is None:
        return
    assert len(ledger.known("alpha")) == 4
    steps = list(RoundStatus)
    for current in ledger.rounds("alpha"):
        reached = steps.index(current.status)
        assert (current.training_hash is not None) == (reached >= 1)
        assert len(ledger.predictions(current.id)) == (sizes["n_candidates"] if reached >= 2 else 0)
        picks = ledger.selections(current.id)
        assert len(picks) == (sizes["n_picks"] if reached >= 3 else 0)
        assert (picks["verdict"].notna() == (picks["status"] == "finished")).all()
        assert (picks["cpu_s"].notna() == picks["verdict"].notna()).all()
        assert reached < 4 or picks["verdict"].notna().all()
        for key in picks["key"]:
            record = ledger.calculation(key)
            assert record is not None and (record.output is None) == (record.verdict is None)


def in_child(function: Callable[[], Any]) -> multiprocessing.Process:
    """Start a function in a forked process."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process


def watch(on_point: Callable[[], None]) -> None:
    """Call a function before each statement and before each commit of this process."""
    event.listen(Engine, "before_cursor_execute", lambda *_: on_point())
    event.listen(Engine, "commit", lambda *_: on_point())


def run_and_count(samples: Any, url: str, sizes: dict[str, int]) -> int:
    """Run the campaign in a child; the number of points at which it could be killed."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        points: list[None] = []
        watch(lambda: points.append(None))
        samples.run(url, **sizes)
        sender.send(len(points))

    in_child(child).join()
    return int(receiver.recv())


def run_until(samples: Any, url: str, sizes: dict[str, int], last: int) -> None:
    """Run the campaign in a child that is killed at its point number ``last``."""

    def child() -> None:
        points: list[None] = []

        def on_point() -> None:
            points.append(None)
            if len(points) == last:
                os.kill(os.getpid(), signal.SIGKILL)

        watch(on_point)
        samples.run(url, **sizes)

    process = in_child(child)
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture
def new_url(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Make the URL of another empty ledger on the same kind of database."""
    made: list[str] = []

    def make() -> str:
        made.append(url)
        if "://" not in url:
            return str(tmp_path / f"{len(made)}.sqlite")
        address = make_url(url).set(drivername="postgresql+psycopg")
        schema = f"{str(address.query['options']).split()[0].partition('=')[2]}"
        engine = create_engine(address, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        engine.dispose()
        return url

    return make


def test_killed_between_statements(new_url: Callable[[], str], samples: Any) -> None:
    reference = new_url()
    points = run_and_count(samples, reference, SMALL)
    expected = content(Ledger(reference))
    assert points > 60
    for last in range(1, points + 1, STRIDE):
        target = new_url()
        run_until(samples, target, SMALL, last)
        check_consistent(target, SMALL)
        assert content(samples.run(target, **SMALL)) == expected


def test_killed_at_random_moments(new_url: Callable[[], str], samples: Any) -> None:
    reference = new_url()
    start = time.perf_counter()
    in_child(lambda: samples.run(reference, **LARGE)).join()
    duration = time.perf_counter() - start
    expected = content(Ledger(reference))
    for moment in np.random.default_rng(1).uniform(0, duration, 4):
        target = new_url()
        process = in_child(lambda target=target: samples.run(target, **LARGE))
        time.sleep(moment)
        process.kill()
        process.join()
        check_consistent(target, LARGE)
        assert content(samples.run(target, **LARGE)) == expected


def test_eight_processes_write_at_once(url: str, samples: Any, in_processes: Any) -> None:
    keys = [samples.plan(samples.material(n))[1].key for n in range(6)]
    barrier = multiprocessing.get_context("fork").Barrier(8)

    def work(number: int) -> list[bool]:
        barrier.wait()
        ledger = Ledger(url)
        ledger.create_campaign("alpha", {}, "high-k", 1, {}, samples.known(3))
        current = ledger.start_round("alpha", 1).id
        ledger.record_training(current, f"by {number}", 4, "model", "m", {})
        ledger.record_predictions(current, samples.predictions(300))
        materials = [samples.material(n) for n in range(6)]
        plans = [samples.plan(material) for material in materials]
        # Each process in another order, on one ledger, with campaigns of its own too.
        order = np.random.default_rng(number).permutation(6)
        picks = [plans[i][0] for i in order], [plans[i][1] for i in order]
        ledger.select(current, *picks, materials)
        own = f"own {number}"
        ledger.create_campaign(own, {}, "high-k", number, {})
        mine = ledger.start_round(own, 1).id
        ledger.record_training(mine, "t", 4, "model", "m", {})
        ledger.record_predictions(mine, samples.predictions(3))
        ledger.select(mine, *picks, materials)
        owners: dict[str, str | None] = {}
        for some in (order[:1], order[1:4], order[2:]):
            owners |= ledger.claim([keys[i] for i in some], f"place {number}")
        assert all(o is None or o.startswith("place") for o in owners.values())
        mine = [i for i in order if owners[keys[i]] == f"place {number}"]
        assert ledger.event("alpha", "claims", {"by": number, "keys": [keys[i] for i in mine]})
        barrier.wait()
        first = [
            ledger.record_result(keys[i], {"by": number}, "timeout", "", None, None, None)
            for i in order
        ]
        for i in range(25):
            assert ledger.event("alpha", "write", {"by": number, "i": i})
            ledger.record_seconds(current, f"step {number} {i}", 1.0, 1.0)
        return [first[list(order).index(i)] for i in range(6)]

    answers = in_processes(work, list(range(8)))
    assert [a for a in answers if isinstance(a, Exception)] == []
    assert np.sum(answers, axis=0).tolist() == [1] * 6, "each result is recorded by one process"
    ledger = Ledger(url)
    for i, key in enumerate(keys):
        record = ledger.calculation(key)
        assert record is not None and record.output is not None
        assert answers[record.output["by"]][i]
    events = ledger.events("alpha")
    claims = [key for d in events.loc[events["kind"] == "claims", "detail"] for key in d["keys"]]
    assert sorted(claims) == sorted(keys), "each calculation is claimed by one process"
    details = events.loc[events["kind"] == "write", "detail"]
    written = sorted((d["by"], d["i"]) for d in details)
    assert written == [(n, i) for n in range(8) for i in range(25)]
    (current,) = ledger.rounds("alpha")
    assert len(current.seconds) == 200
    assert len(ledger.predictions(current.id)) == 300
    assert len(ledger.known("alpha")) == 3
    for n in range(8):
        assert set(ledger.calculations(f"own {n}")["key"]) == set(keys)
