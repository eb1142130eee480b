"""``screen predict``, ``screen train`` and ``screen benchmark``: the model by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.model_display import prediction_rows, show_predictions
from flows.options import AsJson, assignments, print_json
from screening.errors import UserError

if TYPE_CHECKING:
    from models.cache import FeatureCache
    from models.predictor import Predictor
    from screening.material import Material

Model = Annotated[
    Path | None,
    typer.Option(help="Directory of a trained ensemble. Default: the one that comes along."),
]
PAPERS = "papers"
"""Below the directory of the cards: those of the published models."""
NAMED = 20
"""So many of the crystals that are left out of a prediction are named."""


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(predict)
    app.command()(train)
    app.command()(benchmark)
    app.command()(pretrain)


def predict(
    structures: Annotated[
        list[Path],
        typer.Argument(help="CIF or POSCAR files, folders of them, tables, ASE databases."),
    ],
    model: Model = None,
    functional: Annotated[
        str, typer.Option(help="PBE or PBEsol: what a calculation would be made with.")
    ] = "PBE",
    band_gaps: Annotated[
        Path | None,
        typer.Option(help="CSV (file, band_gap): known PBE gaps in eV make ε∞ more certain."),
    ] = None,
    physics: Annotated[
        bool,
        typer.Option(
            help="Build the ionic part of small cells on force constants: seconds per crystal, "
            "and far better for soft polar ones."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Predict dielectric tensors: electronic, ionic and static, with error bars.

    ε̄ is a third of the trace; below it the interval that holds the DFPT value in 90 of 100
    crystals like those trained on; n is the square root of the mean electronic eigenvalue.
    Crystals that cannot be read or predicted are named at the end, and the exit status is then 1.
    """
    from models.cache import FeatureCache, ForceConstantCache
    from models.settings import FUNCTIONALS
    from screening.inputs import read_crystals

    if functional not in FUNCTIONALS:
        raise UserError(f"There is no functional '{functional}' here; PBE or PBEsol.")
    read, refused = read_crystals(structures, band_gaps)
    ensemble = _ensemble(model)
    cache = FeatureCache(ensemble.settings.encoder, device=_device(ensemble))
    materials, unknown = _predictable(read, ensemble)
    refused += unknown
    with _progress() as progress:
        prediction = ensemble.predict(
            [m.structure for m in materials],
            functional,
            cache,
            progress,
            [m.band_gap for m in materials],
            ForceConstantCache.beside(cache) if physics else None,
        )
    rows = prediction_rows(materials, prediction, ensemble)
    if as_json:
        print_json(rows)
    else:
        show_predictions(rows)
    for sentence in refused[:NAMED]:
        typer.echo(f"Left out: {sentence}", err=True)
    if len(refused) > NAMED:
        typer.echo(f"Left out: {len(refused) - NAMED} more.", err=True)
    if refused:
        raise typer.Exit(1)


def train(
    known: Annotated[Path, typer.Argument(help="Table of known tensors (.parquet, .csv, .jsonl).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the ensemble.")],
    model: Annotated[
        str | None, typer.Option(help="physics (ours, the default) or a published model's name.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes all chance.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="E.g. --set epochs=30; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train an ensemble on a table of known tensors, for `screen predict --model`.

    Rows whose tensor cannot be trusted are left out and counted. The errors shown are of the tenth
    of the compositions that only the error bars are calibrated on.
    """
    from pydantic import ValidationError

    from models.cache import FeatureCache
    from models.ensemble import resolve_device
    from models.settings import ModelSettings
    from models.store import fit_or_reuse
    from screening.io import require_writable
    from screening.tables import read_usable

    values = assignments(settings) | ({} if model is None else {"name": model})
    try:
        chosen = ModelSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--set {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    materials, refused = read_usable(known)
    require_writable(output)
    cache = FeatureCache(chosen.encoder, device=str(resolve_device(chosen.device)))
    with _progress() as progress:
        ensemble = fit_or_reuse(materials, chosen, seed, cache, output, progress)
    report = {"n_materials": len(materials), "n_refused": len(refused), **ensemble.metrics}
    if as_json:
        print_json(report)
        return
    if refused:
        typer.echo(f"{len(refused)} rows left out, the first because: {refused[0]}")
    for part in ("electronic", "static"):
        if part in ensemble.metrics:
            median = ensemble.metrics[part]["median_relative"]
            typer.echo(f"{part}: median error of ε̄ {median:.1%} on unseen compositions")
    typer.echo(f"Trained on {len(materials)} materials; the ensemble is in {output}.")


def benchmark(
    names: Annotated[
        list[str] | None, typer.Argument(help="Variants of ours; all of them without any.")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="Published models instead, like dtnet,goectp-icom+pretrained; physics is ours "
            "among them, 'all' is each of them and ours."
        ),
    ] = None,
    parts: Annotated[
        str, typer.Option(help="Published models: parts of the tensor, each by itself.")
    ] = "static,electronic,ionic",
    budget: Annotated[
        float | None,
        typer.Option(min=1, help="Published models: CPU seconds per network. Default: no limit."),
    ] = None,
    data: Annotated[
        Path, typer.Option(envvar="SCREEN_DATA", help="Folder with dielectric_tensors.parquet.")
    ] = Path("../shared/data"),
    means: Annotated[
        Path | None,
        typer.Option(help="Table of further mean permittivities, for the variant 'means'."),
    ] = None,
    splits: Annotated[str, typer.Option(help="Numbers of the published splits.")] = "1,2,3,4,5",
    tail: Annotated[bool, typer.Option(help="Also leave out the extremes and rank.")] = True,
    unlike: Annotated[
        bool, typer.Option(help="Also leave out an element, or a structure type, as a whole.")
    ] = True,
    work: Annotated[
        Path, typer.Option(help="Predictions are kept here; what is there is not done again.")
    ] = Path("benchmark"),
    cards: Annotated[Path, typer.Option(help="Result cards are written here.")] = Path(
        "benchmarks/cards"
    ),
) -> None:
    """Judge models under the protocol: published splits, the tail, cards and a table.

    Takes hours for all variants on two cores; stop and start it at will.
    """
    from models.cache import FeatureCache
    from models.protocol.suite import make_cards
    from models.protocol.table import TensorTable
    from models.protocol.variants import variants

    with _progress() as progress:
        cache = FeatureCache("7net-l3i5")
        known = variants(cache, progress)
        unknown = sorted(set(names or []) - set(known))
        if unknown:
            raise UserError(
                f"There is no variant '{unknown[0]}'; choose from {', '.join(sorted(known))}."
            )
        if names and models:
            raise UserError("Give variants of ours or --models, not both.")
        if means is None and "means" in (names or []):
            raise UserError("The variant 'means' learns from a table that --means has to name.")
        numbers = _split_numbers(splits)
        if models is None:
            table = TensorTable.read(data / "dielectric_tensors.parquet", means)
            chosen = {name: known[name] for name in names or known if means or name != "means"}
            make_cards(chosen, table, numbers, work, cards, typer.echo, tail=tail, unlike=unlike)
        else:
            _benchmark_papers(
                models, parts, budget, numbers, data, work, cards, cache, progress, tail=tail
            )
    from models.protocol.papers_table import tables
    from models.protocol.summary import summary

    typer.echo(summary(cards) if models is None else tables(cards / PAPERS))


def _split_numbers(text: str) -> list[int]:
    from models.protocol.splits import N_SPLITS

    numbers = sorted({part.strip() for part in text.split(",")})
    if not set(numbers) <= {str(n + 1) for n in range(N_SPLITS)}:
        raise UserError(f"--splits {text}: give numbers from 1 to {N_SPLITS}, like 1,2,5.")
    return [int(n) for n in numbers]


def _benchmark_papers(
    models: str,
    parts: str,
    budget: float | None,
    numbers: list[int],
    data: Path,
    work: Path,
    cards: Path,
    cache: FeatureCache,
    progress: Any,
    *,
    tail: bool,
) -> None:
    from models.calibration import PARTS
    from models.papers.names import OPTIONS, OURS, parse
    from models.papers.training import Budget
    from models.protocol.papers import PaperVariant, run_papers
    from models.protocol.table import TensorTable
    from models.protocol.variants import ours

    named = [*OPTIONS, OURS] if models == "all" else [name.strip() for name in models.split(",")]
    chosen = [str(parse(name)) for name in named if name != OURS]
    wanted = [part.strip() for part in parts.split(",")]
    if not set(wanted) <= set(PARTS):
        raise UserError(f"--parts {parts}: give some of {', '.join(PARTS)}.")
    limit = Budget(float("inf") if budget is None else budget)
    table = TensorTable.read(data / "dielectric_tensors.parquet")
    variants = [PaperVariant(name, cache, limit, progress) for name in chosen]
    run_papers(
        variants, ours(cache, progress), table, numbers, wanted, work, cards / PAPERS, typer.echo,
        train_ours=OURS in named, tail=tail,
    )  # fmt: skip


def pretrain(
    table: Annotated[
        Path, typer.Argument(help="Parquet with cell, species, frac, formation_energy_per_atom.")
    ],
    model: Annotated[str, typer.Option(help="goectp, goectp-mat or goectp-icom.")] = "goectp-icom",
    budget: Annotated[
        float, typer.Option(min=1, help="CPU seconds; as published it takes 500 passes.")
    ] = 3600.0,
    seed: Annotated[int, typer.Option(help="Fixes the start and the order.")] = 0,
) -> None:
    """Pretrain a GoeCTP network on formation energies, for the model's option +pretrained."""
    import torch

    from models.cache import FeatureCache
    from models.ensemble import resolve_device
    from models.papers.goectp import GoeCTP
    from models.papers.names import parse
    from models.papers.pretraining import pretrain as fitted
    from models.papers.pretraining import save_pretrained
    from models.papers.recipes import build
    from models.papers.training import Budget
    from screening.tables import read_frame

    choice = parse(model).without("pretrained")
    if not choice.base.startswith("goectp"):
        raise UserError(f"Only the GoeCTP models are pretrained on energies, not {choice.base}.")
    frame = read_frame(table)
    cache = FeatureCache("7net-l3i5")
    torch.manual_seed(seed)
    network = build(str(choice), cache.encoder.layout)
    assert isinstance(network, GoeCTP)
    with _progress() as progress:
        facts = fitted(
            network, frame, Budget(budget), seed, resolve_device("auto"),
            lambda done, total: progress("pretraining", done, total),
        )  # fmt: skip
    if left_out := facts["rows_left_out"]:
        typer.echo(f"{left_out} rows without a finite formation energy left out.")
    place = save_pretrained(network, choice, cache.root, facts)
    typer.echo(f"Pretrained on {facts['crystals']} crystals: {facts}; the weights are in {place}.")


def _ensemble(directory: Path | None) -> Predictor:
    from models.predictor import load
    from models.shipped import shipped

    return shipped() if directory is None else load(directory)


def _device(ensemble: Predictor) -> str:
    from models.ensemble import resolve_device

    return str(resolve_device(ensemble.settings.device))


def _predictable(
    materials: list[Material], ensemble: Predictor
) -> tuple[list[Material], list[str]]:
    """Crystals of elements that the encoder knows, and a sentence for each of the others."""
    from models.encoder import supported_elements

    encoder = ensemble.settings.encoder
    supported = supported_elements(encoder)
    kept, refused = [], []
    for material in materials:
        if strangers := sorted(set(material.elements) - supported):
            refused.append(
                f"{material.material_id} contains {strangers[0]}, which the potential {encoder} "
                "does not know; leave it out."
            )
        else:
            kept.append(material)
    if not kept:
        raise UserError(refused[0])
    return kept, refused


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Progress on standard error, where it does not mix with what is printed."""
    from flows.reporter import Reporter

    with Reporter() as reporter:
        yield reporter.progress
