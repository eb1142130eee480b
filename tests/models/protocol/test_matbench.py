"""Matbench's dielectric task: its table, its folds and its record."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.cache import FeatureCache
from models.papers.training import Budget
from models.protocol.matbench import (
    folds_like_matbench,
    matbench_record,
    names_of,
    read_matbench,
    write_record,
)
from models.protocol.refractive import N_FOLDS, IndexTable, run_folds
from screening.errors import UserError
from screening.material import KnownMaterial

NAME = "goectp+1-layer"


@pytest.fixture(scope="module")
def path(builtin: list[KnownMaterial], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table like Matbench's, of built-in crystals."""
    rows: list[Any] = [
        [k.material.structure.as_dict(), float(np.trace(k.tensors.electronic) / 3) ** 0.5]
        for k in builtin[:23]
    ]
    content = {"index": list(range(len(rows))), "columns": ["structure", "n"], "data": rows}
    path = tmp_path_factory.mktemp("matbench") / "matbench_dielectric.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    return path


@pytest.fixture(scope="module")
def table(path: Path) -> IndexTable:
    return read_matbench(path)


def test_folds_are_those_of_matbench() -> None:
    names, folds = np.array(names_of(4764)), folds_like_matbench(4764)
    # As in records of the task: materialsproject/matbench, documentation of MatbenchBenchmark.
    first = ["mb-dielectric-0008", "mb-dielectric-0010", "mb-dielectric-0019", "mb-dielectric-0025"]
    assert names[folds == 0][:4].tolist() == first
    assert np.bincount(folds).tolist() == [953, 953, 953, 953, 952]


def test_its_table_is_read(
    table: IndexTable, path: Path, builtin: list[KnownMaterial], tmp_path: Path
) -> None:
    names = [k.material.material_id for k in table.known]
    assert names[0] == "mb-dielectric-01" and names[-1] == "mb-dielectric-23"
    assert [k.material.formula for k in table.known] == [k.material.formula for k in builtin[:23]]
    means = [np.trace(k.tensors.electronic) / 3 for k in builtin[:23]]
    assert np.allclose(table.indices**2, means)
    plain = tmp_path / "plain.json"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert np.array_equal(read_matbench(plain).indices, table.indices)
    for name, content in (("cut", path.read_bytes()[:99]), ("other", b'{"columns": ["n"]}')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is not Matbench's dielectric table"):
            read_matbench(tmp_path / name)
    with pytest.raises(UserError, match="No such file"):
        read_matbench(tmp_path / "nowhere")


def test_from_the_table_to_the_record(
    table: IndexTable, cache: FeatureCache, tmp_path: Path
) -> None:
    def run(*folds: int) -> None:
        run_folds(NAME, table, cache, Budget(epochs=1), tmp_path, lambda _: None, folds)

    run(0, 1, 2, 3)
    with pytest.raises(UserError, match="Fold 4 has no prediction for mb-dielectric-"):
        write_record(NAME, table, tmp_path)
    run(4)
    record = json.loads(write_record(NAME, table, tmp_path).read_text())
    results = record["tasks"]["matbench_dielectric"]["results"]
    tested = [name for fold in results.values() for name in fold["data"]]
    assert sorted(tested) == [k.material.material_id for k in table.known]


def test_who_has_the_table_gets_a_record(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from refractive_index import main

    command = ["refractive_index.py", NAME, "--budget", "0.1", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--matbench", str(path)])
    main()
    record = tmp_path / NAME / "matbench.json"
    assert capsys.readouterr().out.rstrip().endswith(f"{NAME}: {record}")
    assert json.loads(record.read_text())["tasks"]["matbench_dielectric"]["results"]
    monkeypatch.setattr(sys, "argv", [*command, "--matbench", "nowhere.json.gz"])
    with pytest.raises(SystemExit, match=r"Error: nowhere.json.gz is not Matbench's"):
        main()


def test_a_record_is_as_matbench_reads_it(table: IndexTable, tmp_path: Path) -> None:
    names = np.array([k.material.material_id for k in table.known])
    true = dict(zip(names, table.indices, strict=True))
    folds = [{k: true[k] + 0.2 for k in names[table.folds == n]} for n in range(N_FOLDS)]
    matbench_record(folds, table, tmp_path / "results.json")
    record = json.loads((tmp_path / "results.json").read_text())
    assert set(record) == {
        "@module", "@class", "version", "benchmark_name", "tasks", "user_metadata", "datestamp",
        "hash",
    }  # fmt: skip
    task = record["tasks"]["matbench_dielectric"]
    assert list(task["results"]) == [f"fold_{n}" for n in range(N_FOLDS)]
    fold = task["results"]["fold_3"]
    assert set(fold) == {"data", "parameters", "scores"}
    assert fold["data"] == folds[3]
    assert fold["scores"]["mae"] == pytest.approx(0.2)
    # The hash is that of everything else, keys in order, as Matbench checks it.
    digest = record.pop("hash")
    assert digest == hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    last, one = folds[4], min(folds[4])
    for bad, words in (
        (folds[:4], "5 folds, not 4"),
        ([*folds[:4], {**last, **folds[0]}], "is not tested in fold 4"),
        ([*folds[:4], {k: n for k, n in last.items() if k != one}], f"no prediction for {one}"),
        ([*folds[:4], {**last, one: float("nan")}], "no finite number"),
    ):
        with pytest.raises(UserError, match=words):
            matbench_record(bad, table, tmp_path / "bad.json")
    assert not (tmp_path / "bad.json").exists()
