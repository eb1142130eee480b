"""Databases to run the ledger's tests on, and small campaigns to put into them."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from pymatgen.core import Lattice, Structure
from sqlalchemy.engine import make_url

from results.ledger import Ledger
from results.records import PlannedCalculation, Selection
from screening.material import KnownMaterial, Material
from screening.tensors import DielectricTensors

PASSWORD = "s3cret-p@ss"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server: SCREEN_TEST_POSTGRES, or a private one started here."""
    given = os.environ.get("SCREEN_TEST_POSTGRES")
    if given:
        yield given
        return
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("no PostgreSQL: install its server or set SCREEN_TEST_POSTGRES to a URL")
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        # The server refuses to run as root.
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no PostgreSQL: as root its server needs the user 'postgres'")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    directory = Path(tempfile.mkdtemp(prefix="screen-pg-", dir="/tmp"))
    (directory / "password").write_text(PASSWORD)
    if user:
        shutil.chown(directory, user["user"], user["group"])
        shutil.chown(directory / "password", user["user"], user["group"])
    options = "-D data -U screen -E UTF8 --locale=C --no-sync -A scram-sha-256 --pwfile=password"
    subprocess.run(
        [initdb, *options.split()], cwd=directory, check=True, capture_output=True, **user
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-D data -p {port} -h 127.0.0.1 -c unix_socket_directories= -c fsync=off"
    with (directory / "log").open("w") as log:
        server = subprocess.Popen(
            [Path(initdb).with_name("postgres"), *options.split()],
            cwd=directory,
            stdout=log,
            stderr=log,
            **user,
        )
    try:
        url = f"postgresql://screen:{PASSWORD.replace('@', '%40')}@127.0.0.1:{port}/postgres"
        _wait_for(url, server, directory / "log")
        yield url
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(directory)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {log.read_text()}")
            time.sleep(0.05)


@pytest.fixture
def postgresql_url(postgresql: str) -> Iterator[str]:
    """URL of an empty schema; sessions are in another time zone, as a site may have set."""
    schema = f"screen_test_{uuid.uuid4().hex}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")  # type: ignore[call-overload]
        try:
            url = make_url(postgresql)
            options = f"-csearch_path={schema} -ctimezone=Asia/Tokyo"
            url = url.update_query_dict({"options": options})
            # A space is "+" to SQLAlchemy, but only "%20" to libpq.
            yield url.render_as_string(hide_password=False).replace("+", "%20")
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")  # type: ignore[call-overload]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty ledger can be made, on each kind of database."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return str(tmp_path / "campaigns" / "ledger.sqlite")


@pytest.fixture
def ledger(url: str) -> Ledger:
    """An empty ledger."""
    return Ledger(url)


class Samples:
    """Small made-up campaigns; the numbers mean nothing, but each is another one."""

    password = PASSWORD

    @staticmethod
    def material(number: int) -> Material:
        lattice = Lattice.from_parameters(4 + number / 7, 4.5, 5, 90, 90, 90 + number)
        structure = Structure(lattice, ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        return Material(
            f"mp-{number}",
            structure,
            band_gap=None if number == 2 else 1 / (number + 3),
            energy_above_hull=0.0,
            source="made up",
        )

    @staticmethod
    def tensor(number: int) -> np.ndarray:
        tensor = np.random.default_rng(number).normal(size=(3, 3))
        return tensor + tensor.T

    @classmethod
    def known(cls, n: int) -> list[KnownMaterial]:
        return [
            KnownMaterial(
                cls.material(100 + i),
                DielectricTensors(cls.tensor(i), cls.tensor(10 + i) if i % 2 == 0 else None),
                "PBEsol",
            )
            for i in range(n)
        ]

    @classmethod
    def predictions(cls, n: int) -> pd.DataFrame:
        rng = np.random.default_rng(n)
        return pd.DataFrame(
            {
                "material_id": [f"mp-{i}" for i in range(n)],
                "structure_hash": [f"{i:032x}" for i in range(n)],
                "formula": "MgO",
                "n_sites": rng.integers(1, 50, n),
                "band_gap": np.where(rng.random(n) < 0.1, np.nan, rng.random(n)),
                "electronic": list(rng.normal(size=(n, 3, 3))),
                "ionic": list(rng.normal(size=(n, 3, 3))),
                "epsilon_mean": rng.random(n),
                "epsilon_std": rng.random(n),
                "merit_mean": rng.random(n),
                "merit_std": rng.random(n),
                "acquisition": rng.random(n),
                "rank": rng.permutation(n) + 1,
            }
        )

    @classmethod
    def plan(cls, material: Material, rank: int = 1) -> tuple[Selection, PlannedCalculation]:
        key = f"key-{material.structure_hash}"
        selection = Selection(key, rank, 3.5, 3.0, 1 / 3, 9.0, 1 / 7)
        planned = PlannedCalculation(
            key,
            material.structure_hash,
            material.material_id,
            "replay",
            {"failures": {}},
            "settings",
            f"calculations/{key}",
        )
        return selection, planned

    @classmethod
    def steps(
        cls,
        opened: list[Ledger],
        url: str,
        name: str,
        n_rounds: int = 2,
        n_picks: int = 3,
        n_candidates: int = 20,
    ) -> Iterator[Callable[[], Any]]:
        """A campaign from opening the ledger to the end, one idempotent write at a time."""
        yield lambda: opened.append(Ledger(url))
        ledger = opened[-1]
        config = {"task": "high-k", "rounds": n_rounds}
        known = cls.known(4)
        yield lambda: ledger.create_campaign(name, config, "high-k", 7, {"screen": "0.1"}, known)
        for number in range(1, n_rounds + 1):
            yield lambda n=number: ledger.start_round(name, n)
            yield from cls._round(ledger, name, number, n_picks, n_candidates)
        yield lambda: ledger.finish_campaign(name, "finished")

    @classmethod
    def _round(
        cls, ledger: Ledger, name: str, number: int, n_picks: int, n_candidates: int
    ) -> Iterator[Callable[[], Any]]:
        current = ledger.start_round(name, number).id
        frame = cls.predictions(n_candidates)
        first = (number - 1) * n_picks
        materials = [cls.material(first + i) for i in range(n_picks)]
        plans = [cls.plan(material, i + 1) for i, material in enumerate(materials)]
        selections, planned = zip(*plans, strict=True)
        yield lambda: ledger.record_training(current, f"t{number}", 4, "model", "m", {"mae": 0.1})
        yield lambda: ledger.record_seconds(current, "train", 2.0, 1.0)
        yield lambda: ledger.record_predictions(current, frame)
        yield lambda: ledger.select(current, selections, planned, materials)
        for i, calculation in enumerate(planned):
            key = calculation.key
            output = {"cpu_s": 1.5, "wall_s": 1.0, "min_optical_thz": 3.25, "nan": float("nan")}
            verdict = "imaginary mode" if i == 1 else "accepted"
            tensors = (None, None) if i == 1 else (cls.tensor(i), cls.tensor(i + 50))
            yield lambda key=key: ledger.claim([key], f"place of {key}")
            yield (
                lambda key=key, output=output, verdict=verdict, tensors=tensors: (
                    ledger.record_result(key, output, verdict, "said so", *tensors, "PBE")
                )
            )
        yield lambda: ledger.finish_round(current)
        yield lambda: ledger.event(name, "round", {"number": number}, once=f"round {number}")

    @classmethod
    def run(cls, url: str, name: str = "alpha", times: int = 1, **sizes: int) -> Ledger:
        """Run the campaign, each write ``times`` times."""
        opened: list[Ledger] = []
        for step in cls.steps(opened, url, name, **sizes):
            for _ in range(times):
                step()
        return opened[-1]


@pytest.fixture(scope="session")
def samples() -> type[Samples]:
    """Makers of small campaigns."""
    return Samples


@pytest.fixture(scope="session")
def in_processes() -> Callable[..., list[Any]]:
    """Call a function in forked processes, once per argument; what each returned or raised."""
    context = multiprocessing.get_context("fork")

    def target(function: Callable[..., Any], argument: Any, answers: Any) -> None:
        try:
            answers.put((argument, function(argument)))
        except Exception as error:  # noqa: BLE001
            answers.put((argument, error))

    def call(function: Callable[..., Any], arguments: list[Any]) -> list[Any]:
        answers = context.SimpleQueue()
        workers = [context.Process(target=target, args=(function, a, answers)) for a in arguments]
        for worker in workers:
            worker.start()
        found = dict(answers.get() for _ in workers)
        for worker in workers:
            worker.join()
        return [found[argument] for argument in arguments]

    return call
