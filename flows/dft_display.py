"""One calculation as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

INDENT = 11 * " "
WIDTH = 100


def lines(report: dict[str, Any]) -> list[str]:
    """What ``screen dft show`` prints of a calculation's report."""
    found = [
        f"{report['formula']}  {report['material']}  {report['n_sites']} atoms",
        f"key        {report['key']}",
        f"directory  {report['directory']}",
        f"engine     {report['engine']}",
    ]
    found += [f"  {name} = {value}" for name, value in (report["settings"] or {}).items()]
    output = report["output"]
    if output is None:
        return [*found, f"state      {report['state']}; there is no result yet"]
    found += _attempts(output["attempts"])
    found += _facts(output)
    found += [f"verdict    {report['verdict']} ({report['judged_by']})"]
    found += [INDENT + report["detail"]]
    tensors = report.get("tensors")
    for name, label in (("electronic", "ε∞"), ("ionic", "ionic")):
        if tensors and tensors.get(name):
            found += _matrix(label, tensors[name])
    return found


def _attempts(attempts: list[dict[str, Any]]) -> list[str]:
    found = []
    for attempt in attempts:
        found.append(
            f"attempt {attempt['number']}  {attempt['why']}; {attempt['cpu_s']:.0f} CPU s: "
            f"{attempt['failure'] or 'succeeded'}"
        )
        found += _wrapped(f"{n} = {v}" for n, v in _flat(attempt.get("settings") or {}))
        found += _wrapped(f"{n} {s:.0f} s" for n, s in (attempt.get("steps") or {}).items())
    return found


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of nested settings, the names joined by dots."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _wrapped(items: Iterable[str]) -> list[str]:
    """Rows of items, none of which is broken."""
    rows: list[str] = []
    for item in items:
        if rows and len(rows[-1]) + len(item) + 2 <= WIDTH:
            rows[-1] += f", {item}"
        else:
            rows.append(INDENT + item)
    return rows


def _facts(output: dict[str, Any]) -> list[str]:
    found = []
    # ABINIT's sum rules are imposed, and its k-points are those of the mesh for the gap.
    is_abinit = output["engine"] == "abinit"
    aside = ", before 0 was imposed" if is_abinit else ""
    if output["engine_version"]:
        found.append(f"program    {output['engine']} {output['engine_version']}")
    if output.get("relaxed_structure") is not None:
        found.append("structure  relaxed first; what follows is of the relaxed one (in --json)")
    if output["band_gap"] is not None:
        found.append(f"band gap   {output['band_gap']:.3f} eV, {output['functional']}")
    # A null was no number, and what the gate refuses has to be seen as well.
    charges = np.array(output["born_charges"], dtype=float)
    if charges.shape[1:] == (3, 3):
        traces = np.trace(charges, axis1=1, axis2=2) / 3
        found.append("Born       " + " ".join(f"{trace:+.3f}" for trace in traces) + " e (trace/3)")
        total = np.abs(charges.sum(axis=0)).max()
        found.append(f"{INDENT}they add up to {total:.4f} e{aside}")
    if output["frequencies_thz"]:
        values = np.array(output["frequencies_thz"], dtype=float)
        found.append(f"modes at Γ {' '.join(f'{value:.2f}' for value in values)} THz")
    if output["acoustic_thz"] is not None:
        found.append(f"{INDENT}rigid translations at {output['acoustic_thz']:.2f} THz{aside}")
    cost = output["cost"]
    if cost.get("n_electrons"):
        mesh = "k-points of the gap's mesh" if is_abinit else "k-points"
        found.append(
            f"cost       {cost['cpu_s']:.0f} CPU s: {cost['n_electrons']} electrons, "
            f"{cost['volume']:.1f} Å³, {cost.get('n_kpoints', '?')} irreducible {mesh}, "
            f"{cost.get('n_perturbations', '?')} irreducible perturbations"
        )
    return found


def _matrix(label: str, tensor: list[list[float]]) -> list[str]:
    rows = ["  ".join(f"{value:9.4f}" for value in row) for row in tensor]
    return [f"{label if i == 0 else '':10} {row}" for i, row in enumerate(rows)]
