"""A round's calculations between the ledger and the machine that they run on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft.calculation import MOST_ASKED, Calculation, calculation_key
from dft.engine import CalculationOutput
from dft.execution import failed
from dft.gate import judge, second_look
from dft.locks import PATIENCE_S
from screening.errors import UserError

if TYPE_CHECKING:
    from flows.run import CampaignRun
    from screening.material import Material


def keys_of(run: CampaignRun, materials: Sequence[Material]) -> list[str]:
    """Keys of the calculations that answer for ``materials`` with the campaign's engine.

    A result of another campaign that says nothing about the crystal stays as it is there, and the
    question is asked again under a key of its own.
    """
    found: dict[str, str] = {}
    left = [material.structure_hash for material in materials]
    for asked in range(1, MOST_ASKED + 1):
        keys = {h: calculation_key(h, run.engine.settings_hash, asked) for h in left}
        found |= keys
        outputs = {key: r.output for key, r in run.ledger.records(keys.values()).items()}
        left = [h for h, key in keys.items() if _says_nothing(outputs.get(key))]
        if not left:
            break
    return [found[material.structure_hash] for material in materials]


def open_calculations(run: CampaignRun, number: int) -> list[tuple[Path, Material]]:
    """Directories and materials of a round's calculations that have no verdict yet."""
    keys = set(run.ledger.selections(run.round(number).id)["key"])
    pending = run.ledger.pending(run.config.name)
    return [(Path(r.directory), r.material) for r in pending if r.key in keys]


def settle(run: CampaignRun, number: int, keys: Sequence[str]) -> None:
    """Judge calculations that are done and have no verdict yet, and record what is said of them."""
    wanted = set(keys)
    if not wanted:
        return
    table = run.ledger.selections(run.round(number).id)
    picks = {pick["key"]: pick for pick in table.to_dict("records")}
    for directory, material in open_calculations(run, number):
        if directory.name not in wanted:
            continue
        output = run.launcher(directory.parent).fetch(directory.name)
        judgement = judge(material.structure, output, run.config.gate)
        pick = picks[directory.name]
        flag = second_look(judgement, pick["epsilon_mean"], pick["epsilon_std"], run.config.gate)
        if flag is not None:
            run.reporter.note(f"{material.formula} ({material.material_id}): {flag}")
            judgement = dataclasses.replace(judgement, detail=f"{judgement.detail} {flag}")
        tensors = judgement.tensors
        run.ledger.record_result(
            directory.name, output.to_dict(), str(judgement.verdict), judgement.detail,
            tensors.electronic if tensors else None, tensors.ionic if tensors else None,
            output.functional or None,
        )  # fmt: skip
        run.reporter.note(f"{material.formula}: {judgement.verdict}. {judgement.detail}")


def handed_out(
    run: CampaignRun, waiting: Sequence[tuple[Path, Material]]
) -> tuple[dict[Path, list[str]], dict[str, str]]:
    """Calculations that were submitted here, by root; and who has the others, by key.

    What a person has cancelled is among the first, but was not submitted.
    """
    roots: dict[Path, list[str]] = {}
    foreign: dict[str, str] = {}
    owners: dict[str, str | None] = {}
    places = {path.parent: run.launcher(path.parent).place for path, _ in waiting}
    for root, place in places.items():
        here = [path.name for path, _ in waiting if path.parent == root]
        owners |= run.ledger.claim(here, place)
    for directory, material in waiting:
        calculation, place = Calculation(directory), places[directory.parent]
        owner = owners[calculation.key]
        if owner is None:
            continue  # another machine has just recorded its result
        # Machines change their names: what lies here already is ours whatever the ledger calls it.
        if owner == place or calculation.flow_path.exists() or not run.ledger.is_shared:
            calculation.prepare(run.engine, material, keep=True)
            roots.setdefault(directory.parent, []).append(directory.name)
        else:
            foreign[directory.name] = owner
    for root, keys in roots.items():
        wanted = [key for key in keys if not Calculation(root / key).cancelled_path.exists()]
        run.launcher(root).submit(wanted)
    return roots, foreign


def still_foreign(
    run: CampaignRun, waiting: Sequence[tuple[Path, Material]], foreign: dict[str, str]
) -> tuple[dict[Path, list[str]], dict[str, str]]:
    """What has been given back since and is submitted here now, and what others still have."""
    pending = {r.key: r for r in run.ledger.pending(run.config.name) if r.key in foreign}
    free = [w for w in waiting if w[0].name in pending and pending[w[0].name].handle is None]
    taken, others = handed_out(run, free)
    kept = {key: str(r.handle) for key, r in pending.items() if r.handle is not None}
    return taken, kept | others


def note_foreign(run: CampaignRun, foreign: dict[str, str]) -> None:
    """Say what is waited for that runs elsewhere."""
    if foreign:
        run.reporter.note(
            f"{len(foreign)} of these are being calculated elsewhere "
            f"({', '.join(sorted(set(foreign.values())))}); waiting for their results."
        )


def cancelled(run: CampaignRun, keys: Sequence[str]) -> UserError:
    """The sentence for calculations that nobody runs any more because a person said so."""
    records = run.ledger.records(keys).values()
    names = ", ".join(f"{r.material.formula} {r.key[:8]}" for r in records)
    name = run.config.name
    return UserError(
        f"Cancelled and not calculated again by itself: {names}; have them calculated with "
        f"`screen cancel {name} --undo`, or entered as refused with `screen cancel {name} "
        f"--refuse`, then: screen resume {name}."
    )


def refuse(
    calculation: Calculation, why: str, *, cpu_s: float = 0.0, wall_s: float = 0.0,
    patience_s: float = PATIENCE_S,
) -> None:  # fmt: skip
    """Enter a cancelled calculation as failed, unless it has a result.

    Parameters
    ----------
    cpu_s, wall_s
        What it had taken until it was stopped.
    patience_s
        How long it may take to end.

    Raises
    ------
    UserError
        It has not ended yet.
    """
    output = dataclasses.replace(
        failed(calculation, why, external=True), cpu_s=cpu_s, wall_s=wall_s
    )
    if not calculation.conclude(output, patience_s):
        raise UserError(f"Calculation {calculation.key} has not ended yet; repeat the command.")
    calculation.cancelled_path.unlink(missing_ok=True)


def _says_nothing(output: dict[str, Any] | None) -> bool:
    return output is not None and not CalculationOutput.from_dict(output).conclusive
