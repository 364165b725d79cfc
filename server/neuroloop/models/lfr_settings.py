"""Settings of decoder kind `lfr` and of its fit. Apart from both, so that they can be checked without PyTorch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroloop.errors import ModelError

ProjectorKind = Literal["linear", "mlp", "conv"]


class LFRSettings(BaseModel):
    """Settings of decoder kind `lfr`: a backbone for windows of rate vectors, and the head on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Literal["conv", "gru"] = Field("conv", description="temporal convolution, or gated recurrent unit")
    bins: int = Field(25, ge=1, le=1000, description="rate vectors that a window holds, one per bin")
    window: int = Field(1, ge=1, le=10_000, description="bins whose mean is a rate vector; as the session's `window`")
    bin_ms: float | None = Field(None, gt=0, description="that a bin lasts; null: not known, and not checked")
    width: int = Field(64, ge=1, le=4096, description="of the layers, and features that the head sees")
    depth: int = Field(2, ge=1, le=8, description="convolutions")
    kernel: int = Field(5, ge=1, le=100, description="bins that a convolution covers")
    head: Literal["linear", "maxrate"] = Field(
        "linear", description="softmax regression, fitted; or MaxRate, which goes on learning in a session"
    )
    threshold: float | None = Field(None, gt=0, le=1, description="probability below which the decoder abstains")
    decay: float = Field(0.0, ge=0, description="of head maxrate: forgetting per labelled sample of a class")
    half_life_s: float | None = Field(None, gt=0, description="of head maxrate: forgetting per second; null for none")

    @model_validator(mode="after")
    def _fits_in_the_window(self) -> LFRSettings:
        if self.backbone == "conv" and self.pooled < 1:
            raise ValueError(
                f"{self.depth} convolutions of {self.kernel} bins need a window of {self.bins - self.pooled + 1} bins "
                f"or more, got {self.bins}; give fewer, or shorter ones"
            )
        return self

    @property
    def pooled(self) -> int:
        """Bins that the last convolution gives of a window."""
        return self.bins - self.depth * (self.kernel - 1)


class ProjectorSettings(BaseModel):
    """The random projectors that a backbone learns to predict, before some are chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(24, ge=1, le=1000, description="to choose from")
    kinds: tuple[ProjectorKind, ...] = Field(("linear", "mlp", "conv"), min_length=1)
    widths: tuple[int, ...] = Field((16, 64), min_length=1, description="of hidden layers and convolutions")
    depths: tuple[int, ...] = Field((1, 2), min_length=1, description="hidden layers, convolutions")
    kernel: int = Field(3, ge=1, le=100, description="bins that a convolution covers")
    outputs: int = Field(32, ge=1, le=4096)

    @model_validator(mode="after")
    def _have_layers(self) -> ProjectorSettings:
        if min(*self.widths, *self.depths) < 1:
            raise ValueError("widths, depths: expected numbers from 1 on")
        return self

    def check_window(self, bins: int) -> None:
        """Raise ModelError where a convolution is longer than the window."""
        least = 1 + max(self.depths) * (self.kernel - 1)
        if "conv" in self.kinds and bins < least:
            raise ModelError(
                f"projectors: {max(self.depths)} convolutions of {self.kernel} bins need a window of at least {least} "
                f"bins, got {bins}; give other kinds, fewer layers or shorter ones"
            )


class PredictorSettings(BaseModel):
    """What predicts each chosen projector from the adapted features."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(1, ge=0, le=8, description="hidden layers; 0 is linear")
    width: int = Field(64, ge=1, le=4096)


class LFRFitSettings(BaseModel):
    """How a decoder of kind `lfr` is fitted: pretraining without labels, then the head, then, if asked, both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pretrain_epochs: int = Field(20, ge=0, description="without labels, over all windows; 0: from scratch")
    targets: int = Field(8, description="projectors to predict, chosen to differ; 0 or too many: all")
    projectors: ProjectorSettings = Field(default_factory=ProjectorSettings)
    predictors: PredictorSettings = Field(default_factory=PredictorSettings)
    adapter: int = Field(64, ge=0, le=4096, description="features between backbone and predictors; 0: the backbone's")
    predictor_training_epochs: int | None = Field(None, description="epochs for the predictors alone, after each other")
    max_backbone_training_steps: int | None = Field(None, ge=0, description="then the backbone is frozen")
    tune_epochs: int | None = Field(
        None, ge=0, description="backbone and linear head together, at most; by default 0 after pretraining, else 100"
    )
    stride: int = Field(5, ge=1, description="bins from one window to the next within an epoch")
    batch: int = Field(128, ge=2, description="windows in a step")
    learning_rate: float = Field(3e-3, gt=0, description="of the pretraining")
    tune_learning_rate: float = Field(1e-3, gt=0, description="where backbone and head are trained together")
    weight_decay: float = Field(1e-2, ge=0)
    head_epochs: int = Field(200, ge=1, description="at most, of the linear head")
    ridge: float = Field(1e-3, ge=0, description="weight of the mean square of the linear head")
    patience: int = Field(10, ge=1, description="epochs without improvement before it stops")
    validation: float = Field(0.2, gt=0, lt=1, description="last share of the trials of the training, to stop on")
    device: Literal["auto", "cpu", "cuda"] = Field("cpu", description="where it runs")
    threads: int = Field(1, ge=1, description="of the CPU")
    workers: int = Field(1, ge=1, description="processes that share every batch, over the nodes of engine: ray")
    seed: int = Field(0, ge=0, description="of projectors, first weights, the sample for the choice, and order")

    @model_validator(mode="after")
    def _have_something_to_do(self) -> LFRFitSettings:
        if self.workers > 1 and self.batch < 2 * self.workers:
            raise ValueError(f"workers: expected at most half of batch, {self.batch // 2}; got {self.workers}")
        return self

    @property
    def targets_asked(self) -> int:
        """How many targets are to be chosen."""
        return self.targets if 0 < self.targets < self.projectors.count else self.projectors.count
