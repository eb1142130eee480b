"""The steps of a round, each safe to repeat: what the ledger has is not done again."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as RunState
from prefect.context import FlowRunContext
from prefect.states import Completed

from dft.calculation import State
from flows import bill
from flows.artifacts import LiveProgress, show_candidates, show_model, show_round
from flows.calculations import (
    cancelled,
    handed_out,
    keys_of,
    note_foreign,
    open_calculations,
    settle,
    still_foreign,
)
from flows.files import write_predictions, write_results, write_round
from flows.limits import limit_of
from flows.notifications import tell
from flows.run import CampaignRun
from flows.sources import pull_report, show_pull
from models.ensemble import Prediction
from models.fitting import known_hash
from models.passes import in_two_passes
from models.predictor import Predictor, load
from models.store import fit_or_reuse
from results.records import PlannedCalculation, Selection
from results.schema import RoundStatus
from results.view import PULLED_FROM
from screening.acquisition import acquisition, top
from screening.errors import UserError
from screening.filters import NothingLeftError, Pool, filter_candidates
from screening.io import stable_hash
from screening.material import Material
from screening.tensors import mean_permittivity

Array = NDArray[np.float64]
P = ParamSpec("P")
R = TypeVar("R")

POLL_S = 0.2
MOST_NAMED = 30
"""Picks that a note names."""
ASK_LEDGER_S = 5.0
"""Between two looks at what other machines have recorded."""
NOTHING_NEW = "NothingNew"
"""Name of the state in which a series ends that has calculated every candidate."""
ENCODED_TOGETHER = 256
"""Crystals whose features are in memory at the same time while they are computed."""
PREDICTED = (RoundStatus.PREDICTED, RoundStatus.SELECTED, RoundStatus.FINISHED)

EXPECTED = (
    "rank", "acquisition", "merit_mean", "merit_std", "epsilon_mean", "epsilon_std",
)  # fmt: skip
"""What is remembered of the prediction that a pick rests on."""


class Step(Generic[P, R]):
    """A function that is a Prefect task inside a flow run and a plain call otherwise.

    The first argument is the run; a round's steps take the round's number next, and what they took
    in time is recorded under their name.
    """

    def __init__(self, function: Callable[Concatenate[CampaignRun, P], R]) -> None:
        functools.update_wrapper(self, function)
        self.name = function.__name__
        self.function = function

    def __call__(self, run: CampaignRun, *args: P.args, **kwargs: P.kwargs) -> R:
        number = args[0] if args and isinstance(args[0], int) else None
        call: Callable[..., R] = self.function
        if FlowRunContext.get() is not None:
            call = self._as_task(run, number)
        wall, cpu = time.perf_counter(), time.process_time()
        result = call(run, *args, **kwargs)
        if number is not None:
            run.ledger.record_seconds(
                run.round(number).id, self.name,
                time.perf_counter() - wall, time.process_time() - cpu,
            )  # fmt: skip
        return result

    def _as_task(self, run: CampaignRun, number: int | None) -> Callable[..., R]:
        label = self.name if number is None else f"{self.name} (round {number})"
        tags = [] if number is None else [f"round {number}"]
        ended: list[NothingLeftError] = []

        def limited(*args: Any, **kwargs: Any) -> R | RunState[Any]:
            try:
                with limit_of(self.name, run):
                    return self.function(*args, **kwargs)
            except NothingLeftError as end:
                if run.config.follows is None:
                    raise
                # A series has found all there is, which is no failure of the task that sees it.
                ended.append(end)
                return Completed(name=NOTHING_NEW, message=str(end))

        limited.__doc__ = self.function.__doc__
        options = task(
            name=self.name, task_run_name=label, tags=tags, cache_policy=NO_CACHE,
            persist_result=False,
        )  # fmt: skip
        attempt = options(limited)

        def call(*args: Any, **kwargs: Any) -> R:
            result = attempt(*args, **kwargs)
            if ended:
                raise ended[0]
            return cast(R, result)

        return call


@Step
def pull(run: CampaignRun) -> Pool:
    """Candidates that pass the filters, and what is known at the start.

    Raises
    ------
    UserError
        The sources differ from those that the campaign began with.
    """
    from models.encoder import supported_elements
    from screening.sources import pull_candidates

    encoder, engine = run.config.model.encoder, run.engine
    offered = pull_candidates(run.config.candidates, run.pulls)
    pins = dict(p.pin for p in (run.pulled_known, offered) if p.pin is not None)
    origin = {"pins": pins, "known": run.pulled_known.to_dict(), "candidates": offered.to_dict()}
    run.ledger.event(run.config.name, PULLED_FROM, origin, once=PULLED_FROM)
    for what, pulled in (("Known tensors", run.pulled_known), ("Candidates", offered)):
        if len(pulled.refused) or len(pulled.partly):
            run.reporter.note(f"{what}: {pulled.summary()}.")
    pool = filter_candidates(
        offered.items,
        run.task,
        run.config.filters,
        {
            f"encoder {encoder}": supported_elements(encoder),
            f"engine {engine.name}": engine.elements,
        },
        [*(k.material for k in run.known if k.has_been_calculated), *run.tried],
        run.reporter.progress,
    )
    sources = {
        "known_materials": known_hash(run.known),
        "candidates": stable_hash([[m.material_id, m.structure_hash] for m in pool.candidates]),
    }
    detail = {**sources, "n_known": len(run.known), "candidates_summary": pool.summary()}
    run.ledger.event(run.config.name, "pulled", detail, once="pulled")
    events = run.ledger.events(run.config.name)
    first = events[events["kind"] == "pulled"]["detail"].iloc[0]
    for name, value in sources.items():
        # Campaigns that an earlier version began have another hash of what was known.
        if first.get(name, value) != value:
            what = name.removesuffix("_materials")
            raise UserError(
                f"The {what} materials of campaign '{run.config.name}' are not those it began "
                "with; restore the files it reads, or start a campaign under another name."
            )
    run.reporter.note(f"{len(run.known)} materials known. Candidates: {pool.summary()}.")
    name = run.config.name
    show_pull(name, pull_report(name, run.pulled_known, offered, pool.summary()))
    return pool


@Step
def encode(run: CampaignRun, pool: Pool) -> None:
    """What the frozen potential says about every crystal, computed once and kept."""
    last = next(reversed(run.ledger.rounds(run.config.name)), None)
    if last is not None and last.number == run.config.rounds and last.status in PREDICTED:
        return
    materials = [*(entry.material for entry in run.known), *pool.candidates]
    for start in range(0, len(materials), ENCODED_TOGETHER):
        run.reporter.progress("encoding", start, len(materials))
        chunk = materials[start : start + ENCODED_TOGETHER]
        run.cache.reduced([material.structure for material in chunk])


@Step
def train(run: CampaignRun, number: int) -> None:
    """An ensemble trained on all that is known and validated so far."""
    record = run.round(number)
    if record.status != RoundStatus.STARTED:
        return
    training = [*run.known, *run.ledger.accepted(run.config.name, before_round=number)]
    directory = run.round_directory(number) / "model"
    ensemble = fit_or_reuse(
        training, run.config.model, run.config.seed, run.cache, directory, run.reporter.progress
    )
    run.ledger.record_training(
        record.id, ensemble.training_hash, len(training), directory,
        ensemble.training_hash, ensemble.metrics,
    )  # fmt: skip
    errors = ensemble.metrics.get("static", {})
    accuracy = f", median error of ε̄ {errors['median_relative']:.0%}" if errors else ""
    run.reporter.note(f"Trained on {len(training)} materials{accuracy} (unseen test crystals).")
    show_model(run)


@Step
def predict(run: CampaignRun, number: int, pool: Pool) -> None:
    """Tensors, figure of merit and acquisition of every candidate not calculated yet."""
    record = run.round(number)
    if record.status not in (RoundStatus.STARTED, RoundStatus.TRAINED):
        return
    candidates = remaining(run, number, pool)
    ensemble = load(run.round_directory(number) / "model")
    gaps = np.array([np.nan if m.band_gap is None else m.band_gap for m in candidates])
    seed = _seed(run, number)
    prediction = predicted(run, ensemble, candidates, gaps, seed)
    static = prediction.static
    merits = run.task.figure_of_merit(gaps[None, :], static)
    epsilon = mean_permittivity(static)
    values = acquisition(merits, run.config.acquisition, seed)
    order = top(values, len(values), seed)
    table = pd.DataFrame(
        {
            "material_id": [m.material_id for m in candidates],
            "structure_hash": [m.structure_hash for m in candidates],
            "formula": [m.formula for m in candidates],
            "n_sites": [m.n_sites for m in candidates],
            "band_gap": gaps,
            "electronic": list(prediction.electronic.mean(axis=0)),
            "ionic": list(prediction.ionic.mean(axis=0)),
            "in_domain": prediction.distance <= 1,
            "physical": prediction.physical,
            "epsilon_mean": epsilon.mean(axis=0),
            "epsilon_std": epsilon.std(axis=0, ddof=1),
            "merit_mean": merits.mean(axis=0),
            "merit_std": merits.std(axis=0, ddof=1),
            "acquisition": values,
        }
    ).iloc[order]
    table["rank"] = range(1, len(table) + 1)
    write_predictions(run.round_directory(number), table, prediction, order)
    run.ledger.record_predictions(record.id, table)
    best = table.iloc[0]
    run.reporter.note(
        f"Predicted {len(table)} candidates; most promising: {best['formula']}, "
        f"{run.task.label} {best['merit_mean']:.3g} ± {best['merit_std']:.2g}."
    )
    show_candidates(run)


def predicted(
    run: CampaignRun, ensemble: Predictor, candidates: list[Material], gaps: Array, seed: int
) -> Prediction:
    """A first pass over all candidates; the best of it again with their force constants."""

    def best(first: Prediction) -> NDArray[np.int64]:
        merits = run.task.figure_of_merit(gaps[None, :], first.static)
        values = acquisition(merits, run.config.acquisition, seed)
        return top(values, run.config.model.physics_candidates, seed)

    return in_two_passes(
        ensemble, [m.structure for m in candidates], list(gaps), run.config.functional, run.cache,
        best, run.reporter.progress,
    )  # fmt: skip


@Step
def select(run: CampaignRun, number: int, pool: Pool) -> bool:
    """The best candidates by acquisition become calculations, as far as the budget goes.

    Returns
    -------
    bool
        Whether there is anything to calculate.
    """
    record = run.round(number)
    if record.status != RoundStatus.PREDICTED:
        return True
    by_hash = {m.structure_hash: m for m in pool.candidates}
    picks = run.ledger.predictions(record.id).head(run.config.batch).to_dict("records")
    engine = run.engine
    selections, planned = [], []
    materials = bill.admitted(run, number, [by_hash[pick["structure_hash"]] for pick in picks])
    if not materials:
        return False
    keys = keys_of(run, materials)
    for pick, material, key in zip(picks, materials, keys, strict=False):
        planned.append(
            PlannedCalculation(
                key, material.structure_hash, material.material_id, engine.name,
                engine.settings(), engine.settings_hash, str(run.calculations / key),
            )
        )  # fmt: skip
        expected = {name: pick[name] for name in EXPECTED}
        selections.append(Selection(calculation_key=key, **expected))
    run.ledger.select(record.id, selections, planned, materials)
    names = ", ".join(material.formula for material in materials[:MOST_NAMED])
    more = len(materials) - MOST_NAMED
    run.reporter.note(f"Picked for calculation: {names}{f' and {more} more' * (more > 0)}.")
    return True


@Step
def calculate(run: CampaignRun, number: int) -> None:
    """Submit what has no result yet and wait for all of it.

    Raises
    ------
    UserError
        All others are done, and some were cancelled by a person.
    """
    waiting = open_calculations(run, number)
    roots, foreign = handed_out(run, waiting)
    note_foreign(run, foreign)
    bar = LiveProgress(run.config.name, f"Calculations of round {number}")
    limit = bill.Limit(run, number)
    ask_at = 0.0
    while roots or foreign:
        states = {
            key: state
            for root, keys in roots.items()
            for key, state in run.launcher(root).poll(keys).items()
        }
        done = sum(state is State.DONE for state in states.values())
        total = len(states) + len(foreign)
        run.reporter.progress(f"calculating, round {number}", done, total)
        bar.show(done, total, sum(state is State.RUNNING for state in states.values()))
        if not foreign and all(state in (State.DONE, State.LOST) for state in states.values()):
            lost = [key for key, state in states.items() if state is State.LOST]
            if others := limit.refuse(roots, lost):
                raise cancelled(run, others)
            return
        limit.hold(roots)
        time.sleep(POLL_S)
        if foreign and time.monotonic() >= ask_at:
            ask_at = time.monotonic() + ASK_LEDGER_S
            # Others may wait for what is done here, while we wait for what they do.
            settle(run, number, [key for key, state in states.items() if state is State.DONE])
            taken, foreign = still_foreign(run, waiting, foreign)
            for root, keys in taken.items():
                roots.setdefault(root, []).extend(keys)


@Step
def gate(run: CampaignRun, number: int) -> None:
    """Accept or refuse every finished calculation, and record both."""
    settle(run, number, [directory.name for directory, _ in open_calculations(run, number)])


@Step
def record(run: CampaignRun, number: int) -> None:
    """Close the round and write its files and the report."""
    run.ledger.finish_round(run.round(number).id)
    write_round(run, number)
    write_results(run)
    show_round(run, number)
    tell(run, number)


def remaining(run: CampaignRun, number: int, pool: Pool) -> list[Material]:
    """Candidates that no earlier round has picked."""
    table = run.ledger.calculations(run.config.name)
    taken = set(table[table["round"] < number]["structure_hash"])
    return [m for m in pool.candidates if m.structure_hash not in taken]


def _seed(run: CampaignRun, number: int) -> int:
    return int(stable_hash([run.config.seed, number])[:8], 16)
