"""Settings of the decoders that a fit makes at once, and no session teaches. Apart, to be checked anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Prior = Literal["uniform", "frequency"]
Share = Annotated[float, Field(ge=0, le=1)]


class FittedSettings(BaseModel):
    """Settings of every decoder of classes that is fitted at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float | None = Field(None, gt=0, le=1, description="probability below which the decoder abstains")
    temperature: float | None = Field(
        None, gt=0, description="of the softmax; null fits it on trials of the training that were left out in turn"
    )
    prior: Prior = Field("uniform", description="of the classes; frequency: as labelled")


class LDASettings(FittedSettings):
    """Settings of decoder kind `lda`."""

    shrinkage: Literal["auto"] | Share = Field(
        "auto", description="of the covariance towards its diagonal; auto: after Ledoit and Wolf"
    )


class LogisticSettings(FittedSettings):
    """Settings of decoder kind `logistic`."""

    penalty: float = Field(1.0, gt=0, description="of the squared weights, on standardised features")


class CovarianceSettings(FittedSettings):
    """Settings of a decoder whose features are the covariance of channels in bands."""

    bands: int | None = Field(
        None, ge=1, description="of the front end; null where the data of the fit name their channels"
    )


class CSPSettings(LDASettings, CovarianceSettings):
    """Settings of decoder kind `csp`."""

    filters: int = Field(6, ge=1, le=64, description="spatial filters per band and contrast, from both ends in turn")
    ridge: float = Field(1e-5, ge=0, description="on each channel's power, relative to the mean over the channels")


class RiemannSettings(LogisticSettings, CovarianceSettings):
    """Settings of decoder kind `riemann`. penalty: of the squared weights in the tangent space."""

    ridge: float = Field(
        1e-2, gt=0, description="on each channel's power, relative to the mean over the channels of the same sample"
    )


FITTED: Mapping[str, type[FittedSettings]] = {
    "lda": LDASettings,
    "logistic": LogisticSettings,
    "csp": CSPSettings,
    "riemann": RiemannSettings,
}
