"""What people do wrong, one case each: how to set it up, the command, and what must be named.

Shared by ``benchmarks/bad_input.py``, which runs every case as a process of its own, and by
``tests/flows/test_bad_input.py``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUICK = (
    "--set model.encoder=7net-0 --set model.members=2 --set model.min_steps=5 "
    "--set model.max_steps=5"
)
EARLIER = "earlier"
"""A finished campaign that is there before anything goes wrong, and must be there afterwards."""


class NotPossibleError(Exception):
    """The machine does not allow this case to be set up."""


@dataclass(frozen=True)
class Scene:
    """The directory a command runs in, and what has to be undone afterwards."""

    place: Path
    undo: ExitStack


Setup = Callable[[Scene], object]


@dataclass(frozen=True)
class Case:
    """Something wrong.

    Attributes
    ----------
    group
        The kind of mistake.
    what
        What exactly is wrong.
    command
        What is typed after ``screen``.
    names
        What the message must name: the culprit, and the remedy where it is a certain one.
    setup
        Makes the files.
    environment
        Set in addition.
    process
        Needs a process of its own: a signal, another environment.
    mended
        Undoes the harm; afterwards ``then``, by default the same command, must work.
    then
        What the user types next, and must work.
    interrupt
        Send SIGINT when this stands in the standard error.
    """

    group: str
    what: str
    command: str
    names: tuple[str, ...]
    setup: Setup | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    process: bool = False
    mended: Callable[[Path], None] | None = None
    then: str | None = None
    interrupt: str | None = None

    @property
    def status(self) -> int:
        """The exit status it must end with."""
        return 2 if self.interrupt is None else 130


def known_rows() -> list[dict[str, Any]]:
    """The built-in known materials as rows of a table."""
    from screening.builtin import builtin_known

    return [_row(known) for known in builtin_known()]


CANDIDATES = ("BeS", "GaN", "LiF", "LiI", "NaF", "SrO", "HfO2", "CsCl")
"""Built-in candidates that the cases work with, whatever else the table holds."""


def hidden_rows(n: int = 6) -> list[dict[str, Any]]:
    """Some of these candidates with their tensors, as rows of a table."""
    from screening.builtin import builtin_hidden

    names = CANDIDATES[:n]
    return [_row(known) for known in builtin_hidden() if known.material.material_id in names]


def _row(known: Any) -> dict[str, Any]:
    tensors = known.tensors
    return {
        "material_id": known.material.material_id,
        "structure": known.material.structure.as_dict(),
        "band_gap": known.material.band_gap,
        "functional": known.functional,
        "eps_electronic": tensors.electronic.tolist(),
        "eps_ionic": None if tensors.ionic is None else tensors.ionic.tolist(),
    }


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV (nested values as JSON) or parquet."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    for column in frame:
        if frame[column].map(lambda value: isinstance(value, list | dict)).any():
            frame[column] = [None if v is None else json.dumps(v) for v in frame[column]]
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)


def write_folder(folder: Path, n: int = 6) -> None:
    """Some candidates as CIF files, their band gaps as ``gaps.csv``, answers as ``answers.csv``."""
    from pymatgen.core import Structure

    folder.mkdir()
    rows = hidden_rows(n)
    for row in rows:
        Structure.from_dict(row["structure"]).to(str(folder / f"{row['material_id']}.cif"))
    gaps = [{"file": f"{row['material_id']}.cif", "band_gap": row["band_gap"]} for row in rows]
    write_table(folder.parent / "gaps.csv", gaps)
    write_table(folder.parent / "answers.csv", rows)


def text(name: str, content: str | bytes) -> Setup:
    """A file with this content."""

    def setup(scene: Scene) -> None:
        path = scene.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return setup


def known(change: Callable[[list[dict[str, Any]]], object]) -> Setup:
    """``known.csv``, the built-in known materials after a change."""

    def setup(scene: Scene) -> None:
        rows = known_rows()
        replaced = change(rows)
        write_table(scene.place / "known.csv", replaced if isinstance(replaced, list) else rows)

    return setup


def tensor(value: Any) -> Setup:
    """``known.csv`` with this as the first electronic tensor."""
    return known(lambda rows: rows[0].update(eps_electronic=value))


def folder(change: Callable[[Path], object]) -> Setup:
    """``crystals/``, ``gaps.csv`` and ``answers.csv`` after a change."""

    def setup(scene: Scene) -> None:
        write_folder(scene.place / "crystals")
        change(scene.place / "crystals")

    return setup


def gap(line: str) -> Setup:
    """``crystals/`` and ``answers.csv``, and this line in ``gaps.csv``."""

    def change(crystals: Path) -> None:
        (crystals.parent / "gaps.csv").write_text(f"file,band_gap\n{line}\n")

    return folder(change)


def crystal(symbols: list[str], length: float = 5.6) -> dict[str, Any]:
    """A rock salt crystal."""
    from pymatgen.core import Lattice, Structure

    return dict(
        Structure.from_spacegroup(
            "Fm-3m", Lattice.cubic(length), symbols, [[0, 0, 0], [0.5, 0.5, 0.5]]
        ).get_primitive_structure().as_dict()
    )  # fmt: skip


def strange_candidates(scene: Scene) -> None:
    """Candidates with an element that no encoder knows."""
    rows = hidden_rows()
    for row in rows:
        row["structure"] = crystal(["Ra", "O"])
    write_table(scene.place / "pool.csv", [rows[0]])
    write_table(scene.place / "answers.csv", hidden_rows())


def duplicate(rows: list[dict[str, Any]]) -> None:
    """Two structures under one id."""
    rows[1]["material_id"] = rows[0]["material_id"]


def disordered(crystals: Path) -> None:
    """A CIF with half an atom too few."""
    path = sorted(crystals.glob("*.cif"))[0]
    lines = path.read_text().splitlines()
    # The last line is a site; its last word the occupancy.
    lines[-1] = lines[-1].rsplit(maxsplit=1)[0] + "  0.5"
    path.write_text("\n".join(lines) + "\n")


def broken(crystals: Path) -> None:
    """A CIF cut in the middle."""
    path = sorted(crystals.glob("*.cif"))[0]
    path.write_text(path.read_text()[:200])


def finished_campaign(place: Path, name: str, **fields: Any) -> None:
    """The smallest possible campaign, run to its end."""
    from flows.campaign import campaign
    from flows.config import build_campaign

    settings = [word for word in QUICK.split() if "=" in word]
    overrides: dict[str, Any] = {"name": name, "rounds": 1, "batch": 1, **fields}
    overrides |= {field: _plain(value) for field, value in (s.split("=") for s in settings)}
    campaign.fn(build_campaign(None, overrides), place / "campaigns", None)


def _plain(value: str) -> str | int:
    return int(value) if value.isdigit() else value


def changed_known(scene: Scene) -> None:
    """A campaign is under way and its table of known tensors has changed since."""
    rows = known_rows()
    write_table(scene.place / "known.csv", rows)
    table = {"kind": "table", "path": str(scene.place / "known.csv")}
    finished_campaign(scene.place, "changed", known=table)
    book = sqlite3.connect(scene.place / "campaigns" / "ledger.sqlite")
    with contextlib.closing(book), book:
        book.execute("UPDATE campaign SET status = 'running' WHERE name = 'changed'")
    write_table(scene.place / "known.csv", rows[:-1])


def newer_ledger(scene: Scene) -> None:
    """The ledger says that a later version of the software wrote it."""
    book = sqlite3.connect(scene.place / "campaigns" / "ledger.sqlite")
    with contextlib.closing(book), book:
        book.execute("UPDATE ledger_version SET version_num = '9999'")


def held(scene: Scene) -> None:
    """Somebody else is running the campaign ``busy``."""
    home = scene.place / "campaigns" / "busy"
    home.mkdir()
    lock = scene.undo.enter_context((home / ".lock").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)


def mounted(name: str, options: str) -> Setup:
    """A file system in memory."""

    def setup(scene: Scene) -> None:
        (scene.place / name).mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(scene.place / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotPossibleError("file systems cannot be mounted here")
        scene.undo.callback(unmount, scene.place / name)

    return setup


def unmount(path: Path) -> None:
    """Take a file system away, even from processes that still use it."""
    subprocess.run(["umount", "-l", str(path)], check=True)


def larger(name: str) -> Callable[[Path], None]:
    """More space on the file system."""

    def mend(place: Path) -> None:
        options = ["-o", "remount,size=64M"]
        subprocess.run(["mount", *options, str(place / name)], check=True)

    return mend


def read_only_earlier(scene: Scene) -> None:
    """The campaigns' directory as on a medium that cannot be written."""
    path = str(scene.place / "campaigns")
    for options in (["--bind", path, path], ["-o", "remount,bind,ro", path]):
        done = subprocess.run(["mount", *options], capture_output=True, check=False)
        if done.returncode:
            raise NotPossibleError("file systems cannot be mounted here")
        if options[0] == "--bind":
            scene.undo.callback(unmount, Path(path))


def closed_to_others(scene: Scene) -> None:
    """A directory without permission to write."""
    if os.geteuid() == 0:
        raise NotPossibleError("permissions do not bind root")
    (scene.place / "closed").mkdir(mode=0o555)


FOLDER = "run --candidates crystals --band-gaps gaps.csv --replay answers.csv"
NAN = math.nan

CASES = (
    Case("unknown task", "a task that does not exist", "run --task ferroelectric",
         ("ferroelectric", "anisotropy, high-k")),
    Case("rounds or batch of 0", "no rounds", "run --rounds 0", ("rounds", "0")),
    Case("rounds or batch of 0", "no batch", "run --batch 0", ("batch", "0")),
    Case("rounds or batch of 0", "negative seed", "run --seed -1", ("seed", "-1")),
    Case("campaign file", "unknown key", "run c.yaml", ("colour", "c.yaml"),
         text("c.yaml", "task: high-k\ncolour: blue\n")),
    Case("campaign file", "unknown key in a group", "run c.yaml", ("model.layers", "c.yaml"),
         text("c.yaml", "model: {layers: 3}\n")),
    Case("campaign file", "wrong type", "run c.yaml", ("rounds", "many", "integer"),
         text("c.yaml", "rounds: many\n")),
    Case("campaign file", "a list for a group", "run c.yaml", ("filters", "c.yaml"),
         text("c.yaml", "filters: [1, 2]\n")),
    Case("campaign file", "empty", "run c.yaml", ("c.yaml", "no fields"), text("c.yaml", "")),
    Case("campaign file", "a list", "run c.yaml", ("c.yaml",), text("c.yaml", "- task: high-k\n")),
    Case("campaign file", "no YAML", "run c.yaml", ("c.yaml", "line 3"),
         text("c.yaml", "task: high-k\nname: [\n")),
    Case("campaign file", "no text", "run c.yaml", ("c.yaml",), text("c.yaml", b"\xff\xfe\x00x")),
    Case("campaign file", "not there", "run nowhere.yaml", ("nowhere.yaml",)),
    Case("campaign file", "a directory", "run campaigns", ("campaigns",)),
    Case("campaign file", "a name with a slash", "run --name a/b", ("name", "a/b")),
    Case("campaign file", "unknown field set", "run --set model.layers=3", ("model.layers",)),
    Case("campaign file", "set without =", "run --set model.epochs",
         ("model.epochs", "FIELD=VALUE")),
    Case("campaign file", "a field below a value", "run --set task.x=3",
         ("'task'", "valid string")),
    Case("campaign file", "an unknown failure", "run --set engine.failures.NaCl=tired",
         ("engine.failures.NaCl", "tired")),
    Case("missing or unreadable table", "not there", "run --known nowhere.csv", ("nowhere.csv",)),
    Case("missing or unreadable table", "a directory", "run --known campaigns", ("campaigns",)),
    Case("missing or unreadable table", "garbage", "run --known t.parquet", ("t.parquet",),
         text("t.parquet", b"PAR1 and then nothing")),
    Case("missing or unreadable table", "binary as CSV", "run --known t.csv", ("t.csv",),
         text("t.csv", bytes(range(256)))),
    Case("missing or unreadable table", "broken JSON lines", "run --known t.jsonl", ("t.jsonl",),
         text("t.jsonl", '{"material_id": "a"\n')),
    Case("missing or unreadable table", "another kind of file", "run --known t.xlsx",
         ("t.xlsx", ".parquet"), text("t.xlsx", "x")),
    Case("missing or unreadable table", "an empty file", "run --known t.csv", ("t.csv",),
         text("t.csv", "")),
    Case("missing or unreadable table", "no rows", "run --known t.csv", ("t.csv",),
         text("t.csv", "material_id,structure,band_gap,functional,eps_electronic,eps_ionic\n")),
    Case("missing column", "no tensors", "run --known known.csv", ("eps_electronic", "known.csv"),
         known(lambda rows: [row.pop("eps_electronic") for row in rows] and rows)),
    Case("missing column", "no band gaps", "run --candidates pool.csv --replay pool.csv",
         ("band_gap", "pool.csv"), text("pool.csv", "material_id,structure\na,b\n")),
    Case("tensor", "not 3×3", "run --known known.csv", ("eps_electronic", "MgO", "3×3"),
         tensor([[1, 0], [0, 1]])),
    Case("tensor", "a number", "run --known known.csv", ("eps_electronic", "MgO", "3×3"),
         tensor([[2.0]])),
    Case("tensor", "not symmetric", "run --known known.csv", ("MgO", "not symmetric"),
         tensor([[3, 1, 0], [0, 3, 0], [0, 0, 3]])),
    Case("tensor", "with NaN", "run --known known.csv", ("MgO", "NaN"),
         tensor([[NAN, 0, 0], [0, 3, 0], [0, 0, 3]])),
    Case("tensor", "breaks the point group", "run --known known.csv", ("MgO", "point group"),
         tensor([[3, 0, 0], [0, 3, 0], [0, 0, 5]])),
    Case("structure", "broken CIF", FOLDER, ("BeS.cif",), folder(broken)),
    Case("structure", "disordered CIF", FOLDER, ("BeS", "disordered"), folder(disordered)),
    Case("structure", "no structure in the table", "run --known known.csv", ("MgO", "structure"),
         known(lambda rows: rows[0].update(structure={"a": 1}))),
    Case("structure", "an empty folder", FOLDER, ("crystals",),
         folder(lambda crystals: [path.unlink() for path in crystals.glob("*")])),
    Case("structure", "a band gap for no file", FOLDER, ("gaps.csv", "Kryptonite"),
         gap("Kryptonite,3")),
    Case("structure", "a band gap that is no number", FOLDER, ("gaps.csv", "wide"),
         gap("BeS,wide")),
    Case("structure", "band gaps without candidates", "run --band-gaps gaps.csv",
         ("--candidates",)),
    Case("structure", "candidates without answers", "run --candidates crystals", ("--replay",),
         folder(bool)),
    Case("unknown element", "among the known", "run --known known.csv", ("MgO", "Ra", "7net"),
         known(lambda rows: rows[0].update(structure=crystal(["Ra", "O"]), eps_ionic=None))),
    Case("unknown element", "in all candidates", "run --candidates pool.csv --replay answers.csv",
         ("element unknown to the encoder", "1 taken"), strange_candidates),
    Case("duplicate id", "in a table", "run --known known.csv", ("MgO", "two different"),
         known(duplicate)),
    Case("duplicate id", "in a folder", FOLDER, ("BeS", "rename"),
         folder(lambda crystals: (crystals / "BeS.vasp").write_text("x"))),
    Case("empty pool", "the filters take everything",
         "run --set filters.min_band_gap=50 --set filters.max_sites=1",
         ("more than 1 atoms", "taken by", "loosen"),
         then=f"run --rounds 1 --batch 1 {QUICK}"),
    Case("too few known", "9 compositions", f"run --known known.csv --rounds 1 --batch 1 {QUICK}",
         ("9", "at least 10"), known(lambda rows: rows[:9]),
         mended=lambda place: write_table(place / "known.csv", known_rows())),
    Case("too few known", "another functional", "run --known known.csv", ("MgO", "HSE06", "PBE"),
         known(lambda rows: rows[0].update(functional="HSE06"))),
    Case("ledger", "of a newer version", "status", ("ledger.sqlite", "newer"), newer_ledger),
    Case("ledger", "of a newer version, run", "run", ("ledger.sqlite", "newer"), newer_ledger),
    Case("ledger", "not there", "status --directory elsewhere", ("elsewhere",)),
    Case("ledger", "a directory", "run --ledger campaigns", ("campaigns", "directory")),
    Case("ledger", "another file", "status --ledger notes.txt", ("notes.txt", "not a ledger"),
         text("notes.txt", "nothing of this kind, but longer than a header of a database\n" * 20)),
    Case("ledger", "another database", "status --ledger mysql://host/x", ("mysql",)),
    Case("ledger", "no server", "run --ledger postgresql://me:secret@127.0.0.1:1/screen",
         ("127.0.0.1:1", "cannot be reached")),
    Case("campaign", "the name exists with other settings",
         f"run --name {EARLIER} --rounds 1 --batch 1 --seed 5", (EARLIER, "seed", "resume")),
    Case("campaign", "unknown, resume", "resume nobody", ("nobody", EARLIER)),
    Case("campaign", "unknown, status", "status nobody", ("nobody", EARLIER)),
    Case("campaign", "unknown, report", "report nobody", ("nobody", EARLIER)),
    Case("campaign", "resume without a ledger", "resume x --directory elsewhere", ("elsewhere",)),
    Case("campaign", "being run by another process", "run --name busy", ("busy", "another process"),
         held),
    Case("campaign", "a known table that has changed", "resume changed",
         ("known", "changed", "another name"), changed_known),
    Case("read-only directory", "below a file", "run --directory notes.txt/campaigns",
         ("notes.txt",), text("notes.txt", "x")),
    Case("read-only directory", "a file", "run --directory notes.txt", ("notes.txt",),
         text("notes.txt", "x")),
    Case("read-only directory", "read-only disk", "run --directory disk", ("disk", "read-only"),
         mounted("disk", "size=64M,ro")),
    Case("read-only directory", "everything read-only, run", "run",
         ("ledger.sqlite", "permission to write"), read_only_earlier),
    Case("read-only directory", "no permission", "run --directory closed", ("closed",),
         closed_to_others),
    Case("read-only directory", "the report's place", f"report {EARLIER} --output notes.txt/r.html",
         ("notes.txt/r.html",), text("notes.txt", "x")),
    Case("read-only directory", "the cache's place", f"run {QUICK}", ("notes.txt", "SCREEN_CACHE"),
         text("notes.txt", "x"), {"SCREEN_CACHE": "notes.txt/cache"}),
    *(
        Case("full disk", f"{size} left", f"run --directory disk --rounds 1 --batch 2 {QUICK}",
             ("disk is full", "disk/"), mounted("disk", f"size={size}"), mended=larger("disk"))
        for size in ("4k", "64k", "200k", "400k", "800k", "2M")
    ),
    Case("Ctrl-C", "at the start", f"run --name stopped --rounds 1 --batch 2 {QUICK}",
         ("Nothing is lost",), process=True, interrupt=""),
    Case("Ctrl-C", "while training",
         f"run --name stopped --rounds 1 --batch 2 {QUICK} --set engine.delay_s=5",
         ("Nothing is lost", "screen resume stopped"), process=True, interrupt="Round 1",
         then="resume stopped"),
    Case("Ctrl-C", "while calculating",
         f"run --name stopped --rounds 1 --batch 2 {QUICK} --set engine.delay_s=3",
         ("Nothing is lost", "screen resume stopped"), process=True, interrupt="Trained on",
         then="resume stopped"),
    Case("Prefect", "its server does not answer", "run --rounds 1",
         ("127.0.0.1:1", "PREFECT_API_URL"), environment={"PREFECT_API_URL": "http://127.0.0.1:1/api"},
         process=True),
)  # fmt: skip
