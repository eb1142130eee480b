"""``screen candidates`` and ``screen labels``: look at what a source gives, before a campaign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.options import AsJson, assignments, print_json
from screening.errors import UserError

if TYPE_CHECKING:
    from screening.pulling import Pulled

Source = Annotated[
    str,
    typer.Option(
        help="mp (Materials Project), builtin, or optimade:PROVIDER; else a path: a table, a "
        "folder of CIF/POSCAR, an ASE database or extended XYZ."
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of the source, as in a campaign file; may be repeated.",
    ),
]
Elements = Annotated[str | None, typer.Option(help="All of these, e.g. Ti,O.")]
Without = Annotated[str | None, typer.Option("--without", help="None of these, e.g. Pb,Cd.")]
Version = Annotated[
    str | None,
    typer.Option("--database-version", help="This version and no other, e.g. 2026.10.01."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Use the local copy, whatever its age.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write a table (.parquet or .jsonl) as well.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(candidates)
    app.command()(labels)


def candidates(
    source: Source = "mp",
    elements: Elements = None,
    without: Without = None,
    max_hull: Annotated[
        float | None, typer.Option("--max-hull", help="eV/atom above hull. Default: 0, the hull.")
    ] = None,
    min_gap: Annotated[float | None, typer.Option("--min-gap", help="eV.")] = None,
    max_gap: Annotated[float | None, typer.Option("--max-gap", help="eV.")] = None,
    max_sites: Annotated[int | None, typer.Option("--max-sites", help="Atoms in the cell.")] = None,
    query: Annotated[str | None, typer.Option("--filter", help="Filter for OPTIMADE.")] = None,
    settings: Setting = None,
    database_version: Version = None,
    offline: Offline = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Pull candidates and say what came, what was refused and why.

    The Materials Project's come with a key (MP_API_KEY, PMG_MAPI_KEY or the Prefect Secret block
    mp-api-key), are kept locally, and are fetched again only where they have changed.
    """
    from screening.settings import CandidateSource

    chosen = _chosen(
        CandidateSource, source, settings,
        with_elements=_symbols(elements), without_elements=_symbols(without),
        max_energy_above_hull=max_hull, min_band_gap=min_gap, max_band_gap=max_gap,
        max_sites=max_sites, filter=query, database_version=database_version,
        offline=offline or None,
    )  # fmt: skip
    from screening.sources import pull_candidates

    _show(lambda context: pull_candidates(chosen, context), output, as_json)


def labels(
    source: Source = "mp",
    elements: Elements = None,
    without: Without = None,
    settings: Setting = None,
    database_version: Version = None,
    offline: Offline = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Pull known dielectric tensors, turned into the frames of their structures and checked."""
    from screening.settings import KnownSource

    chosen = _chosen(
        KnownSource, source, settings,
        with_elements=_symbols(elements), without_elements=_symbols(without),
        database_version=database_version, offline=offline or None,
    )  # fmt: skip
    from screening.sources import pull_known

    _show(lambda context: pull_known(chosen, context), output, as_json)


def _chosen(kind: Any, source: str, settings: list[str] | None, **given: Any) -> Any:
    """The source as its settings: what ``--source`` names, the flags given, then ``--set``."""
    from pydantic import TypeAdapter

    values = {**_source(source), **_given(**given), **assignments(settings)}
    return _validated(TypeAdapter(kind), values)


def _source(text: str) -> dict[str, Any]:
    kind, _, rest = text.partition(":")
    if text in ("mp", "builtin"):
        return {"kind": text}
    if kind == "optimade":
        if not rest:
            raise UserError("--source optimade needs a provider, e.g. --source optimade:oqmd.")
        return {"kind": "optimade", "provider": rest}
    path = Path(text)
    if path.is_dir():
        return {"kind": "folder", "path": str(path.absolute())}
    suffix = path.suffix.lower()
    if suffix in (".db", ".json", ".xyz", ".extxyz"):
        return {"kind": "ase", "path": str(path.absolute())}
    if suffix in (".parquet", ".csv", ".jsonl"):
        return {"kind": "table", "path": str(path.absolute())}
    raise UserError(
        f"There is no source '{text}'; give mp, builtin, optimade:PROVIDER, or the path of a "
        "table, a folder of structures, an ASE database or an extended XYZ file."
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _symbols(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _validated(adapter: Any, values: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        kind = values["kind"]
        if first["type"] == "union_tag_invalid":
            raise UserError(f"Tensors do not come from a source of the kind '{kind}'.") from None
        field = str(first["loc"][-1])
        if first["type"] == "extra_forbidden":
            raise UserError(f"A source of the kind '{kind}' has no '{field}'.") from None
        if first["type"] == "missing":
            raise UserError(f"A source of the kind '{kind}' needs '{field}'.") from None
        if first["type"] == "value_error":
            raise UserError(f"The source cannot be: {first['ctx']['error']}.") from None
        raise UserError(f"'{field}' of the source: {first['msg']}.") from None


def _show(pull: Any, output: Path | None, as_json: bool) -> None:
    from flows.reporter import Reporter
    from flows.sources import pull_context

    with Reporter() as reporter:
        pulled: Pulled[Any] = pull(pull_context(reporter))
    if output is not None:
        from screening.table_files import write_table

        write_table(pulled.items, output)
    if as_json:
        print_json(pulled.to_dict())
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    for line in _lines(pulled):
        console.print(line, soft_wrap=True)
    if output is not None:
        console.print(f"Written: {output}", soft_wrap=True)


def _lines(pulled: Pulled[Any]) -> list[str]:
    about = pulled.provenance
    lines = [f"{about.get('source', '')}: {pulled.offered} offered, {len(pulled.items)} taken"]
    if "database_version" in about:
        lines.append(
            f"  database version {about['database_version']}, {about['age']}; "
            f"{about['requests']} requests, {about['documents_fetched']} documents fetched"
        )
    for heading, refusals in (("refused", pulled.refused), ("in part", pulled.partly)):
        for reason, n in refusals.counts().items():
            lines.append(f"  {n:6d} {heading}: {reason} ({', '.join(refusals.examples(reason))})")
    return lines
