"""Settings of the decoders on class rates. Apart from the decoders, so that they can be checked without a compiler."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Rule = Literal["mean", "sum"]


class OnlineSettings(BaseModel):
    """Settings of every decoder on class rates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decay: float = Field(0.0, ge=0, description="forgetting per labelled sample of the same class, exp(-decay)")
    half_life_s: float | None = Field(None, gt=0, description="forgetting per second of labelled time; null for none")
    threshold: float | None = Field(None, gt=0, le=1, description="probability below which the decoder abstains")
    temperature: float | None = Field(None, gt=0, description="of the softmax; null fits it on past labelled trials")


class MaxRateSettings(OnlineSettings):
    """Settings of decoder kind `maxrate`."""

    rule: Rule = Field(
        "mean", description="mean: rates do not depend on how often a class was shown; sum: as published"
    )
    normalize: Literal["deviation", "mean", "none"] = Field(
        "deviation", description="deviation from the mean over the classes in standard units; divide by it; as it is"
    )
    proportional: bool = Field(True, description="weigh each feature by its share p of the class it is assigned to")
    silent: Literal["none", "first"] = Field(
        "none", description="who owns a feature that is silent in every class: none, or the first class, as published"
    )


class PoissonSettings(OnlineSettings):
    """Settings of decoder kind `poisson`."""

    duration_s: float = Field(0.5, gt=0, description="T, the window that a rate vector covers")
    smoothing: float = Field(0.5, gt=0, description="samples of the mean rate that each class starts with")
    prior: Literal["uniform", "frequency"] = Field("uniform", description="of the classes; frequency: as labelled")
