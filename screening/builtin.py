"""The data that come with the software: DFPT results computed for it with ABINIT.

39 cubic crystals at experimental lattice constants (PBE, GPAW PAW setups, ABINIT 9.6.2). A third
of them, drawn once by the hash of their names, is known when a campaign starts; the others are
the candidates, and their tensors stay hidden until the campaign asks for them.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from pathlib import Path

from screening.material import KnownMaterial
from screening.tables import known_from_frame, read_frame

N_KNOWN = 13


def builtin_known() -> list[KnownMaterial]:
    """The part that is known at the start."""
    return list(_drawn()[:N_KNOWN])


def builtin_hidden() -> list[KnownMaterial]:
    """The part that a campaign has to find."""
    return list(_drawn()[N_KNOWN:])


@functools.cache
def _drawn() -> tuple[KnownMaterial, ...]:
    path = Path(str(resources.files("screening") / "data" / "abinit-starter.jsonl"))
    frame = read_frame(path).rename(columns={"name": "material_id"})
    frame["functional"] = [settings["xc"] for settings in frame["settings"]]
    frame["source"] = [f"built-in, {settings['code']}" for settings in frame["settings"]]
    known = known_from_frame(frame, "the built-in table")

    def draw(k: KnownMaterial) -> str:
        return hashlib.sha256(k.material.material_id.encode()).hexdigest()

    return tuple(sorted(known, key=draw))
