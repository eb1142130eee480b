"""The fixed list of things that can be said about a finished calculation."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """Accepted, or refused with one reason.

    The values are what people read in tables and write in campaign files. They are stored in the
    ledger: a value may be added, but none may be renamed.
    """

    ACCEPTED = "accepted"
    UNCONVERGED = "unconverged"
    METALLIC = "metallic"
    ELECTRONIC_IS_IDENTITY = "electronic tensor is the identity"
    IMAGINARY_MODE = "imaginary mode"
    SOFT_MODE = "soft mode"
    NOT_SYMMETRIC = "not symmetric under the point group"
    EIGENVALUE_BELOW_1 = "eigenvalue below 1"
    IONIC_EIGENVALUE_BELOW_0 = "ionic eigenvalue below 0"
    NOT_FINITE = "not a finite 3×3 tensor"
    BORN_CHARGES_NOT_NEUTRAL = "born charges not neutral"
    INCOMPLETE = "incomplete"
    ENGINE_ERROR = "engine error"
    TIMEOUT = "timeout"
    UNSUPPORTED = "not supported by the engine"
