"""A flow for a crystal that an engine cannot do: it costs nothing and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobflow.core.flow import Flow
from jobflow.core.job import job

if TYPE_CHECKING:
    from dft.engine import CalculationOutput


def refuse(output: CalculationOutput) -> Flow:
    """A flow whose output is ``output``."""
    step = answer(output.to_dict())
    step.name = "not supported"
    return Flow([step], output=step.output, name=step.name)


@job
def answer(record: dict[str, Any]) -> dict[str, Any]:
    """Give ``record`` back."""
    return record
