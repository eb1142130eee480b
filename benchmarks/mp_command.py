"""What the command line says when the Materials Project cannot be pulled from, and what it hides.

Parts of ``materials_project.py``; all traffic stays on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mp_server

ROOT = Path(__file__).parents[1]
CALL = "from flows.cli import main; main()"


def small(documents: Path, number: int) -> list[Any]:
    """The first stable documents."""
    found: list[Any] = []
    with documents.open() as file:
        for line in file:
            document = json.loads(line).get("summary")
            if document and document["is_stable"]:
                found.append(document)
                if len(found) == number:
                    break
    return found


def surroundings(work: Path, **more: str) -> dict[str, str]:
    """Environment of a process that sees nothing of this user's settings; no key in it."""
    (work / "home").mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if k not in ("MP_API_KEY", "PMG_MAPI_KEY")}
    path = f"{more.pop('PYTHONPATH', ROOT)}:{ROOT}"
    return {**kept, "HOME": str(work / "home"), **more, "PYTHONPATH": path}


def command(work: Path, *words: str, **environment: str) -> tuple[int, str, str]:
    """``screen`` in a process of its own: exit status, standard output, standard error."""
    done = subprocess.run(
        [sys.executable, "-c", CALL, *words], env=surroundings(work, **environment),
        cwd=work / "home", text=True, capture_output=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def screen(work: Path, url: str, *words: str, **environment: str) -> tuple[int, str, str]:
    """``screen candidates`` with the server's address and, unless another is given, its key."""
    environment.setdefault("MP_API_KEY", mp_server.KEY)
    return command(work, "candidates", "--set", f"endpoint={url}", *words, **environment)


def sentences(documents: Path, work: Path) -> None:
    """One mistake after the other."""
    stable = small(documents, 2500)
    empty = {"SCREEN_CACHE": str(work / f"cache-{time.time_ns()}")}

    def show(what: str, code: int, err: str) -> None:
        said = [line.strip() for line in err.splitlines() if line.strip()]
        print(f"  {what:24s} exit {code}: {' '.join(said[-3:])}")

    def later(request: mp_server.Request) -> bool:
        return request.route != "heartbeat"

    with mp_server.MpServer(stable) as server:
        for what, environment in (
            ("no key", {"MP_API_KEY": ""}), ("key of a wrong form", {"MP_API_KEY": "abc"}),
            ("wrong key", {"MP_API_KEY": "z" * 32}),
        ):  # fmt: skip
            code, _, err = screen(work, server.url, **{**empty, **environment})
            show(what, code, err)
        server.fault = lambda _n, r: "expired" if later(r) else ""
        show("expired key", *screen(work, server.url, **empty)[::2])
        server.fault = lambda _n, r: "half" if later(r) and "_skip" in r.query else ""
        show("half a page, for good", *screen(work, server.url, **empty)[::2])
        server.fault = lambda _n, _r: ""
        asked = len(server.pages)
        show("the same, afterwards", *screen(work, server.url, **empty)[::2])
        print(f"{'':26s} {len(server.pages) - asked} pages fetched of 3")
        other = {"SCREEN_CACHE": str(work / f"cache-{time.time_ns()}")}
        server.clock_offset_s = 86_400
        show("clock a day behind", *screen(work, server.url, **other)[::2])
        server.clock_offset_s = 0
        for path in Path(other["SCREEN_CACHE"]).rglob("manifest.json"):
            path.write_text(path.read_text().replace('"layout": 1', '"layout": 0'))
        show("copy of an older layout", *screen(work, server.url, **other)[::2])
        for path in Path(other["SCREEN_CACHE"]).rglob("manifest.json"):
            path.write_text(path.read_text().replace('"layout": 1', '"layout": 7'))
        show("copy of a newer layout", *screen(work, server.url, **other)[::2])
        tiny = work / "tiny"
        tiny.mkdir(exist_ok=True)
        if (
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tiny]).returncode
            == 0
        ):
            show("full disk", *screen(work, server.url, SCREEN_CACHE=str(tiny))[::2])
            subprocess.run(["umount", tiny], check=True)
        url = server.url
    show("no network, a copy", *screen(work, url, **empty)[::2])
    nothing = {"SCREEN_CACHE": str(work / f"cache-{time.time_ns()}")}
    show("no network, no copy", *screen(work, url, **nothing)[::2])


LOUD = """
import http.client, logging, os, time, traceback

http.client.HTTPConnection.debuglevel = 1

def write(record, handle=logging.Logger.handle):
    with open(os.environ["LEAK_LOG"], "a") as file:
        file.write(f"{record.name}: {record.getMessage()}\\n")
        if record.exc_info:
            file.write("".join(traceback.format_exception(*record.exc_info)))
    return handle(logging.getLogger(record.name), record)

logging.Logger.handle = lambda self, record: write(record)
logging.Logger.isEnabledFor = lambda self, level: level >= logging.DEBUG
shown = traceback.TracebackException.__init__
def with_locals(self, *args, **options):
    shown(self, *args, **{**options, "capture_locals": True})
traceback.TracebackException.__init__ = with_locals
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.05))
if os.environ.get("LEAK_BUG"):
    begin, answers = http.client.HTTPResponse.begin, []
    def broken(self):
        begin(self)
        answers.append(self)
        if len(answers) > 2:  # the heartbeat and a page have come
            raise RuntimeError("a bug in the middle of a request")
    http.client.HTTPResponse.begin = broken
"""
"""``sitecustomize`` of the processes: every logger at DEBUG into one file, http.client's
``debuglevel``, tracebacks with the variables of every frame, short waits, and a bug if asked."""

FAULTS = ("", "drop", "502", "half", "echo", "expired", "redirect")
SMALL_SITES, N_SMALL, N_KNOWN = 6, 60, 40


def leak(documents: Path, work: Path) -> None:
    """Pulls that work and pulls that fail, a bug, and a campaign under Prefect; then the search."""
    key = secrets.token_hex(16)
    where = work / f"leak-{time.time_ns()}"
    (where / "loud").mkdir(parents=True)
    (where / "loud" / "sitecustomize.py").write_text(LOUD)
    loud = {
        "PYTHONPATH": str(where / "loud"), "LEAK_LOG": str(where / "debug.log"),
        "PYTHONFAULTHANDLER": "1", "PREFECT_HOME": str(where / "prefect"), "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
        "PREFECT_SERVER_LOGGING_LEVEL": "DEBUG", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }  # fmt: skip
    said: list[str] = []
    sent = 0

    def keep(what: str, done: tuple[int, str, str], server: mp_server.MpServer) -> None:
        nonlocal sent
        said.extend(done[1:])
        with_key = sum(request.key == key for request in server.requests)
        sent += with_key
        errors = [line for line in done[2].splitlines() if line.startswith("Error")]
        print(f"  {what:22s} exit {done[0]}, {with_key} requests with the key; "
              f"{' '.join(errors)[:90]}", flush=True)  # fmt: skip

    stable = small(documents, 1500)
    for fault in FAULTS:
        with mp_server.MpServer(stable, key=key) as server:
            server.fault = lambda n, _r, f=fault: f if n > 2 else ""
            cache = str(where / f"cache-{fault}")
            done = screen(where, server.url, "--json", **loud, MP_API_KEY=key, SCREEN_CACHE=cache)
            keep(fault or "no fault", done, server)
    with mp_server.MpServer(stable, key=key) as server:
        more = {"MP_API_KEY": key, "SCREEN_CACHE": str(where / "cache-bug"), "LEAK_BUG": "1"}
        keep("a bug", screen(where, server.url, **loud, **more), server)
    summary, dielectric, answers = few(documents, where)
    with prefect_server(where, loud) as api, mp_server.MpServer(summary, dielectric, key=key) as mp:
        store_key(where, loud | {"PREFECT_API_URL": api}, key)
        config = where / "home" / "campaign.json"
        source = {"kind": "mp", "endpoint": mp.url}
        model = {"encoder": "7net-0", "members": 2, "min_steps": 10, "max_steps": 10}
        config.write_text(json.dumps({
            "name": "whole", "known": source, "candidates": source, "rounds": 1, "batch": 2,
            "engine": {"kind": "replay", "answers": {"kind": "table", "path": str(answers)}},
            "model": model,
        }))  # fmt: skip
        more = {"PREFECT_API_URL": api, "SCREEN_CACHE": str(where / "cache-campaign")}
        keep("a campaign", command(where, "run", str(config), "--json", **loud, **more), mp)
        mp.requests.clear()
        mp.fault = lambda _n, request: "" if request.route == "heartbeat" else "echo"
        more["SCREEN_CACHE"] = str(where / "cache-refused")
        done = command(where, "run", str(config), "--name", "refused", **loud, **more)
        keep("a refused campaign", done, mp)
    search(where, key, "".join(said), sent)


def few(documents: Path, where: Path) -> tuple[list[Any], list[Any], Path]:
    """Documents of small crystals, some with tensors, and a table that answers for the others."""
    truth = json.loads((documents.parent / "truth.json").read_text())["tensors"]
    summary: list[Any] = []
    dielectric: list[Any] = []
    rows: list[Any] = []
    with documents.open() as file:
        for line in file:
            ((kind, document),) = json.loads(line).items()
            material_id = document["material_id"]
            if kind == "summary" and document["nsites"] <= SMALL_SITES and material_id in truth:
                electronic, ionic, formula = truth[material_id]
                if len(summary) == N_SMALL:
                    break
                known = len(summary) < N_KNOWN
                summary.append(document | {
                    "is_stable": True, "energy_above_hull": 0.0, "band_gap": 3.0,
                    "has_props": {"dielectric": known},
                })  # fmt: skip
                rows.append({
                    "material_id": material_id, "formula": formula, "band_gap": 3.0,
                    "structure": json.dumps(document["structure"]), "functional": "PBE",
                    "eps_electronic": electronic, "eps_ionic": ionic,
                })  # fmt: skip
            elif kind == "dielectric" and any(d["material_id"] == material_id for d in summary):
                dielectric.append(document)
    del dielectric[N_KNOWN:]
    answers = where / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return summary, dielectric, answers


@contextlib.contextmanager
def prefect_server(where: Path, loud: dict[str, str]) -> Iterator[str]:
    """A Prefect server of its own, its log and database below ``where``; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = surroundings(where, **{k: v for k, v in loud.items() if k != "PYTHONPATH"})
    with (where / "prefect-server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1",
             "--port", str(port)],
            env=environment, cwd=where, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        api = f"http://127.0.0.1:{port}/api"
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{api}/health"):
                    break
                time.sleep(1)
            yield api
        finally:
            process.terminate()
            process.wait()


def store_key(where: Path, environment: dict[str, str], key: str) -> None:
    """Put the key into the Secret block, as a person would."""
    code = (
        "import os; from prefect.blocks.system import Secret;"
        "Secret(value=os.environ['KEY']).save('mp-api-key')"
    )
    quiet = {k: v for k, v in environment.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", code], env=surroundings(where, **quiet, KEY=key), check=True,
        capture_output=True,
    )  # fmt: skip


def search(where: Path, key: str, output: str, sent: int) -> None:
    """Look for any twelve characters of the key, in what is compressed too."""
    import pyarrow.parquet as pq

    parts = [key[i : i + 12].encode() for i in range(len(key) - 11)]
    files = [p for p in where.rglob("*") if p.is_file()]
    holding, version = [], 0
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += repr(pq.read_table(path).to_pydict()).encode()
        version += mp_server.VERSION.encode() in content
        if any(part in content for part in parts):
            holding.append(path)
    size = sum(p.stat().st_size for p in files) / 2**20
    lines = (where / "debug.log").read_bytes().count(b"\n")
    with contextlib.closing(sqlite3.connect(where / "prefect" / "prefect.db")) as book:
        count = {
            name: book.execute(f"select count(*) from {name}").fetchone()[0]
            for name in ("artifact", "log", "flow_run")
        }
    print(f"  {sent} requests carried the key; searched: {len(files)} files, {size:.1f} MiB, among "
          f"them {lines} lines of debug log and Prefect's database ({count['flow_run']} flow runs, "
          f"{count['log']} lines of log, {count['artifact']} artifacts), and {len(output)} "
          "characters of output")  # fmt: skip
    print(f"  the database version, as a check of the search, is in {version} files; twelve "
          f"characters of the key are in {len(holding)} files, "
          f"{sum(part.decode() in output for part in parts)} times in the output")  # fmt: skip
    for path in holding:
        print(f"    {path}")
