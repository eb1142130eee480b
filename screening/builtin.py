"""The data that come with the software: DFPT results computed for it with ABINIT.

Small crystals at measured lattice constants (PBE, GPAW PAW setups, ABINIT 9.6.2): a first table,
and one that ``benchmarks/builtin_table.py`` goes on computing from :mod:`screening.prototypes`.
A third of them, drawn once by the hash of their names, is known when a campaign starts; the others
are the candidates, and their tensors stay hidden until the campaign asks for them. Calculations
that gave no tensor stay in the tables, with their reasons, and are no candidates.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from pathlib import Path

from screening.material import KnownMaterial
from screening.tables import known_from_frame, read_frame

TABLES = ("abinit-starter.jsonl", "abinit-prototypes.jsonl")


def builtin_known() -> list[KnownMaterial]:
    """The part that is known at the start."""
    return list(_drawn()[: len(_drawn()) // 3])


def builtin_hidden() -> list[KnownMaterial]:
    """The part that a campaign has to find."""
    return list(_drawn()[len(_drawn()) // 3 :])


@functools.cache
def _drawn() -> tuple[KnownMaterial, ...]:
    known = [entry for name in TABLES for entry in _read(name)]

    def draw(k: KnownMaterial) -> str:
        return hashlib.sha256(k.material.material_id.encode()).hexdigest()

    return tuple(sorted(known, key=draw))


def _read(name: str) -> list[KnownMaterial]:
    path = Path(str(resources.files("screening") / "data" / name))
    frame = read_frame(path).rename(columns={"name": "material_id"})
    frame = frame[frame["eps_electronic"].notna()].copy()
    frame["functional"] = [settings["xc"] for settings in frame["settings"]]
    frame["source"] = [f"built-in, {settings['code']}" for settings in frame["settings"]]
    return known_from_frame(frame, "the built-in table")
