"""The report is one safe file that says what the view says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from plotly.offline import get_plotlyjs

from results.methods import bibtex, methods
from results.report import render_report, write_report
from results.text import fixed, number
from screening.errors import UserError

VOID = {"meta", "br", "link", "img", "input", "hr"}
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)><!--\"'&{{ 7*7 }}"


class Page(HTMLParser):
    """Tags with their attributes, and the text of each element with an id, table and script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.by_id: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag in VOID:
            return
        self._open.append((tag, attributes.get("id")))
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.rows.setdefault(self._section(), []).append([])
        if tag in ("td", "th"):
            self.rows[self._section()][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag, f"{tag} closes what is open"

    def handle_data(self, data: str) -> None:
        names = [tag for tag, _ in self._open]
        if "script" in names:
            self.scripts[-1] += data
            return
        for _, name in self._open:
            if name:
                self.by_id[name] = self.by_id.get(name, "") + data
        if "td" in names or "th" in names:
            self.rows[self._section()][-1][-1] += data

    def _section(self) -> str:
        return [name for _, name in self._open if name][-1]

    @property
    def text(self) -> str:
        return " ".join(self.by_id.values())

    @property
    def data(self) -> Any:
        (text,) = (script for script in self.scripts if script.startswith('{"figures"'))
        return json.loads(text)


LIBRARY = "/** plotly.js v0, left out */"
REAL_LIBRARY = get_plotlyjs()


@pytest.fixture(autouse=True, scope="module")
def without_library() -> Iterator[None]:
    """Reports without plotly.js; reading five megabytes takes a test half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plotly.offline.get_plotlyjs", lambda: LIBRARY)
        yield


@pytest.fixture(scope="module")
def view(example: Any) -> Any:
    return example.view()


@pytest.fixture(scope="module")
def page(view: Any) -> Page:
    return Page(render_report(view))


def test_the_file_is_written_whole(view: Any, tmp_path: Path) -> None:
    path = write_report(view, tmp_path / "alpha" / "report.html")
    assert path.read_text(encoding="utf-8") == render_report(view)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(UserError, match="Cannot write"):
        write_report(view, path / "report.html")


def test_headline(view: Any) -> None:
    text = re.sub(r"\s+", " ", re.sub("<[^>]+>", "", render_report(view).split("<nav")[0]))
    best, known = view.best_validated, view.best_known
    name, gap = f"{best['formula']} ({best['material_id']})", fixed(best["band_gap"])
    assert f"Best: {name}: Eg {gap} eV" in text
    assert f"Eg·ε̄ = {number(best['merit'])} eV" in text
    assert f"That is {best['merit'] / known['merit']:.2f} times the best known at the start" in text
    beaten = (view.validated["merit"] > known["merit"]).sum()
    assert beaten == 1
    assert "1 validated material beats it" in text
    assert "calculations24 validated15 refused9" in text


def test_final_table_lists_all_validated_materials_in_order(view: Any, page: Page) -> None:
    header, *rows = page.rows["validated"]
    assert header[:3] == ["material", "Eg·ε̄ (eV)", "Eg (eV)"]
    assert len(rows) == len(view.validated)
    for cells, (_, row) in zip(rows, view.validated.iterrows(), strict=True):
        assert cells[0] == f"{row['formula']} {row['material_id']}"
        assert cells[1:5] == [
            number(row["merit"]), fixed(row["band_gap"]), number(row["epsilon"]),
            fixed(row["lambda_1"]),
        ]  # fmt: skip


@pytest.mark.parametrize("round_number", [1, 2, 3])
def test_round_tables(view: Any, page: Page, round_number: int) -> None:
    rows = page.rows[f"round-{round_number}"][2:]
    expected = view.calculations[view.calculations["round"] == round_number]
    assert len(rows) == len(expected) == 8
    for cells, (_, row) in zip(rows, expected.iterrows(), strict=True):
        assert cells[0] == f"{row['formula']} {row['material_id']}"
        assert cells[3] == f"{number(row['epsilon_mean'])} ± {number(row['epsilon_std'], 2)}"
        assert cells[6] == number(row["epsilon"])
        assert cells[8].split() == f"{row['verdict']} {row['detail']}".split()


def test_rounds_at_a_glance(view: Any, page: Page) -> None:
    header, *rows = page.rows["rounds"]
    glance = pd.DataFrame(rows, columns=header)
    assert glance["picked"].tolist() == ["8", "8", "8"]
    counts = view.validated["round"].value_counts().sort_index()
    assert glance["validated"].tolist() == [str(count) for count in counts]
    best = max(view.best_known["merit"], view.validated["merit"].max())
    assert glance["best so far"].iloc[-1] == number(best)
    assert glance["test.mae"].tolist() == ["1.30", "0.650", "0.433"]


def test_figures_hold_the_data_and_captions_the_numbers(view: Any, page: Page) -> None:
    figures = page.data["figures"]
    assert list(figures) == ["landscape", "progress", "parity", "elements"]
    names = [trace.get("name", "") for trace in figures["landscape"]["data"]]
    assert {"known at the start", "candidates (predicted)", "validated, round 3"} <= set(names)
    cloud = figures["landscape"]["data"][names.index("candidates (predicted)")]
    assert len(cloud["x"]) == len(cloud["text"]) == len(view.candidates)
    error = (view.validated["epsilon_mean"] - view.validated["epsilon"]).abs()
    inside = (error <= 1.64 * view.validated["epsilon_std"]).mean()
    assert f"Mean absolute error {number(error.mean())}" in page.by_id["figure-parity"]
    assert f"covers {inside:.0%}" in page.by_id["figure-parity"]
    assert "800 candidates as round 3 predicts them" in page.by_id["figure-landscape"]


def test_settings_can_be_read_back(view: Any, page: Page) -> None:
    assert yaml.safe_load(page.by_id["config"]) == view.config
    assert "2.13.0" in page.by_id["versions"]
    assert "42" in page.by_id["settings"]
    steps = {row[0]: row[1:] for row in page.rows["settings"]}
    assert steps["train"][:2] == ["5 min 12 s", "10 min"]


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "data", "action", "poster", "xlink:href"):
            assert name not in attributes, (tag, attributes)
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        target = attributes.get("href")
        assert target is None or target.startswith("#")
        if (target or "").startswith("#"):
            assert (target or "")[1:] in page.by_id
    (policy,) = (
        attributes["content"]
        for _, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    own = [script for script in page.scripts if "plotly.js v" not in script]
    assert len(own) == len(page.scripts) - 1 == 2
    assert not any("http" in script for script in own)
    assert "showSendToCloud: false" in own[-1]


def test_text_from_outside_stays_text(example: Any) -> None:
    calculations = example.calculations("high-k", 2, 4, 5)
    known, candidates = example.table(20, seed=3), example.predictions("high-k", 20)
    for table in (calculations, known, candidates):
        table["material_id"] = NASTY
        table.loc[::2, "formula"] = NASTY
    calculations["detail"] = NASTY
    calculations["functional"] = NASTY
    tables = {"calculations": calculations, "known": known, "candidates": candidates}
    words = {"name": NASTY, "status": NASTY, "config": {NASTY: [NASTY]}, "versions": {NASTY: NASTY}}
    facts = {"metrics": {1: {NASTY: 1.0}}, "seconds": {1: {NASTY: {"wall_s": 1.0, "cpu_s": 1.0}}}}
    text = render_report(example.view(rounds=2, **tables, **words, **facts))
    page = Page(text)
    assert len(page.scripts) == 3
    assert not any("onerror" in attributes or tag == "img" for tag, attributes in page.tags)
    assert yaml.safe_load(page.by_id["config"]) == {NASTY: [NASTY]}
    assert page.rows["validated"][1][0].endswith(NASTY)
    # Plotly reads its own small HTML out of texts: there the markup must be escaped once more.
    for figure in page.data["figures"].values():
        for trace in figure["data"]:
            for entry in trace.get("text", []):
                assert "<script" not in str(entry)
                assert "<img" not in str(entry)
        for annotation in figure["layout"].get("annotations", []):
            assert "<script" not in annotation["text"]


def test_secrets_stay_at_home(example: Any) -> None:
    config = {
        "ledger": "postgresql://screen:hunter2@db.example/screen",
        "sources": [{"api_key": "k" * 32, "endpoint": None}],
        "mp": {"token": "t0ken", "tokens_per_day": 5},
    }
    text = render_report(example.view(config=config))
    for secret in ("hunter2", "k" * 32, "t0ken"):
        assert secret not in text
    assert "postgresql://screen:•••@db.example/screen" in text
    assert "tokens_per_day: 5" in text


def nothing_known(example: Any) -> dict[str, Any]:
    return {"known": example.table(10, seed=3).assign(ionic=None)}


def all_refused(example: Any) -> dict[str, Any]:
    calculations = example.calculations("high-k", 1, 6, 5)
    return {
        "calculations": calculations.assign(verdict="timeout", electronic=None, ionic=None),
        "rounds": 1,
    }


def no_round(example: Any) -> dict[str, Any]:
    return {
        "rounds": 0, "calculations": pd.DataFrame(), "candidates": pd.DataFrame(),
        "candidates_round": None, "status": "running", "finished_at": None,
    }  # fmt: skip


def round_just_begun(example: Any) -> dict[str, Any]:
    return {**no_round(example), "rounds": 1, "metrics": {}, "seconds": {}}


def waiting(example: Any) -> dict[str, Any]:
    calculations = example.calculations("high-k", 1, 6, 5)
    open_ones = {"verdict": None, "detail": None, "electronic": None, "ionic": None}
    return {"calculations": calculations.assign(**open_ones, status="submitted"), "rounds": 1}


def nothing_at_all(example: Any) -> dict[str, Any]:
    return {
        **no_round(example), "known": pd.DataFrame(), "config": {}, "versions": {},
        "created_at": None,
    }  # fmt: skip


@pytest.mark.parametrize("task", ["high-k", "anisotropy"])
@pytest.mark.parametrize(
    ("stage", "sentence", "figures"),
    [
        (nothing_known, "there is no mark to beat", 4),
        (all_refused, "No material has been validated yet. The mark to beat", 2),
        (no_round, "No material has been validated yet. The mark to beat", 1),
        (round_just_begun, "Nothing has been picked in this round yet", 1),
        (waiting, "waiting6", 2),
        (nothing_at_all, "there is no mark to beat", 0),
    ],
)
def test_unfinished_campaigns(
    example: Any, task: str, stage: Any, sentence: str, figures: int
) -> None:
    text = render_report(example.view(task, **stage(example)))
    page = Page(text)
    assert sentence in re.sub(r"\s+", " ", re.sub("<[^>]+>", "", text))
    assert len(page.data["figures"]) == figures
    assert not re.search(r"\b(nan|None|NaT|inf)\b", page.text)


def test_the_methods_are_those_of_the_campaign(example: Any) -> None:
    """Of the model that it used, and of the rounds as a budget left them."""
    config = dict(example.view().config)
    ours, published = (
        example.view(config={**config, "model": {"members": 5, "encoder": "7net-l3i5", **name}})
        for name in ({}, {"name": "goectp-icom+pretrained", "learning_rate": 0.003})
    )
    assert "5 gated equivariant readouts" in methods(ours) and "hua2024" not in bibtex(ours)
    assert "5 networks of the published model goectp-icom+pretrained" in methods(published)
    assert "0.003" not in methods(published) and "gated" not in methods(published)
    assert "@misc{hua2024," in bibtex(published)
    calculations = example.calculations("high-k", 2, 6, 5).iloc[:8]
    acquisition = {"acquisition": {"kind": "greedy"}}
    cut = example.view(config=config | acquisition, rounds=2, calculations=calculations)
    assert "In 2 rounds of 2 to 6 candidates each" in methods(cut)


def test_a_material_without_band_gap_is_validated_all_the_same(example: Any) -> None:
    calculations = example.calculations("high-k", 1, 6, 5).assign(band_gap=None)
    page = Page(render_report(example.view(rounds=1, calculations=calculations)))
    validated = (calculations["verdict"] == "accepted").sum()
    assert len(page.rows["validated"]) == 1 + validated
    assert "nan" not in page.by_id["validated"]


def test_a_large_campaign_stays_a_small_file(example: Any) -> None:
    text = render_report(example.view(n_known=4000, n_candidates=14_000))
    assert len(text.encode()) + len(REAL_LIBRARY.encode()) < 8_000_000
    (cloud, *_) = Page(text).data["figures"]["landscape"]["data"]
    assert (cloud["type"], len(cloud["x"])) == ("scattergl", 14_000)


def test_the_whole_library_is_inside(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: REAL_LIBRARY)
    text = render_report(example.view(n_known=5, n_candidates=5))
    assert REAL_LIBRARY in text
    assert "</script" not in REAL_LIBRARY.lower()


def test_same_view_same_bytes(example: Any) -> None:
    assert render_report(example.view()) == render_report(example.view())
