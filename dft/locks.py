"""Locks that the kernel releases when their holder dies, however it dies.

They are ``flock`` locks: they belong to an open file, so that a process forked by the holder holds
them too until it ends. Lock files are never removed, for that would let two processes lock two
files of the same name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from screening.errors import UserError
from screening.io import unwritable

PATIENCE_S = 0.05
"""Looking at a lock (:func:`is_locked`) holds it for microseconds; who wants it tries this long."""


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold the lock at ``path``, or yield False at once if someone else holds it.

    Raises
    ------
    UserError
        The file cannot be created, or the file system has no locks.
    """
    with try_lock_file(path) as handle:
        yield handle is not None


@contextlib.contextmanager
def try_lock_file(path: Path, patience_s: float = PATIENCE_S) -> Iterator[int | None]:
    """As :func:`try_lock`, but yields the open file, or None; a process it is passed to holds it.

    Raises
    ------
    UserError
        The file cannot be created, or the file system has no locks.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        held = _lock(handle, path, fcntl.LOCK_EX, patience_s)
        try:
            yield handle if held else None
        finally:
            if held:
                # Closing alone would leave the lock with any process forked meanwhile.
                fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether someone holds the lock at ``path``; cheap, and creates nothing."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not _lock(handle, path, fcntl.LOCK_SH, 0.0):
            return True
        fcntl.flock(handle, fcntl.LOCK_UN)
        return False
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, kind: int, patience_s: float) -> bool:
    give_up = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(
                    f"The file system of {path} has no file locks ({error.strerror}); keep the "
                    "calculations on one that has them, such as a local disk."
                ) from error
        else:
            return True
        if time.monotonic() >= give_up:
            return False
        time.sleep(0.002)
