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
from models.protocol.violations import RATE

STUDIED = ("layer", "random", "1-layer")
"""How the options begin that the papers' studies of layers are about."""
STORED = (
    "† With the encoder's features on disk, and ours without the force constants that its errors "
    "are with; the other models' figures include making their graphs."
)
"""What is to be known of older cards' throughputs."""
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
    if study := study_table(every):
        found.append(study)
    tails = [read_card(path) for path in directory.glob("*-tail-*.yaml")]
    last = [tail_table(tails)] if tails else []
    if (path := directory / "refractive.yaml").exists():
        last.append(refractive_table(read_card(path)["models"]))
    return "\n\n".join(filter(None, [_budgets(every), *found, facts_table(every), *last]))


def is_study(name: str, cards: Collection[str]) -> bool:
    """Whether a model stands for what layers are worth: beside the same model with all of them."""
    if name == OURS:
        return False
    choice = parse(name)
    return choice.base in cards and any(o.startswith(STUDIED) for o in choice.options)


def study_table(cards: dict[str, Card]) -> str:
    """Static errors of models with other layers, each family on the splits that it shares.

    A family without a split in common is shown each on its own; nothing where no other layers have
    been run.
    """
    lines = [
        "| layers | " + " | ".join(LABELS.values()) + " | CPU s | passes | splits |",
        "|---" * (len(LABELS) + 4) + "|",
    ]
    bases = {name: parse(name).base for name in cards if is_study(name, cards)}
    static = _with_part(cards, "static")
    for base in dict.fromkeys(bases[name] for name in static if name in bases):
        family = {n: c for n, c in static.items() if base in (n, bases.get(n))}
        common = common_splits(family, "static")
        for name, card in family.items():
            splits, run = common or _splits(card, "static"), card["figures"]["static"]["runs"][0]
            values = (values_on(card, "static", metric, "all", splits) for metric in LABELS)
            cells = [name, *(f"{np.mean(own):.3f}" for own in values), f"{run['cpu_seconds']:.0f}"]
            cells += [str(run["epochs"]), ", ".join(str(n) for n in splits)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _budgets(cards: dict[str, Card]) -> str:
    """What the published models were given."""
    given: dict[str, list[str]] = {}
    for name, card in cards.items():
        if name != OURS:
            given.setdefault(_seconds(card), []).append(name)
    machines = dict.fromkeys(h for c in cards.values() for h in str(c["hardware"]).split("; "))
    where = f"CPU seconds, all threads together ({'; '.join(sorted(machines))})"
    if len(given) > 1:
        each = "; ".join(f"{seconds} for {', '.join(names)}" for seconds, names in given.items())
        return (
            "Budgets of the published networks differ, so that their errors cannot be compared, in "
            f"{where}: {each}."
        )
    return "".join(
        f"Budget of each published network: {seconds} {where}, the same for all."
        for seconds in given
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
        "| model | parameters | training (CPU s) alone | passes "
        "| crystals per CPU s | turned | other cell | point group "
        "| static MAE(9): this − ours (95 %) | on splits |",
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
            _throughput(name, facts),
            *(f"{v[k][0]:.0e}, {v[k][1]:.0e}" for k in ("rotation", "cell", "point_group")),
            compared,
            "–" if difference is None else ", ".join(str(n) for n in compared_on(card, "static")),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    return f"{table}\n\n{STORED}" if "†" in table else table


def _throughput(name: str, facts: Card) -> str:
    """Crystals per CPU second; with a mark where the figure leaves a part of the work out."""
    if RATE in facts:
        return f"{facts[RATE]:.3g}"
    marked = name == OURS or parse(name).base.startswith("dtnet")
    return f"{facts['materials_per_cpu_second']:.0f}{' †' if marked else ''}"


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
