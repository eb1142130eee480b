"""The data that come with the software: DFPT results computed for it with ABINIT.

Small crystals at measured lattice constants (PBE, GPAW PAW setups, ABINIT 9.6.2): a first table,
and one that ``benchmarks/builtin_table.py`` goes on computing from :mod:`screening.prototypes`.
A third of the first table, drawn once by the hash of the names, is known when a campaign starts;
all others are the candidates, and their tensors stay hidden until the campaign asks for them.
Calculations that gave no tensor stay in the tables, with their reasons, and are no candidates.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from pathlib import Path

from screening.material import KnownMaterial
from screening.tables import known_from_frame, read_frame

TABLES = ("abinit-starter.jsonl", "abinit-prototypes.jsonl")
N_KNOWN = 13


def builtin_known() -> list[KnownMaterial]:
    """The part that is known at the start; it does not change when the second table grows."""
    return list(_drawn(TABLES[0])[:N_KNOWN])


def builtin_hidden() -> list[KnownMaterial]:
    """The part that a campaign has to find."""
    return [*_drawn(TABLES[0])[N_KNOWN:], *_drawn(TABLES[1])]


@functools.cache
def _drawn(name: str) -> tuple[KnownMaterial, ...]:
    """A table in the order of the draw."""

    def draw(k: KnownMaterial) -> str:
        return hashlib.sha256(k.material.material_id.encode()).hexdigest()

    return tuple(sorted(_read(name), key=draw))


def _read(name: str) -> list[KnownMaterial]:
    path = Path(str(resources.files("screening") / "data" / name))
    frame = read_frame(path).rename(columns={"name": "material_id"})
    frame = frame[frame["eps_electronic"].notna()].copy()
    frame["functional"] = [settings["xc"] for settings in frame["settings"]]
    frame["source"] = [f"built-in, {settings['code']}" for settings in frame["settings"]]
    return known_from_frame(frame, "the built-in table")
