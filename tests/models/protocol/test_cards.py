"""Figures in the documentation are those of the cards."""

from __future__ import annotations

from pathlib import Path

from models.protocol.papers_table import read, tables
from models.protocol.summary import part_table, read_cards, summary

ROOT = Path(__file__).parents[3]
CARDS = ROOT / "benchmarks" / "cards"


def quoted(path: str) -> str:
    text = (ROOT / path).read_text()
    return text.split("<!-- cards -->")[1].split("<!-- end of cards -->")[0].strip()


def test_the_documentation_quotes_the_cards() -> None:
    splits, tails, unlike = read_cards(CARDS)
    assert len(splits) >= 4 and tails and unlike
    assert quoted("docs/model.md") == summary(CARDS)
    assert quoted("README.md") == part_table("static", splits)


def test_cards_tell_what_they_are_of() -> None:
    splits, tails, unlike = read_cards(CARDS)
    for card in (*splits, *tails, *unlike):
        assert card["data"]["sha256"] and card["hardware"]
    for card in splits:
        static = card["figures"]["static"]["pooled"]["all"]
        mean, low, high = static["log_scalar"]
        assert low < mean < high


def test_the_papers_models_are_quoted_from_their_cards() -> None:
    text = (ROOT / "docs" / "papers.md").read_text()
    found = text.split("<!-- papers -->")[1].split("<!-- end of papers -->")[0].strip()
    assert found == tables(CARDS / "papers")
    cards = read(CARDS / "papers")
    published = [card for name, card in cards.items() if name != "physics"]
    assert published
    for card in published:
        assert card["budget"]["cpu_seconds_per_network"] and card["data"]["sha256"]
        for run in card["figures"]["static"]["runs"]:
            assert run["parameters"] and run["epochs"] and run["violations"]
