"""Settings of decoder kinds `gsnn` and `gsnn_continuous` and of their fits, to be checked without PyTorch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Node = Annotated[str, Field(min_length=1, max_length=256)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NeighbourGraph(_Settings):
    """A function node for each site, connected with those nearest to it."""

    kind: Literal["knn"] = "knn"
    positions: list[list[float]] | None = Field(
        None, description="of each channel, in any unit; null: channels lie in a row, in their order"
    )
    neighbours: int = Field(6, ge=0, description="nearest sites that each site hears")


class ClusterGraph(_Settings):
    """A function node for each site and a hub for each cluster; sites and hub of a cluster hear each other."""

    kind: Literal["clusters"]
    clusters: list[list[int]] = Field(min_length=1, description="channels of each cluster, by number")


class NodeGraph(_Settings):
    """A graph written down node by node. Inputs are in the order of the features, outputs in that of the classes."""

    kind: Literal["nodes"]
    inputs: list[Node] = Field(min_length=1)
    functions: list[Node] = Field(min_length=1)
    outputs: list[Node] = Field(min_length=1)
    edges: list[tuple[Node, Node]] = Field(min_length=1, description="from, to")


GraphSettings = Annotated[NeighbourGraph | ClusterGraph | NodeGraph, Field(discriminator="kind")]


class NetworkSettings(_Settings):
    """Of the network, whatever it answers with."""

    channels: int = Field(4, ge=1, le=256, description="of each function node")
    layers: int = Field(3, ge=1, le=64)
    norm: Literal["layer", "rms", "softmax", "none"] = Field("none", description="over the channels of each node")
    norm_first: bool = Field(True, description="before the nonlinearity; false: after it")
    residual: bool = Field(True, description="edges keep what they carried, by a learned amount")
    mlp: int | None = Field(None, ge=1, le=4096, description="hidden units of a network in every node; null for none")
    attention: int | None = Field(
        None, ge=1, le=4096, description="hidden units of the gate of every node; null for none"
    )
    graph: GraphSettings = Field(
        default_factory=NeighbourGraph, description="what a fit connects; weights bring the graph they were fitted on"
    )

    @model_validator(mode="after")
    def _norm_has_channels(self) -> Self:
        if self.channels == 1 and self.norm in ("layer", "softmax"):
            raise ValueError(f"norm: {self.norm} needs two channels or more, got channels 1; take rms or none")
        return self


class GSNNSettings(NetworkSettings):
    """Settings of decoder kind `gsnn`."""

    threshold: float | None = Field(None, gt=0, le=1, description="probability below which the decoder abstains")
    temperature: float | None = Field(None, gt=0, description="of the softmax; null takes the one that the fit found")


class GSNNFitSettings(_Settings):
    """How a GSNN decoder is fitted: AdamW on the cross-entropy, or the squared error, and the pathway losses."""

    epochs: int = Field(200, ge=1, description="at most")
    patience: int = Field(20, ge=1, description="epochs without improvement before it stops")
    validation: float = Field(
        0.2, ge=0, lt=1, description="last share of the training, to stop by and for the temperature; 0: none"
    )
    batch: int = Field(64, ge=2, description="samples in a step")
    learning_rate: float = Field(1e-2, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    missing: float = Field(
        0.5, ge=0, lt=1, description="share of the features that each step takes as missing, against overfitting"
    )
    pathways: dict[str, list[int | str]] | None = Field(
        None, description="functions of each pathway, by number or name; null: the clusters of a graph of clusters"
    )
    dissimilar: list[tuple[str, str]] = Field(default_factory=list, description="pathways to be told apart")
    lambda_sim: float = Field(0.1, ge=0, description="weight of the similarity within pathways")
    lambda_dis: float = Field(0.0, ge=0, description="weight of the similarity of dissimilar pathways")
    self_inclusive: bool = Field(False, description="a node counts towards its own pathway, as published")
    learn_phi: bool = Field(False, description="learn how the channels of a node weigh in its score")
    threads: int = Field(1, ge=1, description="of the CPU")
    workers: int = Field(1, ge=1, description="processes that share every batch, over the nodes of engine: ray")
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _have_something_to_do(self) -> GSNNFitSettings:
        if self.workers > 1 and self.batch < 2 * self.workers:
            raise ValueError(f"workers: expected at most half of batch, {self.batch // 2}; got {self.workers}")
        return self


class GSNNContinuousFitSettings(GSNNFitSettings):
    """The same of a decoder of continuous targets."""

    missing: float = Field(
        0.2, ge=0, lt=1, description="share of the features that each step takes as missing, against overfitting"
    )
