"""One calculation as text."""

from __future__ import annotations

from typing import Any


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
    found += [f"verdict    {report['verdict']}", f"           {report['detail']}"]
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
        steps = attempt.get("steps") or {}
        if steps:
            found.append("           " + ", ".join(f"{n} {s:.0f} s" for n, s in steps.items()))
    return found


def _facts(output: dict[str, Any]) -> list[str]:
    found = []
    if output["engine_version"]:
        found.append(f"program    {output['engine']} {output['engine_version']}")
    if output["band_gap"] is not None:
        found.append(f"band gap   {output['band_gap']:.3f} eV, {output['functional']}")
    if output["born_charges"]:
        charges = output["born_charges"]
        traces = [sum(row[i] for i, row in enumerate(z)) / 3 for z in charges]
        found.append("Born       " + " ".join(f"{trace:+.3f}" for trace in traces) + " e (trace/3)")
        total = max(abs(sum(z[i][j] for z in charges)) for i in range(3) for j in range(3))
        found.append(f"           they add up to {total:.4f} e, and 0 was imposed")
    if output["frequencies_thz"]:
        values = " ".join(f"{f:.2f}" for f in output["frequencies_thz"])
        found.append(f"modes at Γ {values} THz")
    if output["acoustic_thz"] is not None:
        acoustic = f"{output['acoustic_thz']:.2f} THz"
        found.append(f"           rigid translations at {acoustic} before 0 was imposed")
    cost = output["cost"]
    if cost.get("n_electrons"):
        found.append(
            f"cost       {cost['cpu_s']:.0f} CPU s: {cost['n_electrons']} electrons, "
            f"{cost['volume']:.1f} Å³, {cost.get('n_kpoints', '?')} k-points, "
            f"{cost.get('n_perturbations', '?')} irreducible perturbations"
        )
    return found


def _matrix(label: str, tensor: list[list[float]]) -> list[str]:
    rows = ["  ".join(f"{value:9.4f}" for value in row) for row in tensor]
    return [f"{label if i == 0 else '':10} {row}" for i, row in enumerate(rows)]
