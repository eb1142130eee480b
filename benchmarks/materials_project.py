"""Pulls from a local server that speaks the Materials Project's API, and what they cost.

    python benchmarks/materials_project.py --work /tmp/mp            # everything
    python benchmarks/materials_project.py --work /tmp/mp --only frames faults

Documents are built by emmet-core's own models from the tables in $SCREEN_DATA: 14,000 candidates
and 7,000 dielectric documents (every usable tensor once, then again under new ids). Building them
takes ten times as long as pulling them, so they are kept in --work. All traffic stays on 127.0.0.1.

candidates  14,000 candidates and 7,000 labels pulled: time, peak memory, requests; then again
frames      every usable tensor through the IEEE frame and back, and what a naive pairing gets wrong
faults      a server that drops connections, answers 429 and 502, gives short, half and malformed
            pages, and ids of an unknown form: nothing lost, nothing twice; then a new version
overlap     candidates that are known already or duplicates of each other
sentences   what `screen candidates` says when something is wrong, and how it exits
leak        the key's characters in files, logs, artifacts and tracebacks after runs with debug
            logging, among them a whole campaign under a Prefect server
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import mp_command
import mp_server
from mp_documents import DATA, N_CANDIDATES, N_LABELS, build

ROOT = Path(__file__).parents[1]
N_TWICE, N_CHANGED = 500, 100
NAIVE, EQUAL = 0.05, 1e-6


def peak() -> float:
    """Peak memory of this process in MiB; ``ru_maxrss`` would count its parent's as well."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


CHILD = """
import json, sys, time
from pathlib import Path
sys.path.append("benchmarks")
from materials_project import peak
from screening.pulling import PullContext
from screening.settings import MaterialsProjectLabels, MaterialsProjectSource
from screening.sources import pull_candidates, pull_known
what, url, cache = sys.argv[1:4]
context = PullContext(cache=Path(cache))
start, cpu = time.perf_counter(), time.process_time()
if what == "candidates":
    pulled = pull_candidates(MaterialsProjectSource(endpoint=url), context)
else:
    pulled = pull_known(MaterialsProjectLabels(endpoint=url), context)
print(json.dumps({
    "wall": time.perf_counter() - start, "cpu": time.process_time() - cpu,
    "peak": peak(), **pulled.to_dict(),
}))
"""


def pulled(what: str, url: str, cache: Path) -> dict[str, Any]:
    """One pull in a process of its own, so that its memory is its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, what, url, str(cache)],
        env={**os.environ, "MP_API_KEY": mp_server.KEY}, cwd=ROOT, text=True, capture_output=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def candidates(documents: Path, work: Path) -> None:
    """Both pulls, then both again."""
    server = subprocess.Popen(
        [sys.executable, str(Path(mp_server.__file__)), str(documents)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        cache = work / f"cache-{time.time_ns()}"
        for attempt in ("first", "second"):
            for what in ("candidates", "labels"):
                found = pulled(what, url, cache)
                print(f"{what:10s} {attempt:6s}: {found['offered']} offered, {found['taken']} "
                      f"taken, {found['requests']} requests, {found['pages_fetched']} pages, "
                      f"{found['documents_fetched']} documents; {found['wall']:.1f} s wall, "
                      f"{found['cpu']:.1f} s CPU, peak {found['peak']:.0f} MiB")  # fmt: skip
                for entry in [*found["refused"], *found["in_part"]]:
                    print(f"             {entry['count']:5d} {entry['reason']}")
        size = sum(p.stat().st_size for p in cache.rglob("*.parquet")) / 2**20
        print(f"local copies on disk: {size:.0f} MiB")
    finally:
        server.terminate()
        server.wait()


def frames(documents: Path, work: Path) -> None:
    """Round trip of every usable tensor; and the naive pairing."""
    from screening.errors import UserError
    from screening.pulling import PullContext
    from screening.settings import MaterialsProjectLabels
    from screening.sources import pull_known
    from screening.tensors import read_tensor

    kept = json.loads((work / "truth.json").read_text())
    truth = kept["tensors"]
    summary, dielectric = [], []
    with documents.open() as file:
        for line in file:
            for kind, document in json.loads(line).items():
                if document["material_id"] in truth:
                    (summary if kind == "summary" else dielectric).append(document)
    os.environ["MP_API_KEY"] = mp_server.KEY
    with mp_server.MpServer(summary, dielectric) as server:
        context = PullContext(cache=work / f"cache-{time.time_ns()}")
        found = pull_known(MaterialsProjectLabels(endpoint=server.url), context)
    stored = {d["material_id"]: d for d in dielectric}
    worst, naive, parts, asymmetric = 0.0, 0, 0, 0
    off: list[str] = []
    naive_by_material: set[str] = set()
    for entry in found.items:
        material_id = entry.material.material_id
        electronic, ionic, _ = truth[material_id]
        for name, tensor, original in (
            ("electronic", entry.tensors.electronic, electronic),
            ("ionic", entry.tensors.ionic, ionic),
        ):
            if tensor is None or original is None:
                continue
            parts += 1
            try:
                own = read_tensor(original, entry.material.structure, name)
            except UserError:
                asymmetric += 1  # the average over the group has taken a part of it away
                continue
            scale = max(1.0, float(np.abs(own).max()))
            error = float(np.abs(tensor - own).max()) / scale
            worst = max(worst, error)
            if error > EQUAL:
                off.append(f"{material_id} {entry.material.formula} {name}: {error:.1e}; "
                           + why_off(tensor, own, original, entry.material.structure))  # fmt: skip
            wrong = np.abs(np.array(stored[material_id][name]) - own).max() / scale
            if wrong > NAIVE:
                naive += 1
                naive_by_material.add(material_id)
    print(f"{len(truth) + len(kept['impossible'])} materials with a usable tensor; "
          f"{len(kept['impossible'])} have no document (axes of equal length); "
          f"{len(found.items)} placed, {len(found.refused)} refused")  # fmt: skip
    for reason, n in found.refused.counts().items():
        print(f"  {n:5d} refused: {reason}")
    for reason, n in found.partly.counts().items():
        print(f"  {n:5d} in part: {reason}")
    print(f"{asymmetric} originals break their own point group by more than 5 %: not compared")
    print(f"{parts - asymmetric} tensors compared: {parts - asymmetric - len(off)} equal the "
          f"original to {EQUAL:.0e} of its largest element, {len(off)} differ by more, at most by "
          f"{worst:.1e}:")  # fmt: skip
    for line in off:
        print(f"    {line}")
    print(f"a naive pairing would have got {naive} of them wrong by more than 5 % "
          f"({len(naive_by_material)} of {len(found.items)} materials)")  # fmt: skip


def why_off(tensor: np.ndarray, own: np.ndarray, original: Any, structure: Any) -> str:
    """How far the original breaks its symmetry, how inexact emmet-core's average of it is, and how
    far the tensor that came back is from that average."""
    from pymatgen.core.tensors import Tensor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    from screening.symmetry import point_group_rotations, project

    scale = max(1.0, float(np.abs(own).max()))
    broken = np.abs(np.array(original) - own).max() / scale
    found = SpacegroupAnalyzer(structure, 0.1).get_symmetry_operations(cartesian=True)
    rotations = np.array([operation.rotation_matrix for operation in found])
    skew = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max()
    average = np.asarray(Tensor(original).fit_to_structure(structure))
    apart = np.abs(tensor - project(average, point_group_rotations(structure))).max() / scale
    return (
        f"the original breaks its point group by {broken:.1e}, the {len(rotations)} operations "
        f"of the average are off by {skew:.1e}; it differs from the average by {apart:.0e}"
    )


def faults(documents: Path, work: Path) -> None:
    """Every second request goes wrong; some documents are malformed."""
    from screening.pulling import PullContext
    from screening.settings import MaterialsProjectSource
    from screening.sources import pull_candidates

    summary = []
    with documents.open() as file:
        for line in file:
            document = json.loads(line).get("summary")
            if document and document["is_stable"]:
                summary.append(document)
    for number, spoil in enumerate((
        lambda d: d.pop("structure"),
        lambda d: d["structure"]["sites"].clear(),
        lambda d: d["structure"]["lattice"].update(matrix=[[1, 0], [0, 1]]),
        lambda d: d["structure"]["sites"][0]["species"][0].update(occu=0.5),
        lambda d: d.update(nsites=999),
        lambda d: d.pop("material_id"),
        lambda d: d.update(deprecated=None, band_gap="wide"),
    )):  # fmt: skip
        spoil(summary[100 + number])
    for number, name in enumerate(("mp-aaabbcde", "xx_9~f", "mvc-12", "agm001234567", "Ω/7")):
        summary[500 + number]["material_id"] = name
    kinds = ("drop", "429", "502", "half", "half-silent", "short", "503", "empty", "twice", "500")
    seen: Counter[str] = Counter()

    def fault(n: int, request: mp_server.Request) -> str:
        if n % 2 or request.route == "heartbeat":
            return ""
        kind = kinds[sum(seen.values()) % len(kinds)]
        seen[kind] += 1
        return kind

    os.environ["MP_API_KEY"] = mp_server.KEY
    start = time.perf_counter()
    with mp_server.MpServer(summary, fault=fault) as server:
        context = PullContext(cache=work / f"cache-{time.time_ns()}")
        found = pull_candidates(MaterialsProjectSource(endpoint=server.url), context)
        requests = len(server.requests)
        server.version, server.fault = "2026.11.01", lambda _n, _request: ""
        for document in summary[2000 : 2000 + N_CHANGED]:
            document["last_updated"] = "2026-10-20T00:00:00Z"
        later = pull_candidates(MaterialsProjectSource(endpoint=server.url), context).provenance
    ids = [m.material_id for m in found.items]
    wanted = {str(d["material_id"]) for d in summary if d.get("material_id")}
    lost = wanted - set(ids) - {i for r in found.refused.counts() for i in found.refused.ids(r)}
    print(f"{len(summary)} documents, {requests} requests, faults {dict(seen)}: {len(ids)} taken, "
          f"{len(found.refused)} refused, {len(lost)} lost, {len(ids) - len(set(ids))} twice; "
          f"{time.perf_counter() - start:.1f} s")  # fmt: skip
    for reason, n in found.refused.counts().items():
        print(f"  {n:5d} refused: {reason}")
    print(f"a new database version in which {N_CHANGED} documents have changed: "
          f"{later['pages_fetched']} pages without structures and {later['documents_fetched']} "
          f"structures fetched")  # fmt: skip


def overlap(_documents: Path, work: Path) -> None:
    """The filters at full size; some of what is known is a candidate, described anew."""
    del work
    import pandas as pd

    from screening.filters import filter_candidates
    from screening.material import Material
    from screening.settings import FilterSettings
    from screening.tables import read_candidates
    from screening.tasks import get_task

    offered = read_candidates(DATA / "stable_nonmetals.parquet")[: N_CANDIDATES - N_TWICE]
    columns = ["material_id", "structure"]
    frame = pd.read_parquet(DATA / "dielectric_tensors.parquet", columns=columns)
    known = [Material(r.material_id, r.structure) for r in frame.itertuples()]
    missing = N_LABELS - len(known)
    chosen = offered[:: len(offered) // missing][:missing]
    random = np.random.default_rng(0)
    anew = [Material(f"again {m.material_id}", described_anew(m, random)) for m in chosen]
    twice = [m for m in offered[1::9] if m not in chosen][:N_TWICE]
    offered += [Material(f"twice {m.material_id}", described_anew(m, random), band_gap=m.band_gap)
                for m in twice]  # fmt: skip
    print(f"known: {len(known)} of the table, {len(anew)} candidates in another cell, orientation, "
          f"origin, order and volume; {len(twice)} candidates are offered again in the same way",
          flush=True)  # fmt: skip
    elements = {"encoder": {e for m in offered for e in m.elements}}
    settings = FilterSettings(max_sites=500, min_band_gap=0)
    start, cpu = time.perf_counter(), time.process_time()
    at: dict[str, float] = {}

    def watch(what: str, done: int, total: int) -> None:
        if not done:
            at[what] = time.process_time() - cpu
            print(f"  {at[what]:6.0f} CPU s  {what}: {total} candidates", flush=True)

    pool = filter_candidates(
        offered, get_task("high-k"), settings, elements, [*known, *anew], watch
    )
    print(f"{len(offered)} candidates × {len(known) + len(anew)} known: "
          f"{time.process_time() - cpu:.0f} s CPU, {time.perf_counter() - start:.0f} s wall, peak "
          f"{peak():.0f} MiB; {pool.summary()}")  # fmt: skip
    left = {m.material_id for m in pool.candidates}
    missed = [m.material_id for m in chosen if m.material_id in left]
    print(f"of the {len(chosen)} that are known under another description {len(missed)} were not "
          f"recognised: {', '.join(missed[:10]) or '-'}")  # fmt: skip
    both = [m.material_id for m in twice if {m.material_id, f"twice {m.material_id}"} <= left]
    print(f"of the {len(twice)} that are offered again {len(both)} were not recognised: "
          f"{', '.join(both[:10]) or '-'}")  # fmt: skip
    same_id = {m.material_id for m in known} & {m.material_id for m in offered}
    print(f"{len(same_id)} candidates have the id of a known one; {len(same_id & left)} of these "
          "have another space group now and are left")  # fmt: skip


def described_anew(material: Any, random: np.random.Generator) -> Any:
    """The same crystal in another cell, orientation, origin, order of atoms, and 3 % larger."""
    from pymatgen.core import Structure

    structure = material.structure
    cell = np.eye(3, dtype=int)
    for _ in range(3):  # shears keep the determinant at 1
        i, j = random.choice(3, 2, replace=False)
        cell[i] += random.choice([-1, 1]) * cell[j]
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    lattice = 1.01 * (cell @ structure.lattice.matrix) @ turn
    order = random.permutation(len(structure))
    positions = (structure.frac_coords[order] + random.random(3)) @ np.linalg.inv(cell)
    return Structure(lattice, [structure[i].specie for i in order], positions)


PARTS = {
    "sentences": mp_command.sentences,
    "leak": mp_command.leak,
    "candidates": candidates,
    "frames": frames,
    "faults": faults,
    "overlap": overlap,
}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where documents are kept")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    if not (DATA / "dielectric_tensors.parquet").is_file():
        raise SystemExit(f"SCREEN_DATA ({DATA}) holds no dielectric_tensors.parquet; nothing to do")
    arguments.work.mkdir(parents=True, exist_ok=True)
    documents = build(arguments.work)
    if len(arguments.only) > 1:  # each in a process of its own, so that its memory is its own
        for name in arguments.only:
            words = [sys.executable, __file__, "--work", str(arguments.work), "--only", name]
            subprocess.run(words, check=True)
        return
    (name,) = arguments.only
    print(f"{name}: {platform.platform()}, {os.cpu_count()} cores, Python "
          f"{platform.python_version()}", flush=True)  # fmt: skip
    PARTS[name](documents, arguments.work)
    print(f"peak memory of this process: {peak():.0f} MiB\n", flush=True)


if __name__ == "__main__":
    main()
