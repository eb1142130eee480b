"""``screen dft``: calculations on their own, outside of campaigns."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.options import CAMPAIGNS, AsJson, LedgerUrl, assignments, print_json
from screening.errors import UserError

if TYPE_CHECKING:
    from dft.calculation import Calculation
    from dft.engines import CalculatorSettings
    from results.records import CalculationRecord
    from screening.material import Material

EngineName = Literal["abinit", "vasp"]
Engine = Annotated[
    str | None,
    typer.Option("--engine", help="abinit or vasp. Default: the one that works here."),
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of the engine, e.g. --set level=quick; may be repeated.",
    ),
]
Directory = Annotated[
    Path, typer.Option(envvar="SCREEN_CALCULATIONS", help="Where calculations are kept.")
]

CALCULATIONS = Path("calculations")
POLL_S = 0.5

app = typer.Typer(
    name="dft",
    help="Calculate dielectric tensors: which engines work here, structures to tensors, one "
    "calculation in detail.",
    no_args_is_help=True,
)


@app.command()
def check(
    engine: Engine = None,
    settings: Setting = None,
    directory: Directory = CALCULATIONS,
    as_json: AsJson = False,
) -> None:
    """Say which engines and launchers work on this machine, and what is missing."""
    from dft.check import check_engine, check_jobflow_remote, check_local, check_slurm

    if settings and engine is None:
        raise UserError("--set belongs to one engine; name it with --engine.")
    names = ("abinit", "vasp") if engine is None else (engine,)
    findings = check_local(directory) + check_slurm() + check_jobflow_remote()
    for name in names:
        findings += check_engine(engine_settings(name, settings))
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        for finding in findings:
            mark = "works  " if finding.works else "missing"
            typer.echo(f"{mark}  {finding.subject:7} {finding.what:17} {finding.detail}")
            if not finding.works:
                typer.echo(f"{'':9}{'':8}{'':17} → {finding.remedy}")
    if engine is not None and not all(f.works for f in findings if f.subject == engine):
        raise typer.Exit(1)


@app.command()
def run(
    structures: Annotated[
        list[Path], typer.Argument(help="CIF or POSCAR files, or folders of them.")
    ],
    engine: Engine = None,
    settings: Setting = None,
    directory: Directory = CALCULATIONS,
    parallel: Annotated[int, typer.Option(min=1, help="Calculations at the same time.")] = 1,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds of wall time one calculation may take.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Calculate the tensors of crystals and judge them; what is there already is not repeated.

    Stop it at any time: calculations under way carry on, and the same command goes on.
    """
    from dft.calculation import Calculation, State, calculation_key
    from dft.engines import make_engine
    from dft.launcher import make_launcher
    from dft.settings import LocalLauncherSettings
    from flows.bill import announce
    from flows.reporter import Reporter

    calculator = make_engine(engine_settings(engine or _working(), settings))
    materials = _materials(structures)
    keys = [calculation_key(m.structure_hash, calculator.settings_hash) for m in materials]
    different = dict(zip(keys, materials, strict=True))
    launcher = make_launcher(
        LocalLauncherSettings(max_parallel=parallel, timeout_s=timeout), directory
    )
    with Reporter() as reporter:
        for done, (key, material) in enumerate(different.items()):
            reporter.progress("preparing", done, len(different))
            Calculation(directory / key).prepare(calculator, material)
        open_ones = [m for k, m in different.items() if Calculation(directory / k).result() is None]
        if open_ones:
            reporter.note(f"Bill: {announce(calculator, open_ones)}.")
        launcher.submit(list(different))
        while True:
            states = launcher.poll(list(different))
            count = sum(state is State.DONE for state in states.values())
            reporter.progress(f"calculating with {calculator.name}", count, len(different))
            if count == len(different):
                break
            time.sleep(POLL_S)
    launcher.close()
    # One for each input, under its own id, whoever has asked for the same before.
    reports = [
        _report(Calculation(directory / key)) | {"material": material.material_id}
        for key, material in zip(keys, materials, strict=True)
    ]
    if as_json:
        print_json(reports)
        return
    for report in reports:
        typer.echo(f"{report['material']:16} {report['verdict']:22} {report['detail']}")
        typer.echo(f"{'':16} {report['key']}")


@app.command()
def show(
    key: Annotated[
        str, typer.Argument(help="Key of a calculation, how it begins, or its directory.")
    ],
    directory: Directory = CALCULATIONS,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show one calculation: what was asked, every attempt, the outcome and the verdict.

    It is looked for where `screen dft run` keeps its calculations, and then in the campaigns. The
    verdict is that of the campaign's ledger if there is one, else that of the gate's defaults.
    """
    calculation = _find(key, directory)
    report = _report(calculation, _record(calculation, ledger))
    if as_json:
        print_json(report)
    else:
        from flows.dft_display import lines

        typer.echo("\n".join(lines(report)))


def engine_settings(name: str, given: list[str] | None) -> CalculatorSettings:
    """Settings of an engine from its name and ``FIELD=VALUE`` texts.

    Raises
    ------
    UserError
        No such engine, field or value.
    """
    from pydantic import ValidationError

    from dft.abinit_settings import AbinitSettings
    from dft.vasp_settings import VaspSettings

    kinds: dict[str, type[CalculatorSettings]] = {"abinit": AbinitSettings, "vasp": VaspSettings}
    if name not in kinds:
        raise UserError(f"There is no engine '{name}'; choose abinit or vasp.")
    try:
        return kinds[name].model_validate(assignments(given))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            fields = ", ".join(kinds[name].model_fields)
            raise UserError(f"The engine {name} has no '{field}'; it has {fields}.") from None
        raise UserError(f"'{field}' of the engine {name}: {first['msg']}.") from None


def _working() -> EngineName:
    """The engine to use if none is named: VASP where it can run, for it is the field's own."""
    from dft.check import check_engine

    wanted: tuple[EngineName, ...] = ("vasp", "abinit")
    for name in wanted:
        if all(finding.works for finding in check_engine(engine_settings(name, None))):
            return name
    raise UserError("No engine works on this machine; `screen dft check` says what is missing.")


def _materials(paths: list[Path]) -> list[Material]:
    from screening.folders import read_folder, read_structure

    found: list[Material] = []
    for path in paths:
        if path.is_dir():
            found += read_folder(path, None)
        elif path.is_file():
            found.append(read_structure(path))
        else:
            raise UserError(f"There is no structure file {path}; check the path.")
    return found


def _find(key: str, directory: Path) -> Calculation:
    """The calculation that a key or path means.

    Raises
    ------
    UserError
        There is none, or more than one; or it is no key.
    """
    from dft.calculation import Calculation

    if (Path(key) / "POSCAR").exists():
        return Calculation(Path(key).resolve())
    if not re.fullmatch("[0-9a-f]{1,32}", key):
        raise UserError(
            f"'{key}' is neither the key of a calculation (32 hexadecimal digits, or the first of "
            "them) nor its directory."
        )
    campaigns = Path(os.environ.get("SCREEN_DIRECTORY", CAMPAIGNS))
    matches: dict[str, Path] = {}
    for root in (directory, *sorted(campaigns.glob("*/calculations"))):
        for path in sorted(root.glob(f"{key}*")):
            if (path / "POSCAR").exists():
                matches.setdefault(path.name, path)
    if not matches:
        raise UserError(
            f"There is no calculation {key} in {directory} or {campaigns}/*/calculations; "
            "--directory says where else."
        )
    if len(matches) > 1:
        raise UserError(f"{len(matches)} calculations begin with {key}; give more of the key.")
    return Calculation(next(iter(matches.values())).resolve())


def _record(calculation: Calculation, ledger: str | None) -> CalculationRecord | None:
    """What the ledger of its campaign says of a calculation; None if it belongs to none."""
    from flows.session import existing_ledger

    campaigns = calculation.directory.parent.parent.parent
    if ledger is None and not (campaigns / "ledger.sqlite").exists():
        return None
    record = existing_ledger(campaigns, ledger).calculation(calculation.key)
    is_it = record is not None and Path(record.directory).resolve() == calculation.directory
    return record if is_it else None


def _report(calculation: Calculation, record: CalculationRecord | None = None) -> dict[str, Any]:
    """All that is known of a calculation, as plain JSON; the verdict is the ledger's if it has one.

    ``judged_by`` says whose limits the gate had.
    """
    from pymatgen.core import Structure

    from dft.gate import judge

    description = calculation.description() or {}
    output = calculation.result()
    report: dict[str, Any] = {
        "key": calculation.key,
        "material": description.get("material_id"),
        "formula": description.get("formula"),
        "n_sites": description.get("n_sites"),
        "engine": description.get("engine"),
        "settings": description.get("settings"),
        "directory": str(calculation.directory.absolute()),
        "state": str(calculation.state()),
        "verdict": None,
        "detail": None,
        "judged_by": None,
        "tensors": None,
        "output": None if output is None else output.to_dict(),
    }
    if record is not None and record.verdict is not None:
        return report | {
            "verdict": record.verdict,
            "detail": record.detail,
            "judged_by": f"campaign {record.campaign}",
            "tensors": record.tensors.to_dict() if record.accepted else None,
        }
    if output is None:
        return report
    judgement = judge(Structure.from_file(calculation.directory / "POSCAR"), output)
    return report | {
        "verdict": str(judgement.verdict),
        "detail": judgement.detail,
        "judged_by": "the gate's defaults",
        "tensors": None if judgement.tensors is None else judgement.tensors.to_dict(),
    }
