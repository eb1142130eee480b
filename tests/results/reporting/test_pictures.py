"""Pictures for pages on which nothing moves: what they show is counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from results import crystals, pictures
from results.crystals import drawing, legend


def test_intervals_are_counted() -> None:
    """Half, one and three σ away; an interval of 38.3, 68.3 and 99.7 % just holds each."""
    rows = pd.DataFrame({"epsilon": 10.0, "epsilon_mean": [10.5, 9.0, 13.0], "epsilon_std": 1.0})
    nothing = {"epsilon": [None, 10.0], "epsilon_mean": [9.0, 9.0], "epsilon_std": [1.0, 0.0]}
    view: Any = SimpleNamespace(validated=pd.concat([rows, pd.DataFrame(nothing)]))
    shares = pictures.coverage(view)
    assert shares is not None
    for level, share in zip(pictures.LEVELS, shares, strict=True):
        assert share == pytest.approx((level > 0.383) / 3 + (level > 0.683) / 3 + (level > 0.997))
    assert pictures.coverage(SimpleNamespace(validated=pd.DataFrame(nothing))) is None  # type: ignore[arg-type]


def test_a_cell_is_drawn_with_all_its_faces(prototypes: dict[str, Any]) -> None:
    """Rock salt from its primitive cell: 27 atoms of the cube, 54 contacts, 12 edges."""
    text = str(drawing(prototypes["NaCl"]))
    assert text.count("<circle") == 27 and text.count('class="bond"') == 54
    assert text.count('class="edge"') == 12 and 'aria-label="Cell of NaCl"' in text
    symbols = dict(legend(prototypes["NaCl"]))
    assert set(symbols) == {"Na", "Cl"} and symbols["Na"] != symbols["Cl"]
    for symbol, colour in symbols.items():
        assert text.count(f'fill="{colour}"><title>{symbol}</title>') in (13, 14)


def test_a_crowd_is_not_drawn(prototypes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crystals, "MOST_ATOMS", 27)
    assert drawing(prototypes["NaCl"]) is not None
    monkeypatch.setattr(crystals, "MOST_ATOMS", 26)
    assert drawing(prototypes["NaCl"]) is None
