"""Settings of the predictor."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from models.papers.names import OPTIONS, OURS, parse
from screening.errors import UserError

EncoderName = Literal["7net-l3i5", "7net-0"]
Functional = Literal["PBE", "PBEsol"]
FUNCTIONALS: tuple[Functional, ...] = ("PBE", "PBEsol")


OURS_ALONE = (
    "batch_size", "learning_rate", "weight_decay", "dropout", "band_gap", "physics_effort",
    "physics_candidates",
)  # fmt: skip
"""Settings that mean nothing to a published model."""


class ModelSettings(BaseModel):
    """Ensemble of gated equivariant readouts on a frozen open potential."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(
        OURS,
        description="Which model: physics (ours), or a published one: "
        + ", ".join(OPTIONS)
        + ". A published model keeps its own optimiser settings.",
    )
    encoder: EncoderName = Field(
        "7net-l3i5", description="Frozen potential; 7net-0 is twice as fast and a little worse."
    )
    members: Annotated[int, Field(ge=2, le=50)] = Field(
        5, description="Networks in the ensemble, each trained on its own nine tenths."
    )
    epochs: Annotated[int, Field(ge=1)] = Field(60, description="Passes over the training set.")
    max_steps: Annotated[int, Field(ge=1)] = Field(
        6000, description="Upper limit of optimiser steps, whatever the size of the training set."
    )
    min_steps: Annotated[int, Field(ge=1)] = Field(
        400, description="Lower limit of optimiser steps, for training sets of a few crystals."
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(48, description="Crystals per step.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(3e-3, description="Peak of one cycle.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(2e-2, description="AdamW's.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="DTNet has 0.2; on these features it costs a third of the accuracy."
    )
    band_gap: bool = Field(
        True, description="Let the networks see the band gap of crystals whose gap is known."
    )
    physics_effort: Annotated[int, Field(ge=0)] = Field(
        500,
        description="Build the ionic part from Born charges and the potential's force constants "
        "where those need at most so many atoms × force evaluations (100 take a processor core a "
        "second); 0: nowhere.",
    )
    physics_candidates: Annotated[int, Field(ge=0)] = Field(
        200, description="Candidates per round, the best of a first pass, that get this treatment."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a CUDA GPU if there is one, otherwise the CPU."
    )

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Ours goes unnamed, as before there were others: campaigns and trained models of then
        remain what they were."""
        values: dict[str, Any] = handler(self)
        if values.get("name") == OURS:
            del values["name"]
        return values

    @model_validator(mode="after")
    def _name_exists(self) -> ModelSettings:
        if self.name == OURS:
            return self
        try:
            parse(self.name)
        except UserError as error:
            raise ValueError(str(error)) from None
        for field in OURS_ALONE:
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(
                    f"the published model {self.name} keeps its own {field}; leave it out"
                )
        return self
