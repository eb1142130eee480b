"""Files that are whole or absent, and hashes."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from screening.errors import UserError
from screening.io import atomic_path, atomic_write, stable_hash, unwritable


def everything(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_text_and_bytes_are_written(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a" / "b" / "text", "ε∞ = 3\n")
    assert (tmp_path / "a" / "b" / "text").read_bytes() == "ε∞ = 3\n".encode()
    atomic_write(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    atomic_write(tmp_path / "bytes", b"shorter")
    assert (tmp_path / "bytes").read_bytes() == b"shorter"
    assert everything(tmp_path) == ["a", "bytes"]
    assert (tmp_path / "bytes").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_after_an_exception_the_old_file_is_there_and_nothing_else(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "result"
    atomic_write(path, "old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half of the ne")
        raise error
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["result"]


def test_nobody_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "result"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent  # a rename is one step only within a file system
        temporary.write_text("first half")
        assert not path.exists()
    assert path.read_text() == "first half"


def test_who_is_reading_goes_on_reading_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result"
    atomic_write(path, "old")
    with path.open() as reader:
        atomic_write(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new and longer"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The kernel's own error, from a device that is always full."""
    path = tmp_path / "result"
    atomic_write(path, "old")
    with pytest.raises(UserError) as caught, atomic_path(path):
        Path("/dev/full").write_text("x")
    assert f"The disk is full: {path}" in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["result"]


@contextlib.contextmanager
def small_files_only() -> Iterator[None]:
    """Writing more than 1000 bytes to a file fails.

    Not a fixture: one is undone only after the test's result was written, which may be to a file.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_does_not_fit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "result"
    atomic_write(path, "old")
    with pytest.raises(UserError) as caught, small_files_only():
        atomic_write(path, b"x" * 5000)
    assert f"Cannot write {path}" in str(caught.value)
    assert os.strerror(errno.EFBIG) in str(caught.value)
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["result"]


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path in (
        tmp_path / "file" / "result",  # below a file
        tmp_path / "folder",  # a folder already
        Path("/proc/result"),  # even root may not write there
        tmp_path / ("n" * 300),
    ):
        with pytest.raises(UserError, match=f"Cannot write {path} ") as caught:
            atomic_write(path, "x")
        assert str(caught.value).endswith("--directory.")
    assert everything(tmp_path) == ["file", "folder"]
    assert everything(tmp_path / "folder") == []


def test_the_sentence_tells_the_reason() -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert "(Permission denied)" in str(unwritable(Path("/x"), error))


KILLED = """
import os, sys
from pathlib import Path
from screening.io import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of the ne")
    os.kill(os.getpid(), 9)
"""


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result"
    atomic_write(path, "old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    assert path.read_text() == "old"
    atomic_write(path, "new")
    assert path.read_text() == "new"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(value=st.dictionaries(st.text(), plain, max_size=6), other=plain)
def test_hashes_do_not_see_the_order_of_keys_and_see_everything_else(
    value: dict[str, object], other: object
) -> None:
    found = stable_hash(value)
    assert len(found) == 32
    assert set(found) <= set("0123456789abcdef")
    assert stable_hash(dict(reversed(value.items()))) == found
    assert stable_hash([value]) != found
    assert stable_hash({**value, "one more key": other}) != found


def test_hashes_are_the_same_everywhere() -> None:
    """Keys of calculations that are paid for: they must not change with a version."""
    assert stable_hash({"b": [1, 2.5, None], "a": "ε"}) == "dd5e38d8670f80340b26dddc0a2d3e93"
    with pytest.raises(ValueError, match="not JSON compliant"):
        stable_hash([float("nan")])
