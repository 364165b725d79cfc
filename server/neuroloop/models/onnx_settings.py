"""Settings of decoder kind `onnx`. Apart from it, so that they can be checked without onnxruntime."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ONNXSettings(BaseModel):
    """Settings of decoder kind `onnx`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    window: int = Field(1, ge=1, le=10_000, description="rate vectors that the model sees, where it leaves that open")
    output: Literal["logits", "probabilities"] = Field("logits", description="what the model gives of each class")
    temperature: float = Field(1.0, gt=0, description="of the softmax over logits")
    threshold: float | None = Field(None, gt=0, le=1, description="probability below which the decoder abstains")
