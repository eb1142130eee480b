"""Atomic units in those of the field (CODATA 2018)."""

from __future__ import annotations

EV_PER_HARTREE = 27.211386245988
ANGSTROM_PER_BOHR = 0.529177210903
