"""Files that are either whole or absent, and hashes of content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from screening.errors import UserError

ENOUGH_BYTES = 4 << 20
"""With less free space than this, a program that failed did so for want of space."""


def disk_is_full(place: Path) -> bool:
    """Whether the disk of ``place``, or of the nearest directory above that exists, has no room."""
    while not place.exists():
        place = place.parent
    space = os.statvfs(place)
    return space.f_bavail * space.f_frsize < ENOUGH_BYTES


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path`` in one step.

    The data are flushed to disk before the rename, so that after a crash at any moment ``path``
    is either its old or its new self.

    Raises
    ------
    UserError
        The directory cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``path``, whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def require_writable(directory: Path) -> None:
    """Make a directory and see that files can be written there, before long work that ends in one.

    Raises
    ------
    UserError
        They cannot.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise unwritable(directory, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """The sentence for a path that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"The disk is full: {path} could not be written; free some space and run the same "
            "command again, everything finished so far is kept."
        )
    reason = error.strerror or str(error)
    return UserError(
        f"Cannot write {path} ({reason}); choose a directory you may write to, "
        "for example with --directory."
    )


def stable_hash(value: Any) -> str:
    """128-bit hexadecimal hash of a JSON-like value; the order of mapping keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cache_directory() -> Path:
    """``$SCREEN_CACHE`` or ``$XDG_CACHE_HOME/dielectric-screen``, by default below ``~/.cache``."""
    if given := os.environ.get("SCREEN_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dielectric-screen"
