"""Settings of linear regression rereferencing, with or without a session.

A module of its own, so that whoever reads a configuration need not import the numerics.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from neuroloop.signal.clusters import Clusters


class LRRSettings(BaseModel):
    """How weights are fitted. ezmsg-learn's name for a setting, where it has one, stands in brackets."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    clusters: Clusters | None = Field(
        None,
        description="[channel_clusters] channels per block; lists of labels or indices; {by: bank} for an element of "
        "the channels' descriptions; {neighbours: 32} for electrodes that lie together; by default one cluster of all",
    )
    half_life_s: float | None = Field(None, gt=0, description="of the covariance; by default nothing is forgotten")
    ridge: float = Field(1e-3, ge=0, description="relative to the mean diagonal of the covariance")
    ridge_absolute: float | None = Field(None, ge=0, description="[ridge_lambda] in squared units; replaces ridge")
    center: bool = Field(True, description="about the mean; false: the raw second moment, as published")
    initial: Literal["identity", "car"] = Field(
        "identity", description="[init_default] until weights are fitted or loaded; car: leave-one-out common average"
    )
    min_cluster: int = Field(2, ge=2, description="[min_regress] clusters of fewer channels stay as they are")
    min_samples_per_channel: float = Field(
        20.0, ge=0, description="samples per channel of a cluster before a fit counts; 0: as published"
    )

    @field_validator("clusters")
    @classmethod
    def _disjoint(cls, clusters: Clusters | None) -> Clusters | None:
        if isinstance(clusters, int) and clusters < 2:
            raise ValueError("a block size is at least 2")
        seen: set[str | int] = set()
        for cluster in clusters if isinstance(clusters, list) else []:
            for channel in cluster:
                if channel in seen:
                    raise ValueError(f"channel {channel!r} is named twice; clusters must not overlap")
                seen.add(channel)
        return clusters
