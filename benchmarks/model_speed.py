"""Time and memory of encoding, force constants, training and screening, with each step's share.

    python benchmarks/model_speed.py --data ../shared/data

Screening takes cached candidates; where fewer than 14,000 are cached they are taken again. Each
size runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (1_000, 3_500, 14_000)
SAMPLE = 30
STEPS = {
    "symmetry and features from the cache": ("cache.py", "reduced"),
    "inputs": ("inputs.py", "inputs"),
    "networks": ("dielectric.py", "__call__"),
    "exact symmetry": ("symmetry.py", "project"),
    "tensors and error bars": ("ensemble.py", "finished"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--screen", type=int, help="measure the screening of so many, as JSON")
    parser.add_argument("--without-training", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.screen:
        print(json.dumps(screening(options.data, options.screen)))
        return
    from models.protocol.card import hardware

    print(f"{hardware()}\n")
    encoding(options.data)
    for size in SIZES:
        command = [sys.executable, __file__, "--data", str(options.data), "--screen", str(size)]
        report(json.loads(subprocess.check_output(command, text=True).splitlines()[-1]))
    if not options.without_training:
        training(options.data)


def candidates(data: Path) -> list[Any]:
    """Candidates of at most 20 atoms with supported elements, smallest first."""
    from models.encoder import supported_elements
    from screening.tables import read_candidates

    known = set(supported_elements("7net-l3i5"))
    pool = [
        m
        for m in read_candidates(data / "stable_nonmetals.parquet")
        if m.n_sites <= 20 and set(m.elements) <= known
    ]
    return sorted(pool, key=lambda m: (m.n_sites, m.material_id))


def encoding(data: Path) -> None:
    """Encoding and force constants of a sample, with nothing in the cache."""
    from models.cache import FeatureCache, ForceConstantCache

    pool = candidates(data)
    chosen = [pool[i] for i in np.random.default_rng(0).permutation(len(pool))[:SAMPLE]]
    with tempfile.TemporaryDirectory() as directory:
        cache = FeatureCache("7net-l3i5", Path(directory))
        assert cache.encoder.layout.width  # the potential is loaded before the clock starts
        wall, cpu = time.perf_counter(), time.process_time()
        found = cache.reduced([m.structure for m in chosen])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        atoms = sum(len(c.owner) for c, _ in found)
        print(f"encoding: {SAMPLE} candidates, {atoms} atoms: {wall:.1f} s wall, {cpu:.1f} s CPU, "
              f"{cpu / atoms * 1e3:.0f} ms CPU per atom")  # fmt: skip
        cells = [c.cell for c, _ in found if len(c.owner) <= 10][:10]
        forces = ForceConstantCache.beside(cache)
        wall, cpu = time.perf_counter(), time.process_time()
        list(forces.compute(cells))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"force constants: {len(cells)} crystals of at most 10 atoms: {wall:.1f} s wall, "
              f"{cpu:.1f} s CPU")  # fmt: skip


def screening(data: Path, size: int) -> dict[str, Any]:
    """First pass over cached candidates."""
    from models.cache import FeatureCache
    from models.shipped import shipped
    from screening.symmetry import cell_of

    ensemble, cache = shipped(), FeatureCache("7net-l3i5")
    pool = candidates(data)
    cached = [m for m in pool if cache.reduced_store.path(cell_of(m.structure)).exists()]
    chosen = (cached * (size // max(1, len(cached)) + 1))[:size]
    structures, gaps = [m.structure for m in chosen], [m.band_gap for m in chosen]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    profile = cProfile.Profile()
    wall, cpu = time.perf_counter(), time.process_time()
    found = ensemble.predict(structures, "PBE", cache, None, gaps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert found.static.shape[1] == size
    few = slice(0, min(size, 1_000))
    profile.runcall(ensemble.predict, structures[few], "PBE", cache, None, gaps[few])
    times = {}
    rows = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    whole = max(row[3] for row in rows.values())
    for step, (file, function) in STEPS.items():
        own = [r[3] for (f, _, n), r in rows.items() if f.endswith(file) and n == function]
        times[step] = sum(own) / whole
    return {
        "size": size, "distinct": len({m.material_id for m in chosen}), "wall_s": wall,
        "cpu_s": cpu, "mib_before": before / 1024, "mib_after": after / 1024, "shares": times,
    }  # fmt: skip


def report(found: dict[str, Any]) -> None:
    """One screening in words."""
    print(
        f"screening {found['size']:,} cached candidates ({found['distinct']:,} distinct): "
        f"{found['wall_s']:.1f} s wall, {found['cpu_s']:.1f} s CPU; peak memory "
        f"{found['mib_before']:.0f} MiB before, {found['mib_after']:.0f} MiB after"
    )
    shares = ", ".join(f"{step} {share:.0%}" for step, share in found["shares"].items())
    print(f"    of which {shares}")


def training(data: Path) -> None:
    """Both networks of the ensemble on the training materials of split 1."""
    from models.cache import FeatureCache
    from models.protocol.splits import published_split
    from models.protocol.table import TensorTable
    from models.protocol.variants import EnsembleVariant, variants

    table = TensorTable.read(data / "dielectric_tensors.parquet")
    split = published_split(table.material_ids, 1)
    variant = variants(FeatureCache("7net-l3i5"))["physics"]
    assert isinstance(variant, EnsembleVariant)
    ensemble, wall, cpu = variant.trained(table, split.train, split.validation, 1)
    print(
        f"training {variant.settings.members} members on {len(split.train)} materials from cached "
        f"features and force constants: {wall:.0f} s wall, {cpu:.0f} s CPU, the steps "
        f"{ensemble.metrics['seconds']:.0f} s wall"
    )


if __name__ == "__main__":
    main()
