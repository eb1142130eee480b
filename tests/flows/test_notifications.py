"""What is told at the end of a round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flows.notifications import NEW_BEST, ROUND_FINISHED, news
from results.view import CampaignView


def test_word_of_a_new_best(finished: Any, ledger_of: Callable[[Path], Any]) -> None:
    """In the round that found it, if it is better than what was known at the start."""
    view = CampaignView.from_ledger(ledger_of(finished[0]), "high-k")
    best = view.best_validated
    assert best is not None
    its_round, merit = int(best["round"]), float(best["merit"])

    def told(number: int, known: float | None) -> dict[str, str]:
        parts = ("calculations", "name", "task", "config", "best_validated")
        mark = None if known is None else {"merit": known}
        same: Any = SimpleNamespace(**{p: getattr(view, p) for p in parts}, best_known=mark)
        return dict(news(same, number))

    for known in (None, merit - 0.1):
        assert str(best["formula"]) in told(its_round, known)[NEW_BEST]
    assert NEW_BEST not in told(its_round, merit + 0.1)
    for number in {1, 2, 3} - {its_round}:
        assert NEW_BEST not in told(number, None)
        assert f"Round {number} of 'high-k' is finished" in told(number, None)[ROUND_FINISHED]
