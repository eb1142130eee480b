"""What a person or a machine can do to a ledger ends in one clear sentence, and nothing is lost."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import make_url

from results import database
from results.ledger import Ledger
from screening.errors import UserError

LINUX_CAPABILITY_VERSION_3 = 0x20080522
"""capset(2)."""


@contextlib.contextmanager
def refused(*words: str, secret: str | None = None) -> Iterator[None]:
    """Expect a UserError of one line with these words and without the secret."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    for word in words:
        assert word in message, message
    if secret is not None:
        chain: list[BaseException | None] = [caught.value]
        while chain[-1] is not None:
            assert secret not in str(chain[-1])
            chain.append(chain[-1].__cause__)


def as_somebody(function: Callable[[], None]) -> None:
    """Run in a child without the capability of root to read and write everywhere.

    Dropping capabilities works in every container; becoming another user does not.
    """
    parent, child = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
            if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
                raise OSError(ctypes.get_errno(), "capset")
            function()
        except BaseException:  # noqa: BLE001 - what pytest raises is no Exception
            child.send(traceback.format_exc())
        else:
            child.send("")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    child.close()
    error = parent.recv()
    process.join()
    assert error == "", error


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that is not below pytest's, which only its owner may enter."""
    path = Path("/tmp") / f"screen-ledger-{os.getpid()}"
    path.mkdir()
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


def test_directory_in_place_of_the_file(tmp_path: Path) -> None:
    with refused(str(tmp_path), "is a directory", "ledger.sqlite"):
        Ledger(tmp_path)


def test_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("hello")
    with refused(str(tmp_path / "notes" / "ledger.sqlite")):
        Ledger(tmp_path / "notes" / "ledger.sqlite")


def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_text("material_id,formula\nmp-1,MgO\n" * 100)
    before = path.read_bytes()
    with refused(str(path), "is not a ledger"):
        Ledger(path)
    assert path.read_bytes() == before


def test_damaged_file(tmp_path: Path, samples: Any) -> None:
    path = tmp_path / "ledger.sqlite"
    samples.run(str(path))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with refused(str(path), "is damaged", "backup"):
        Ledger(path).predictions(1)


def test_read_only_directory(open_path: Path) -> None:
    open_path.chmod(0o555)

    def work() -> None:
        with refused(str(open_path), "directory is read-only"):
            Ledger(open_path / "ledger.sqlite")
        with refused(str(open_path), "Permission denied"):
            Ledger(open_path / "campaigns" / "ledger.sqlite")

    as_somebody(work)
    assert list(open_path.iterdir()) == []


@pytest.mark.parametrize("directory_mode", [0o555, 0o777])
def test_read_only_ledger(open_path: Path, samples: Any, directory_mode: int) -> None:
    path = open_path / "ledger.sqlite"
    samples.run(str(path))
    path.chmod(0o444)
    open_path.chmod(directory_mode)

    def work() -> None:
        with refused(str(path), "get permission to write"):
            Ledger(path).event(None, "x", {})

    as_somebody(work)
    assert Ledger(path).events(None).empty


def test_unreadable_ledger(open_path: Path) -> None:
    path = open_path / "ledger.sqlite"
    Ledger(path)
    path.chmod(0)

    def work() -> None:
        with refused(str(path), "get permission"):
            Ledger(path)

    as_somebody(work)


def test_database_that_may_not_grow(tmp_path: Path, samples: Any) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.create_campaign("alpha", {}, "high-k", 1, {})
    current = ledger.start_round("alpha", 1).id
    ledger.record_training(current, "t", 1, "m", "m", {})

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 100")

    event.listen(Engine, "connect", limit)
    try:
        with refused(str(path), "disk is full", "everything recorded so far is kept"):
            ledger.record_predictions(current, samples.predictions(2000))
    finally:
        event.remove(Engine, "connect", limit)
    assert ledger.predictions(current).empty
    assert ledger.record_predictions(current, samples.predictions(2000))


def test_full_disk(tmp_path: Path, samples: Any) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here (that needs root)")
    try:
        ledger = Ledger(disk / "ledger.sqlite")
        ledger.create_campaign("alpha", {}, "high-k", 1, {})
        current = ledger.start_round("alpha", 1).id
        ledger.record_training(current, "t", 1, "m", "m", {})
        (disk / "other").write_bytes(bytes(2_500_000))
        with refused("ledger.sqlite", "everything recorded so far is kept"):
            ledger.record_predictions(current, samples.predictions(1000))
        (disk / "other").write_bytes(bytes(0))
        assert ledger.predictions(current).empty
        assert ledger.record_predictions(current, samples.predictions(1000))
        with contextlib.suppress(OSError), (disk / "other").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        with refused(str(disk)):
            Ledger(disk / "second" / "ledger.sqlite").event(None, "x", {})
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_held_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with refused("ledger.sqlite", "another process"):
        ledger.event(None, "x", {})
    other.rollback()
    assert ledger.event(None, "x", {})
    other.close()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("mysql://root:pw@host/db", ["'mysql'", "postgresql://"]),
        ("postgresql://user:pw@host:port/db", ["cannot be read"]),
        ("://", ["cannot be read"]),
        ("sqlite://", ["live in memory"]),
        ("sqlite:///:memory:", ["live in memory"]),
    ],
)
def test_url_that_cannot_be(where: str, words: list[str]) -> None:
    with refused(*words, secret="pw"):
        Ledger(where)


def test_postgresql_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with refused("pip install 'psycopg[binary]'", secret="pa55"):
        Ledger("postgresql://user:pa55@host/db")


def changed(url: str, **parts: Any) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)


def test_unreachable_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
            with refused(f"127.0.0.1:{port}/db", "cannot be reached", secret="pa55"):
                Ledger(f"{scheme}://user:pa55@127.0.0.1:{port}/db?application_name=x")
    with refused("no-such-host.invalid", "cannot be reached", secret="pa55"):
        Ledger("postgresql://user:pa55@no-such-host.invalid/db?password=pa55")


def test_server_that_says_no(postgresql: str, samples: Any) -> None:
    if os.environ.get("SCREEN_TEST_POSTGRES"):
        pytest.skip("the rights on a server that is not ours are not known")
    with refused("password", "~/.pgpass", secret="wr0ng"):
        Ledger(changed(postgresql, password="wr0ng"))
    with refused("password", "~/.pgpass"):
        Ledger(make_url(postgresql)._replace(password=None).render_as_string())
    with refused("no such database", "nowhere", "createdb", secret=samples.password):
        Ledger(changed(postgresql, database="nowhere"))
    with psycopg.connect(postgresql, autocommit=True) as server:
        server.execute("CREATE ROLE guest LOGIN PASSWORD 'gu3st'")
        try:
            with refused("may not be written", "ask for the right", secret="gu3st"):
                Ledger(changed(postgresql, username="guest", password="gu3st"))
        finally:
            server.execute("DROP ROLE guest")


def test_read_only_server(postgresql_url: str) -> None:
    options = str(make_url(postgresql_url).query["options"])
    read_only = {"options": f"{options} -cdefault_transaction_read_only=on"}
    with refused("is read-only"):
        Ledger(changed(postgresql_url, query=read_only))
    Ledger(postgresql_url)
    with refused("is read-only"):
        Ledger(changed(postgresql_url, query=read_only)).event(None, "x", {})


def test_schema_that_is_not_there(postgresql: str) -> None:
    with refused("does not exist", "search path"):
        Ledger(changed(postgresql, query={"options": "-csearch_path=not_there"}))


def test_connection_lost_in_the_middle(postgresql_url: str) -> None:
    ledger = Ledger(postgresql_url)
    with refused("was lost", "run the same command again"), ledger._database.writing() as mine:
        mine.execute(text("INSERT INTO event (at, kind, detail) VALUES (now(), 'x', '{}')"))
        pid = mine.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with psycopg.connect(postgresql_url) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
        mine.execute(text("SELECT 1"))
    assert ledger.events(None).empty
    assert ledger.event(None, "x", {})


def test_repr_hides_the_password(postgresql_url: str, samples: Any) -> None:
    ledger = Ledger(postgresql_url)
    url = make_url(postgresql_url)
    assert str(url.password or samples.password) not in repr(ledger)
    assert repr(ledger) == f"Ledger({ledger._database.label})"
    assert make_url(ledger._database.label) == url._replace(password=None, query={})
