"""The data that come with the software: DFPT results computed for it with ABINIT.

Small crystals at measured lattice constants (PBE, GPAW PAW setups, ABINIT 9.6.2), which
``benchmarks/builtin_table.py`` goes on computing from :mod:`screening.prototypes`. A third of them,
drawn by the hash of the names, is known when a campaign starts; all others are the candidates, and
their tensors stay hidden until the campaign asks for them. A crystal that is added later changes
nothing for those that are there.
Calculations that gave no tensor stay in the table, with their reasons, and are no candidates.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from pathlib import Path

from screening.material import KnownMaterial
from screening.tables import known_from_frame, read_frame

TABLE = "abinit-prototypes.jsonl"
SHARE_KNOWN = 1 / 3


def builtin_known() -> list[KnownMaterial]:
    """The part that is known at the start."""
    return [known for known in builtin_table() if _lot(known) < SHARE_KNOWN]


def builtin_hidden() -> list[KnownMaterial]:
    """The part that a campaign has to find."""
    return [known for known in builtin_table() if _lot(known) >= SHARE_KNOWN]


@functools.cache
def builtin_table() -> tuple[KnownMaterial, ...]:
    """Crystals that have a tensor, in the order of the draw."""
    return tuple(sorted(_read(), key=_lot))


def _lot(known: KnownMaterial) -> float:
    """A number between 0 and 1 that the name alone decides."""
    digest = hashlib.sha256(known.material.material_id.encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _read() -> list[KnownMaterial]:
    path = Path(str(resources.files("screening") / "data" / TABLE))
    frame = read_frame(path).rename(columns={"name": "material_id"})
    frame = frame[frame["eps_electronic"].notna()].copy()
    frame["functional"] = [settings["xc"] for settings in frame["settings"]]
    frame["source"] = [f"built-in, {settings['code']}" for settings in frame["settings"]]
    return known_from_frame(frame, "the built-in table")
