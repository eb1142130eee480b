"""The rules that keep the packages apart, read off the imports in the source."""

from __future__ import annotations

import ast
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("screening", "models", "dft", "results", "flows")
LONGEST_FILE = 400

FORBIDDEN = {
    "screening": {"models", "dft", "results", "flows", "torch", "prefect", "atomate2"},
    "models": {"dft", "results", "flows"},
    "dft": {"models", "results", "flows"},
    "results": {"models", "dft", "flows"},
    "flows": set(),
}
"""What a package must never import: the table of the design."""

SLOW = (
    "torch", "pandas", "pymatgen", "prefect", "sevenn", "e3nn", "scipy", "matplotlib", "plotly",
    "sqlalchemy",
)  # fmt: skip
"""What ``screen --help`` must not wait for."""


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Every module that a file imports, with its line and whether only type checkers do."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [node.module or ""]
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
            names = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
        for name in names:
            yield name, node.lineno, id(node) in typing_only


def top(name: str) -> str:
    return name.partition(".")[0]


def test_every_file_is_looked_at() -> None:
    """Guards the other tests, which would pass on nothing."""
    for package in PACKAGES:
        assert len(sources(package)) >= 5
    everything = [
        (top(name), p.parent.name) for q in PACKAGES for p in sources(q) for name, *_ in imports(p)
    ]
    for needed in (("torch", "models"), ("prefect", "flows"), ("screening", "dft")):
        assert needed in everything


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_keep_to_the_table(package: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for name, line, _ in imports(path)
        if top(name) in FORBIDDEN[package]
    ]
    assert not broken, "\n".join(broken)


def test_packages_do_not_import_each_other_in_circles() -> None:
    edges = {
        package: {top(n) for p in sources(package) for n, *_ in imports(p)}
        & set(PACKAGES) - {package}
        for package in PACKAGES
    }
    order: list[str] = []
    while len(order) < len(PACKAGES):
        free = [p for p in PACKAGES if p not in order and edges[p] <= set(order)]
        assert free, f"a circle among {set(PACKAGES) - set(order)}: {edges}"
        order += free
    assert order[0] == "screening"
    assert order[-1] == "flows"


def test_modules_do_not_import_each_other_in_circles() -> None:
    """At import time; what is imported inside functions or for types only cannot deadlock."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sources(package)
    }

    def at_import(path: Path) -> set[str]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        outer = {
            node.lineno
            for statement in tree.body
            if isinstance(statement, ast.Import | ast.ImportFrom | ast.Try)
            for node in ast.walk(statement)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        found = {
            name for name, line, typing_only in imports(path) if line in outer and not typing_only
        }
        return found & set(modules)

    edges = {name: at_import(path) - {name} for name, path in modules.items()}
    left = set(modules)
    while left:
        free = {m for m in left if not edges[m] & left}
        assert free, f"a circle among {sorted(left)}"
        left -= free


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): length
        for path in itertools.chain.from_iterable(sources(p) for p in PACKAGES)
        if (length := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    }
    assert not long


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))


HELP = """
import contextlib, io, json, sys
sys.argv = ["screen", "--help"]
from flows.cli import main
out = io.StringIO()
try:
    with contextlib.redirect_stdout(out):
        main()
except SystemExit as error:
    status = error.code
print(json.dumps({"status": status, "text": out.getvalue(), "modules": sorted(sys.modules)}))
"""


def test_help_comes_without_heavy_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["status"]
    assert "screen run --task high-k" in found["text"]
    assert not {top(name) for name in found["modules"]} & set(SLOW)
