"""Which crystals have open shells, and therefore need spin and usually a Hubbard correction."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Structure

FIRST_ROW = ("Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu")
"""Metals whose d shell is narrow enough for local moments in insulators. In the 4d and 5d rows the
crystal field pairs the electrons (MoS2, ReS2, PtO2)."""
HALF_FILLED = ("Cr", "Mn")
"""Those whose moments survive covalent bonds too (LiMnAs, CrSb2)."""
IONIC = 2.5
"""Pauling electronegativity from which an anion (C, S and above) leaves a 3d metal its charge."""


def open_shell(structure: Structure) -> str | None:
    """Why the crystal is expected to be magnetic, as part of a sentence; None if it is not.

    Oxidation states are guessed from the composition. An ion is taken as magnetic if its 3d shell
    is neither empty nor full, or its 4f or 5f shell is partly filled. Low-spin ions (Co3+, Fe2+ in
    pyrite) are closed shells in truth, which a composition does not show. Elements and
    intermetallic compounds of the 3d row have no oxidation states worth the name, and neither have
    compounds with weak anions alone, but for those of chromium and manganese: they pass, for those
    that are magnetic come out as metals without spin, and those with a gap share their d electrons
    in bonds (half-Heusler compounds such as TiCoSb, FeAs2, CoSb3, NiP2, Mg2FeH6).
    """
    composition = structure.composition
    metals = [el for el in composition.elements if _may_be_magnetic(el)]
    if metals and not any(el.X >= IONIC for el in composition.elements):
        metals = [el for el in metals if el.symbol not in FIRST_ROW or el.symbol in HALF_FILLED]
    if not metals:
        return None
    guesses = composition.oxi_state_guesses()
    states = guesses[0] if guesses else {}
    for element in metals:
        state = states.get(element.symbol)
        if not state:
            if element.symbol not in FIRST_ROW:
                return f"{element.symbol} has an open f shell and no clear oxidation state here"
            continue
        if element.symbol in FIRST_ROW:
            filled = element.group - state
            if 0 < filled < 10:
                return f"{element.symbol}{_charge(state)} has an open shell (d{_count(filled)})"
        else:
            filled = element.Z - (54 if element.is_lanthanoid else 86) - state
            if 0 < filled < 14:
                return f"{element.symbol}{_charge(state)} has an open shell (f{_count(filled)})"
    return None


def _may_be_magnetic(element: object) -> bool:
    symbol = getattr(element, "symbol", "")
    f_block = bool(getattr(element, "is_lanthanoid", False)) or bool(
        getattr(element, "is_actinoid", False)
    )
    return symbol in FIRST_ROW or f_block


def _charge(state: float) -> str:
    return f"{_count(abs(state))}{'+' if state >= 0 else '-'}"


def _count(number: float) -> str:
    return f"{number:.3g}"
