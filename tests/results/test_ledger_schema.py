"""The schema: made once, the same as the models, and never mistaken for another."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from results import migrations
from results.ledger import Ledger
from results.schema import Base
from screening.errors import UserError


def differences(ledger: Ledger) -> list[Any]:
    """What alembic would change to bring the database to the models."""
    with ledger._database.reading() as connection:
        options = {"version_table": migrations.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Base.metadata))


def execute(ledger: Ledger, statement: str) -> None:
    with ledger._database.writing() as connection:
        connection.execute(text(statement))


def test_migrated_database_is_what_the_models_say(ledger: Ledger) -> None:
    assert differences(ledger) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE campaign ADD COLUMN extra TEXT",
        "ALTER TABLE prediction RENAME COLUMN merit_std TO spread",
        "DROP INDEX ix_event_campaign_id",
        "DROP TABLE verdict",
    ],
)
def test_a_difference_would_be_found(ledger: Ledger, change: str) -> None:
    execute(ledger, change)
    assert differences(ledger) != []


def test_revisions_are_one_line_that_ends_at_head(ledger: Ledger) -> None:
    with ledger._database.reading() as connection:
        script = ScriptDirectory.from_config(migrations.config(connection))
        assert migrations.revision(connection) == migrations.HEAD
    assert script.get_heads() == [migrations.HEAD]
    assert script.get_bases() == ["0001"]


def test_opening_again_changes_nothing(url: str, samples: Any) -> None:
    samples.run(url)
    before = Ledger(url).calculations("alpha")
    assert Ledger(url).calculations("alpha").equals(before)
    assert len(before) == 6


def test_newer_ledger_is_refused_untouched(url: str) -> None:
    ledger = Ledger(url)
    ledger.create_campaign("alpha", {}, "high-k", 1, {})
    execute(ledger, f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0999'")
    with pytest.raises(UserError) as caught:
        Ledger(url)
    message = str(caught.value)
    assert "newer version" in message and "0999" in message and "upgrade the software" in message
    execute(ledger, f"UPDATE {migrations.VERSION_TABLE} SET version_num = '{migrations.HEAD}'")
    assert Ledger(url).campaign("alpha") is not None


def test_failed_migration_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(op, "create_index", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            Ledger(url)
    assert differences(Ledger(url)) == []


def test_processes_that_start_at_once_make_one_schema(url: str, in_processes: Any) -> None:
    barrier = multiprocessing.get_context("fork").Barrier(8)

    def start(number: int) -> bool:
        barrier.wait()
        return Ledger(url).event(None, "started", {"number": number})

    assert in_processes(start, list(range(8))) == [True] * 8
    assert len(Ledger(url).events(None)) == 8


def test_threads_that_start_at_once_make_one_schema(url: str) -> None:
    barrier = threading.Barrier(6)
    answers: list[Any] = []

    def start() -> None:
        barrier.wait()
        try:
            answers.append(Ledger(url).event(None, "started", {}))
        except Exception as error:  # noqa: BLE001
            answers.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 6


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ledger._database.reading() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    assert values == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 60_000,
        "synchronous": 2,
    }


def test_reader_does_not_wait_for_a_writer(url: str) -> None:
    ledger = Ledger(url)
    ledger.create_campaign("alpha", {}, "high-k", 1, {})
    with ledger._database.writing() as connection:
        connection.execute(text("UPDATE campaign SET status = 'other'"))
        record = ledger.campaign("alpha")
    assert record is not None and record.status == "running"


def test_empty_file_and_missing_directories_become_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "empty.sqlite").touch()
    for path in (
        tmp_path / "empty.sqlite",
        tmp_path / "a b" / "ü%?#" / "l.db",
        f"sqlite:///{tmp_path}/c/l.db",
    ):
        assert differences(Ledger(path)) == []
    assert (tmp_path / "c" / "l.db").exists()
    assert (tmp_path / "a b" / "ü%?#" / "l.db").exists()


def test_relative_path_is_meant_from_where_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    ledger = Ledger("ledger.sqlite")
    monkeypatch.chdir(tmp_path / "elsewhere")
    ledger.event(None, "moved", {})
    assert len(Ledger(tmp_path / "ledger.sqlite").events(None)) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_postgresql_database_may_hold_other_tables(postgresql_url: str) -> None:
    import psycopg

    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('of another program')")
    Ledger(postgresql_url)
    with psycopg.connect(postgresql_url) as connection:
        (row,) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert row == ("of another program",)


def test_someone_elses_tables_are_left_alone(tmp_path: Path, postgresql_url: str) -> None:
    import psycopg

    path = tmp_path / "songs.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"not a ledger .it has the table 'songs'"):
        Ledger(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]
    connection.close()
    assert path.read_bytes() == before

    with psycopg.connect(postgresql_url) as server:
        server.execute("CREATE TABLE round (shape TEXT)")
    with pytest.raises(UserError, match=r"not a ledger .it has the table 'round'"):
        Ledger(postgresql_url)
