"""How long work tells where it stands."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, total) as the work goes on."""
NamedProgress = Callable[[str, int, int], None]
"""Called with (what, done, total) as the work goes on."""
