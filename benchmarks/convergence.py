"""Convergence of ABINIT's permittivities in cutoff and mesh, against the levels of accuracy.

Every crystal is calculated with the cutoff and mesh of each level, and with one of the two changed.
What is there is not repeated; stop and start it as you like.

    python benchmarks/convergence.py [NAME …] [--directory DIR] [--levels quick standard tight]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from calculations import calculate, calculation_of

from dft.abinit import AbinitEngine
from dft.abinit_input import Tuning
from dft.abinit_settings import LEVELS, AbinitSettings, Level
from dft.gate import judge
from dft.kmesh import mesh_of
from screening.builtin import builtin_hidden, builtin_known
from screening.material import Material
from screening.tensors import mean_permittivity

NAMES = ("LiH", "LiF", "LiCl", "LiBr", "NaH", "Li2O", "BN", "Be2C", "NaCl", "MgO")
CHANGES: tuple[tuple[Level, Level], ...] = (
    ("quick", "quick"), ("standard", "quick"), ("quick", "standard"), ("standard", "standard"),
    ("tight", "tight"),
)  # fmt: skip
"""Level of the cutoff, level of the mesh."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parser.add_argument("--directory", type=Path, default=Path("calculations"))
    parser.add_argument("--levels", nargs="*", default=list(LEVELS))
    parser.add_argument("--collect", action="store_true", help="show what is done, start nothing")
    given = parser.parse_args()
    crystals = {k.material.material_id: k.material for k in (*builtin_known(), *builtin_hidden())}
    print(f"{'':8}{'cutoff':>10}{'mesh':>15}{'ε∞':>10}{'static':>10}{'CPU s':>8}  verdict")
    for name in given.names:
        for cutoff, points in CHANGES:
            if cutoff in given.levels and points in given.levels:
                run(crystals[name], cutoff, points, given.directory, given.collect)


def run(
    material: Material, cutoff: Level, points: Level, directory: Path, collect: bool
) -> None:  # fmt: skip
    spacing = LEVELS[points].k_spacing
    elements = set(material.elements)
    ecut = Tuning.first(AbinitSettings(level=cutoff), elements, is_paw=True).ecut
    # The tolerances are those of the finer of the two.
    level = cutoff if LEVELS[cutoff].scf_tolerance <= LEVELS[points].scf_tolerance else points
    settings = AbinitSettings(level=level, ecut_ha=ecut, k_spacing=spacing, max_attempts=1)
    engine = AbinitEngine(settings)
    calculation = calculation_of(engine, material, directory)
    if calculation.result() is None:
        if collect:
            return
        list(calculate(engine, [material], directory))
    output = calculation.result()
    if output is None:
        return
    judgement = judge(material.structure, output)
    tensors = judgement.tensors
    values = [None, None] if tensors is None else [tensors.electronic, tensors.static]
    shown = [f"{'–' if v is None else f'{mean_permittivity(v):.3f}':>10}" for v in values]
    mesh = str(mesh_of(material.structure, spacing))
    print(
        f"{material.material_id:8}{ecut:7.0f} Ha{mesh:>15}{''.join(shown)}"
        f"{output.cost.get('cpu_s', 0):8.0f}  {judgement.verdict}",
        flush=True,
    )


if __name__ == "__main__":
    main()
