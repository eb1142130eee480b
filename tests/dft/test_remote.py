"""A cluster behind SSH, on this machine: connections end at any moment, and nothing comes of it."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dft import agent
from dft.calculation import State
from dft.remote import RemoteLauncher
from dft.slurm_settings import SlurmLauncherSettings
from screening.errors import UserError
from screening.material import KnownMaterial

PATIENCE_S = 240.0
QUICK = {"poll_s": 0.5, "settle_s": 0.5, "time": 600}


@pytest.fixture(scope="session")
def server(cluster: Any) -> Iterator[Any]:
    """An SSH server whose sessions see the Slurm of the tests; see benchmarks/sshd.py."""
    from sshd import Sshd, missing

    if reason := missing():
        pytest.skip(reason)
    home = Path(tempfile.mkdtemp(prefix="screen-sshd-", dir="/tmp"))
    package = str(Path(agent.__file__).parents[1])
    environment = {"SLURM_CONF": cluster.environment["SLURM_CONF"], "PYTHONPATH": package}
    with Sshd(home, environment) as started:
        yield started
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The directory on the far side."""
    return tmp_path / "there"


def launcher_of(bench: Any, ssh: dict[str, Any], **settings: Any) -> RemoteLauncher:
    launcher = RemoteLauncher(
        bench.root, SlurmLauncherSettings(**{**QUICK, "ssh": ssh, **settings})
    )
    bench.launchers.append(launcher)
    return launcher


def finish(bench: Any, launcher: RemoteLauncher, keys: list[str]) -> None:
    bench.wait(lambda: set(launcher.poll(keys).values()) == {State.DONE}, PATIENCE_S)


def test_calculated_there_and_brought_back(
    bench: Any, server: Any, there: Path, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many[:3], delay_s=8.0)
    launcher = launcher_of(bench, server.settings(there), pack=3, at_once=3)
    launcher.submit(keys)
    bench.wait(lambda: State.RUNNING in launcher.poll(keys).values(), PATIENCE_S)
    assert all(a.where.startswith("job ") for a in launcher.look(keys).values())
    finish(bench, launcher, keys)
    assert all(bench.names(key) == ["start", "end"] for key in keys)
    assert launcher.fetch(keys[0]).engine == "replay"
    far = there / "calculations" / keys[0] / "result.json"
    assert far.read_bytes() == bench.calculation(keys[0]).result_path.read_bytes()
    assert not list((there / "requests").iterdir())
    # Cut short here: fetched again, not calculated again.
    bench.calculation(keys[0]).result_path.write_bytes(far.read_bytes()[:99])
    again = launcher_of(bench, server.settings(there))
    again.submit(keys)
    finish(bench, again, keys)
    assert bench.names(keys[0]) == ["start", "end"] and again.fetch(keys[0]).error is None


def test_connections_that_end_do_no_harm(
    bench: Any, server: Any, there: Path, many: list[KnownMaterial]
) -> None:
    keys = bench.replay(many[:6], delay_s=0.5)
    stop = threading.Event()
    cut = []

    def cutter() -> None:
        rng = random.Random(3)
        # Not for ever: on a machine that is busy enough no request would ever get through.
        while len(cut) < 12 and not stop.wait(rng.uniform(0.3, 3)):
            cut.append(server.drop())

    thread = threading.Thread(target=cutter)
    thread.start()
    try:
        for begun in range(30):
            bench.launchers.clear()
            launcher = launcher_of(bench, server.settings(there), pack=2, max_jobs=2)
            try:
                launcher.submit(keys)
                finish(bench, launcher, keys)
                break
            except UserError as error:
                assert "cannot be reached" in str(error) and begun < 29
    finally:
        stop.set()
        thread.join()
    assert sum(cut) > 0
    assert all(bench.names(key) == ["start", "end"] for key in keys)


def test_cancelled_from_here(
    bench: Any, server: Any, there: Path, many: list[KnownMaterial]
) -> None:
    (key,) = bench.replay(many[:1], delay_s=20.0)
    launcher = launcher_of(bench, server.settings(there))
    launcher.submit([key])
    bench.wait(lambda: launcher.poll([key])[key] is State.RUNNING, PATIENCE_S)
    launcher.cancel([key])
    assert launcher.poll([key])[key] is State.LOST
    assert (there / "calculations" / key / "cancelled").exists()


def test_a_request_cut_short_is_noticed(tmp_path: Path, capsys: Any) -> None:
    content = json.dumps({"command": "poll", "root": str(tmp_path), "keys": []}).encode()
    path = tmp_path / f"{hashlib.sha256(content).hexdigest()}.json"
    path.write_bytes(content[:-5])
    assert agent.main([str(path)]) == 0
    assert agent.MARK + '{"damaged": true}' in capsys.readouterr().out


def test_a_file_damaged_on_its_way_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    for name in ("run.log", "result.json"):
        (tmp_path / "from" / name).write_text(name)
    files = agent.pack(tmp_path / "from", agent.OUTPUTS)
    files["run.log"]["content"] = files["result.json"]["content"]
    assert not agent.unpack(tmp_path / "to", files, agent.OUTPUTS)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": "no-such-host.invalid"}, "cannot be reached .*no host no-such-host.invalid"),
        ({"port": 1}, "cannot be reached"),
        ({"known_hosts": "wrong_hosts"}, "somebody pretends .*ssh-keygen -R"),
        ({"known_hosts": "no_hosts"}, "is not in .*connect once with `ssh"),
        ({"key_file": "other_key"}, r"does not let us in .*launcher\.ssh\.key_file"),
        ({"python": "/no/python"}, r"does not run on .*launcher\.ssh\.python \(now /no/python\)"),
        ({"directory": "/proc/nowhere"}, r"Cannot write .*launcher\.ssh\.directory"),
    ],
)
def test_what_is_wrong_with_the_way_there_is_one_sentence(
    bench: Any, server: Any, there: Path, many: list[KnownMaterial], change: dict[str, Any],
    words: str,
) -> None:  # fmt: skip
    (key,) = bench.replay(many[:1])
    for name in ("known_hosts", "key_file"):
        if name in change:
            change = {name: str(server.home / change[name])}
    launcher = launcher_of(bench, server.settings(there) | change)
    with pytest.raises(UserError, match=words) as caught:
        launcher.submit([key])
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))
    bench.launchers.clear()


def test_what_slurm_refuses_there_is_said_here(
    bench: Any, server: Any, there: Path, many: list[KnownMaterial]
) -> None:
    (key,) = bench.replay(many[:1])
    launcher = launcher_of(bench, server.settings(there), partition="nowhere")
    with pytest.raises(UserError, match=r"On 127\.0\.0\.1: Slurm refuses .*launcher\.partition"):
        launcher.submit([key])


def test_a_connection_that_stays_away(
    bench: Any, server: Any, there: Path, many: list[KnownMaterial]
) -> None:
    (key,) = bench.replay(many[:1], delay_s=2.0)
    launcher = launcher_of(bench, server.settings(there), patience_s=0.5)
    launcher.submit([key])
    server.stop()
    try:
        with pytest.raises(UserError, match=r"has not been reached for .*nothing is lost"):
            bench.wait(lambda: launcher.poll([key]) and False)
    finally:
        server.start()
    again = launcher_of(bench, server.settings(there))
    again.submit([key])
    finish(bench, again, [key])
    assert bench.names(key) == ["start", "end"]
