"""The ``screen`` command inside the test process, and campaigns small enough to be run often."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(Path(__file__).parent))

QUICK = (
    "--set model.encoder=7net-0 --set model.members=2 --set model.min_steps=10 "
    "--set model.max_steps=10"
)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be nothing but JSON."""
        return json.loads(self.out)

    @property
    def message(self) -> str:
        """The last line of standard error."""
        return self.err.strip().rpartition("\n")[2]


Screen = Callable[..., Done]


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No Prefect server of the developer's, and a cache that starts empty and is then shared."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings(restore_defaults={PREFECT_API_URL}),
    ):
        patch.setenv("SCREEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "240")
        for name in ("DIRECTORY", "LEDGER", "CALCULATIONS"):
            patch.delenv(f"SCREEN_{name}", raising=False)
        patch.delenv("PREFECT_API_URL", raising=False)
        yield


@pytest.fixture(scope="session")
def screen() -> Screen:
    """``screen(place, "run --rounds 1")``: the command, in a directory, in this process."""
    return run_here


def run_here(place: Path, command: str) -> Done:
    """Run a command in this process; only for what is not interrupted."""
    from flows.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, handler = Path.cwd(), signal.getsignal(signal.SIGTERM)
    status: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["screen", *shlex.split(command)])
        os.chdir(place)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as end:
            status = end.code or 0
        finally:
            os.chdir(before)
            signal.signal(signal.SIGTERM, handler)
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that knows features but no trained models."""
    cache = tmp_path / "own-cache"
    shared = Path(os.environ["SCREEN_CACHE"]) / "features"
    if shared.exists():
        shutil.copytree(shared, cache / "features")
    monkeypatch.setenv("SCREEN_CACHE", str(cache))
    return cache


def executions(place: Path) -> dict[str, list[str]]:
    """By calculation, "start" and "end" of every execution as the engine logged them."""
    return {
        log.parent.name: [line.split()[1] for line in log.read_text().splitlines()]
        for log in sorted(place.glob("campaigns/*/calculations/*/executions.log"))
    }


@pytest.fixture(scope="session")
def executed() -> Callable[[Path], dict[str, list[str]]]:
    """``executed(place)``: the engine's own record of what it did."""
    return executions


@pytest.fixture(scope="session")
def quick() -> str:
    """Settings that train in a second; what is learned is of no use."""
    return QUICK


@pytest.fixture(scope="session")
def ledger_of() -> Callable[[Path], Any]:
    """``ledger_of(place)``: the ledger of the campaigns there."""
    from results.ledger import Ledger

    return lambda place: Ledger(place / "campaigns" / "ledger.sqlite")


@pytest.fixture
def interrupted(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``interrupted(place, command, "calculate")``: the campaign ends where that step begins."""
    import flows.campaign
    from screening.errors import UserError

    def power_fails(*_: Any, **__: Any) -> None:
        raise UserError("the power failed")

    def run(place: Path, command: str, step: str, module: Any = flows.campaign) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(module, step, power_fails)
            done = screen(place, command)
        assert done.status == 2 and done.message == "Error: the power failed"

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, screen: Screen) -> tuple[Path, Done]:
    """A campaign of three rounds of four on the built-in data; for tests that leave it alone."""
    place = tmp_path_factory.mktemp("finished")
    done = screen(place, f"run --task high-k --rounds 3 --batch 4 --json {QUICK}")
    assert done.status == 0, done.err
    return place, done
