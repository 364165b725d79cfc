"""Settings of the decoders of continuous targets. Apart from them, so that they can be checked without a compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from neuroloop.models.gsnn_settings import NetworkSettings

Share = Annotated[float, Field(ge=0, le=1)]


class ContinuousSettings(BaseModel):
    """Settings of every decoder of continuous targets."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RidgeSettings(ContinuousSettings):
    """Settings of decoder kind `ridge`."""

    penalty: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        "auto", description="of the squared weights, on standardised features; auto: by five folds of the training"
    )


class KalmanSettings(ContinuousSettings):
    """Settings of decoder kind `kalman`."""

    velocity: bool = Field(True, description="the state is the targets and their change per bin, not the targets alone")
    shrinkage: Literal["auto"] | Share = Field(
        "auto", description="of the noise covariance of the features; auto: after Ledoit and Wolf"
    )


class GSNNContinuousSettings(ContinuousSettings, NetworkSettings):
    """Settings of decoder kind `gsnn_continuous`."""


CONTINUOUS: Mapping[str, type[ContinuousSettings]] = {
    "ridge": RidgeSettings,
    "kalman": KalmanSettings,
    "gsnn_continuous": GSNNContinuousSettings,
}
