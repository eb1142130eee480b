"""The key to the Materials Project: where it is looked for, and how it stays secret."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pydantic import SecretStr

from screening.errors import UserError
from screening.pulling import KeyProvider

KEY_LENGTH = 32
"""Length of a key of the Materials Project; older ones had 16 and are no longer valid."""
GET_KEY = "get one at https://materialsproject.org/api"


@dataclass(frozen=True)
class Key:
    """A key and the place it was found in; printing it shows only the place."""

    secret: SecretStr
    origin: str

    def redact(self, text: str) -> str:
        """``text`` without the key."""
        return text.replace(self.secret.get_secret_value(), "***")


def find_key(provider: KeyProvider) -> Key:
    """The key: from ``MP_API_KEY``, pymatgen's ``PMG_MAPI_KEY``, or else from ``provider``.

    Raises
    ------
    UserError
        None of them has a key, or the first that has one has no valid one.
    """
    for origin, value in (
        ("the environment variable MP_API_KEY", os.environ.get("MP_API_KEY")),
        ("pymatgen's setting PMG_MAPI_KEY", _pymatgen_setting()),
    ):
        if value and value.strip():
            return _checked(SecretStr(value.strip()), origin)
    secret = provider()
    if secret is not None and secret.get_secret_value().strip():
        stripped = SecretStr(secret.get_secret_value().strip())
        return _checked(stripped, "the Prefect Secret block 'mp-api-key'")
    raise UserError(
        f"There is no key to the Materials Project; {GET_KEY} and put it into MP_API_KEY, "
        "PMG_MAPI_KEY of ~/.config/.pmgrc.yaml, or the Prefect Secret block 'mp-api-key'."
    )


def _pymatgen_setting() -> str | None:
    if value := os.environ.get("PMG_MAPI_KEY"):
        return value  # pymatgen reads it when it is imported; it may have been set since
    from pymatgen.core import SETTINGS

    value = SETTINGS.get("PMG_MAPI_KEY")
    return value if isinstance(value, str) else None


def _checked(secret: SecretStr, origin: str) -> Key:
    text = secret.get_secret_value()
    if len(text) != KEY_LENGTH or not (text.isascii() and text.isalnum()):
        raise UserError(
            f"The key from {origin} is no key to the Materials Project (it has {len(text)} "
            f"characters, a key has {KEY_LENGTH} letters and digits); {GET_KEY}."
        )
    return Key(secret, origin)
