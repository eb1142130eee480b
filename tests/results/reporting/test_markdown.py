"""Pages of the UI: the numbers of the view, in tables that fit a telephone."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from results import markdown
from results.text import number

WIDEST = 46
"""Characters of a row without its spaces that have room on a telephone."""
PAGES = {
    "campaign": lambda view: markdown.campaign_page(view, "report.html", None),
    "round": lambda view: markdown.round_page(view, 1),
    "candidates": markdown.candidates_page,
    "calculations": markdown.calculations_page,
    "model": markdown.model_page,
}
ERRORS = {n: {"static": {"mae_9": 1.0 + n / 100, "within_25": 0.5}} for n in range(1, 6)}
PICTURES = {"campaign": 2, "model": 2}
"""How many a page has while its campaign has results."""


def rows(page: str) -> list[list[str]]:
    """Cells of all rows of all tables."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("task", ["high-k", "anisotropy"])
@pytest.mark.parametrize("name", list(PAGES))
def test_rows_are_whole_and_narrow(example: Any, task: str, name: str) -> None:
    """Every row has as many cells as its head, and no line of cells is wider than a telephone."""
    page = PAGES[name](example.view(task=task, metrics=ERRORS))
    tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert tables
    assert page.count("data:image/png;base64,iVBORw0KGgo") == PICTURES.get(name, 0)
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    if name == "model":
        return  # its first column is made of words, which wrap
    for row in rows(page):
        longest = [max(re.split("<br>| ", cell), key=len) for cell in row]
        assert sum(map(len, longest)) <= WIDEST, row


def test_numbers_are_the_views(example: Any) -> None:
    view = example.view()
    first = PAGES["campaign"](view)
    for row in view.validated.head(markdown.BEST).to_dict("records"):
        assert f"**{number(row['merit'])}**" in first and markdown.formula(row) in first
    picked = view.calculations[view.calculations["round"] == 1].to_dict("records")
    page = PAGES["round"](view)
    for row in picked:
        assert f"{number(row['epsilon_mean'])} ± {number(row['epsilon_std'], 2)}" in page
    refused = [row for row in picked if row["verdict"] != "accepted"]
    assert all(row["detail"] in page for row in refused)
    assert page.count("✗") == len(refused) and page.count("✓") == len(picked) - len(refused)
    page = PAGES["model"](example.view(metrics=ERRORS))
    assert ["MAE, all 9 elements", "1.03", "1.04", "1.05"] in rows(page)
    page = PAGES["candidates"](view)
    best = view.candidates.sort_values("rank").head(markdown.TOP).to_dict("records")
    places = [page.index(f"{row['rank']:.0f}. {markdown.formula(row)}") for row in best]
    assert best and places == sorted(places)
    for row in best:
        assert f"{number(row['epsilon_mean'])} ± {number(row['epsilon_std'], 2)}" in page
    page = PAGES["calculations"](view)
    assert all(f"`{key[:8]}`" in page for key in view.calculations["key"])


def test_before_anything_has_happened(example: Any) -> None:
    view = example.view(rounds=0, candidates=pd.DataFrame(), candidates_round=None)
    texts = {name: page(view) for name, page in PAGES.items()}
    assert "No material has been validated yet" in texts["campaign"]
    assert "Nothing has been picked yet" in texts["round"]
    assert "Nothing has been predicted yet" in texts["candidates"]
    assert "None yet" in texts["calculations"]
    assert all("nan" not in text for text in texts.values())


def test_text_from_outside_stays_text() -> None:
    assert markdown.cell("a | b <script>\n& c") == "a &#124; b &lt;script&gt; &amp; c"
