"""Settings of an LNP fit. Apart from the fit, so that they can be checked without PyTorch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LNPFitSettings(BaseModel):
    """How an LNP encoder is fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["lbfgs", "adamw"] = Field("lbfgs", description="lbfgs takes all bins at once")
    epochs: int = Field(50, ge=1, description="at most; of L-BFGS, 20 iterations each")
    patience: int = Field(2, ge=1, description="epochs without improvement before it stops")
    min_delta: float = Field(1e-5, ge=0, description="what counts as improvement")
    validation: float = Field(0.1, ge=0, lt=1, description="last share of the bins, held out; 0: stop on the loss")
    learning_rate: float = Field(1e-2, gt=0, description="of AdamW")
    batch_bins: int = Field(4096, ge=1, description="bins in a piece, for AdamW")
    smooth_space: float = Field(0.0, ge=0, description="weight of the roughness of spatial kernels")
    smooth_time: float = Field(0.0, ge=0, description="weight of the roughness of temporal kernels")
    sparse: float = Field(0.0, ge=0, description="weight of mean |s| + mean |t|")
    shrink_spike_filters: float = Field(1e-4, ge=0, description="weight of the mean square of history and coupling")
    device: Literal["auto", "cpu", "cuda"] = Field("cpu", description="where it runs")
    threads: int = Field(1, ge=1, description="of the CPU; more are of use to large banks")
    seed: int = Field(0, ge=0, description="of the order of pieces")
