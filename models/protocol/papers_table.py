"""The published models side by side: one table per part and convention, like the papers'."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.calibration import PARTS
from models.papers.names import OPTIONS, OURS, parse
from models.protocol.benchmark import BY_SYSTEM, SYSTEMS
from models.protocol.card import read_card
from models.protocol.continued import compared_on
from models.protocol.summary import extremes_table

STUDIED = ("layer", "random", "1-layer")
"""How the options begin that the papers' studies of layers are about."""
LABELS = {"mae_9": "MAE(9)", "mae_6": "MAE(6)"}
Card = dict[str, Any]


def read(directory: Path) -> dict[str, Card]:
    """Cards of the splits by model, ours last."""
    found = [read_card(path) for path in sorted(directory.glob("*.yaml"))]
    cards = {c["variant"]: c for c in found if "figures" in c and "merit" not in c}
    return {name: cards[name] for name in sorted(cards, key=_place)}


def _place(name: str) -> tuple[int, str]:
    """Published models in the order of their names' list, ours last."""
    return [*OPTIONS, OURS].index(name.split("+")[0]), name


def tables(directory: Path) -> str:
    """Markdown: errors by crystal system, layers, training and symmetry, extremes, indices."""
    every = read(directory)
    cards = {name: card for name, card in every.items() if not is_study(name, every)}
    found = [
        table
        for part in PARTS
        for metric in BY_SYSTEM
        for table in system_tables(cards, part, metric)
    ]
    if len(cards) < len(every):
        found.append(study_table(every))
    tails = [read_card(path) for path in directory.glob("*-tail-*.yaml")]
    last = [tail_table(tails)] if tails else []
    if (path := directory / "refractive.yaml").exists():
        last.append(refractive_table(read_card(path)["models"]))
    return "\n\n".join([_budgets(cards), *found, facts_table(every), *last])


def is_study(name: str, cards: Collection[str]) -> bool:
    """Whether a model stands for what layers are worth: beside the same model with all of them."""
    if name == OURS:
        return False
    choice = parse(name)
    return choice.base in cards and any(o.startswith(STUDIED) for o in choice.options)


def study_table(cards: dict[str, Card]) -> str:
    """Static errors of models with other layers, each family on the splits that it shares."""
    lines = [
        "| layers | " + " | ".join(LABELS.values()) + " | CPU s | passes | splits |",
        "|---" * (len(LABELS) + 4) + "|",
    ]
    bases = {name: parse(name).base for name in cards if is_study(name, cards)}
    for base in dict.fromkeys(bases.values()):
        family = {n: c for n, c in cards.items() if base in (n, bases.get(n))}
        splits = common_splits(family, "static")
        for name, card in family.items():
            run = card["figures"]["static"]["runs"][0]
            values = (values_on(card, "static", metric, "all", splits) for metric in LABELS)
            cells = [name, *(f"{np.mean(own):.3f}" for own in values), f"{run['cpu_seconds']:.0f}"]
            cells += [str(run["epochs"]), ", ".join(str(n) for n in splits)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _budgets(cards: dict[str, Card]) -> str:
    """What the published models were given."""
    given = sorted({str(_seconds(c)) for name, c in cards.items() if name != OURS})
    hardware = sorted({str(c["hardware"]) for c in cards.values()})
    return (
        f"Budget of each published network: {' or '.join(given)} CPU seconds of one thread "
        f"({'; '.join(hardware)}), the same for all."
    )


def _seconds(card: Card) -> str:
    seconds = card["budget"]["cpu_seconds_per_network"]
    return "unlimited" if seconds is None else f"{seconds:g}"


def system_tables(cards: dict[str, Card], part: str, metric: str) -> list[str]:
    """Tables of the models that have splits in common, on just these: all models, then fewer.

    Rows: crystal systems; columns: models, ours last; mean ± deviation over splits; the best in
    bold.
    """
    shown = _with_part(cards, part)
    found = []
    while shown.keys() - {OURS}:
        splits = common_splits(shown, part)
        fewest = min(len(_splits(card, part)) for name, card in shown.items() if name != OURS)
        more = {n: c for n, c in shown.items() if n == OURS or len(_splits(c, part)) > fewest}
        if splits:
            found.append(_system_table(shown, part, metric, splits))
        else:
            alone = [(n, c) for n, c in shown.items() if n not in more]
            found += [_system_table({n: c}, part, metric, _splits(c, part)) for n, c in alone]
        shown = more
    return found


def common_splits(cards: dict[str, Card], part: str) -> list[int]:
    """Numbers of the splits that all of some models have been run on."""
    return sorted(set.intersection(*(set(_splits(card, part)) for card in cards.values())))


def named(splits: Sequence[int]) -> str:
    """Such as ``splits 1, 2``."""
    return f"split{'s' if len(splits) > 1 else ''} {', '.join(str(n) for n in splits)}"


def values_on(
    card: Card, part: str, metric: str, system: str, splits: Sequence[int]
) -> list[float]:
    """Errors of a model on the given splits; less where a test set has too few of a system."""
    own = card["figures"][part]["systems"].get(system)
    by_split = {} if own is None else dict(zip(_splits(card, part), own[metric], strict=True))
    return [x for n in splits if (x := by_split.get(n)) is not None]


def _splits(card: Card, part: str) -> list[int]:
    return list(card["figures"][part]["splits"])


def _system_table(cards: dict[str, Card], part: str, metric: str, splits: Sequence[int]) -> str:
    lines = [
        f"| {part}, {LABELS[metric]}, {named(splits)} | " + " | ".join(cards) + " |",
        "|---" * (len(cards) + 1) + "|",
    ]
    for system in ("all", *SYSTEMS):
        values = [values_on(card, part, metric, system, splits) for card in cards.values()]
        if any(values):
            lines.append(f"| {system} | " + " | ".join(_cells(values)) + " |")
    return "\n".join(lines)


def _with_part(cards: dict[str, Card], part: str) -> dict[str, Card]:
    return {name: card for name, card in cards.items() if part in card["figures"]}


def _cells(values: list[list[float]]) -> list[str]:
    means = [float(np.mean(v)) if v else np.inf for v in values]
    texts = []
    for mean, own in zip(means, values, strict=True):
        text = "–" if not own else f"{mean:.3f}"
        if len(own) > 1:
            text += f" ± {np.std(own, ddof=1):.3f}"
        texts.append(f"**{text}**" if own and mean == min(means) else text)
    return texts


def facts_table(cards: dict[str, Card]) -> str:
    """What a model takes, what it violates, and ours minus it on the same test materials."""
    lines = [
        "| model | parameters | training (CPU s) | passes | crystals per CPU s | turned "
        "| other cell | point group | static MAE(9): this − ours (95 %) | on splits |",
        "|---" * 10 + "|",
    ]
    for name, card in cards.items():
        runs = card["figures"].get("static", {}).get("runs")
        facts = runs[0] if runs else card.get("measured")
        if facts is None:
            continue
        v = facts["violations"]
        difference = card.get("paired", {}).get("static", {}).get("mae_9")
        compared = "–" if difference is None else (
            f"{difference['difference']:.3f} ({difference['low']:.3f} to {difference['high']:.3f})"
        )  # fmt: skip
        seconds = card["training_cpu_seconds"] if runs is None else facts["cpu_seconds"]
        cells = [
            name, f"{facts['parameters']:,}", f"{seconds:.0f}", str(facts.get("epochs", "–")),
            f"{facts['materials_per_cpu_second']:.0f}",
            *(f"{v[k][0]:.0e}, {v[k][1]:.0e}" for k in ("rotation", "cell", "point_group")),
            compared,
            "–" if difference is None else ", ".join(str(n) for n in compared_on(card, "static")),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tail_table(cards: list[Card]) -> str:
    """What comes back of the left-out extremes, merit by merit, ours last."""
    return extremes_table(sorted(cards, key=lambda card: _place(card["variant"])))


def refractive_table(models: dict[str, Card]) -> str:
    """Errors of n, the mean over folds, ± deviation of the mean absolute error over folds."""
    lines = [
        "| refractive index | budget (CPU s) | MAE | RMSE | largest error | folds |",
        "|---" * 6 + "|",
    ]
    for name in sorted(models, key=_place):
        card = models[name]
        folds = list(card["folds"].values())
        rmse = float(np.mean([fold["rmse"] for fold in folds]))
        spread = "" if card["sd"] is None else f" ± {card['sd']:.3f}"
        budget = "–" if name == OURS else _seconds(card)
        lines.append(
            f"| {name} | {budget} | {card['mae']:.3f}{spread} | {rmse:.3f} | "
            f"{max(fold['max_error'] for fold in folds):.1f} | {len(folds)} |"
        )
    return "\n".join(lines)
