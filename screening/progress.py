"""How long work tells where it stands."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, total) as the work goes on."""
NamedProgress = Callable[[str, int, int], None]
"""Called with (what, done, total) as the work goes on."""


def labelled(progress: NamedProgress | None, what: str) -> Progress | None:
    """NamedProgress that says what is being done."""
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)
