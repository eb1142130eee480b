"""Names of the published models, and the options that a name may carry.

A name is a model, or a model and options joined by ``+``: ``goectp-icom+standard+1-layer``.
"""

from __future__ import annotations

from dataclasses import dataclass

from screening.errors import UserError

OURS = "physics"
"""Name of our own model among the others."""
_GOECTP = ("standard", "1-layer", "pretrained")
_DTNET = (*(f"layer-{n}" for n in range(4)), "random")
OPTIONS: dict[str, tuple[str, ...]] = {
    "dtnet": _DTNET,
    "dtnet-simple": _DTNET,
    "goectp": _GOECTP,
    "goectp-mat": _GOECTP,
    "goectp-icom": _GOECTP,
    "painn": (),
    "m3gnet": (),
    "matten": (),
    "etgnn": (),
    "gmtnet": (),
}
"""Every published model with the options it has."""


@dataclass(frozen=True)
class Choice:
    """A published model and its options."""

    base: str
    options: frozenset[str]

    def __str__(self) -> str:
        return "+".join([self.base, *sorted(self.options)])

    def without(self, option: str) -> Choice:
        """The same without one option."""
        return Choice(self.base, self.options - {option})

    @property
    def layer(self) -> int | None:
        """The only layer of the encoder that is looked at; None: all of them."""
        layers = [int(o.removeprefix("layer-")) for o in self.options if o.startswith("layer-")]
        return layers[0] if layers else None


def parse(name: str) -> Choice:
    """The model that a name means.

    Raises
    ------
    UserError
        There is no such model, or it has no such option.
    """
    base, *options = name.split("+")
    if base == OURS:
        raise UserError(f"{OURS} is ours, not a published model; it has no options.")
    if base not in OPTIONS:
        raise UserError(
            f"There is no model '{base}'; choose {OURS} (ours) or one of {', '.join(OPTIONS)}."
        )
    for option in options:
        if option not in OPTIONS[base]:
            known = ", ".join(OPTIONS[base]) or "none"
            raise UserError(f"The model {base} has no option '{option}'; it has: {known}.")
    choice = Choice(base, frozenset(options))
    if sum(o.startswith("layer-") for o in choice.options) > 1:
        raise UserError(f"{name}: give one layer of the encoder, or none for all of them.")
    return choice
