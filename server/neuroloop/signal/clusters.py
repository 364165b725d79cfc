"""Clusters of channels, from what a configuration says and what is known of the channels.

    32                          blocks of 32 channels in the order of the stream
    [[C3, C4], [0, 1]]          lists of labels or indices
    {by: bank}                  one cluster for each value of an element of the channels' descriptions
    {neighbours: 32}            at most 32 electrodes that lie together, from their positions
    nothing                     one cluster of all channels

Neighbours: electrodes further from all others than three times the usual distance to the nearest lie on another shank,
and no cluster reaches across shanks. A shank of more electrodes than allowed is cut across its longest side into parts
that differ by at most one electrode, again and again, so a 10 x 10 array in clusters of at most 32 becomes four squares
of 25. The same positions give the same clusters. O(channels^2) once, when a stream is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

SHANK_GAP = 3.0  # times the median distance to the nearest electrode
SHOWN = 8  # names in an error


class ByElement(BaseModel):
    """One cluster for each value of an element of the channels' descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str = Field(min_length=1, description="name of the element, such as bank, probe or shank; a/b for b within a")


class Neighbours(BaseModel):
    """Clusters of electrodes that lie together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: int = Field(ge=2, description="electrodes in a cluster, at most")


def _form(given: Any) -> str | None:
    if isinstance(given, ByElement) or (isinstance(given, Mapping) and "by" in given):
        return "by"
    if isinstance(given, Neighbours) or (isinstance(given, Mapping) and "neighbours" in given):
        return "neighbours"
    return "lists" if isinstance(given, list | tuple) else "size" if isinstance(given, int) else None


Clusters = Annotated[
    Annotated[int, Tag("size")]
    | Annotated[list[list[str | int]], Tag("lists")]
    | Annotated[ByElement, Tag("by")]
    | Annotated[Neighbours, Tag("neighbours")],
    Discriminator(
        _form,
        custom_error_type="clusters",
        custom_error_message="expected a block size, lists of channels, {by: element} or {neighbours: count}",
    ),
]
Position = tuple[float, float, float]


def resolve_clusters(
    clusters: Clusters | None,
    channel_count: int,
    labels: Sequence[str] | None = None,
    metadata: Sequence[Mapping[str, str]] | None = None,
    positions: Sequence[Position | None] | None = None,
) -> list[list[int]]:
    """The clusters as lists of channel indices.

    labels, metadata, positions: one for each channel, or None where they are not known. metadata: element -> text.
    Clusters by label pass without those channels while labels are not known.
    Raises ValueError for a channel that is not there or is named twice, and where the channels lack the element or the
    position that the clusters are made from.
    """
    if clusters is None:
        return [list(range(channel_count))]
    if isinstance(clusters, int):
        return [list(range(i, min(i + clusters, channel_count))) for i in range(0, channel_count, clusters)]
    names = list(labels) if labels is not None else [str(channel) for channel in range(channel_count)]
    if isinstance(clusters, ByElement):
        return _by_element(clusters.by, names, metadata or [{}] * channel_count)
    if isinstance(clusters, Neighbours):
        return _neighbours(clusters.neighbours, names, positions or [None] * channel_count)
    return _listed(clusters, labels, channel_count)


def _listed(clusters: list[list[str | int]], labels: Sequence[str] | None, channel_count: int) -> list[list[int]]:
    where = None if labels is None else {label: index for index, label in enumerate(labels)}
    resolved: list[list[int]] = []
    seen: set[int] = set()
    for number, cluster in enumerate(clusters):
        indices: list[int] = []
        for channel in cluster:
            if isinstance(channel, int):
                if not 0 <= channel < channel_count:
                    allowed = f"allowed: 0 to {channel_count - 1}"
                    raise ValueError(f"clusters.{number}: channel {channel} is not there; {allowed}")
                index = channel
            elif where is None or labels is None:
                continue
            elif channel not in where:
                raise ValueError(f"clusters.{number}: channel {channel!r} is not there; the stream has {_few(labels)}")
            else:
                index = where[channel]
            if index in seen:
                raise ValueError(f"clusters.{number}: channel {channel!r} is named twice")
            seen.add(index)
            indices.append(index)
        resolved.append(indices)
    return resolved


def _by_element(element: str, labels: Sequence[str], metadata: Sequence[Mapping[str, str]]) -> list[list[int]]:
    """In the order in which the values first come."""
    lacking = [label for label, known in zip(labels, metadata, strict=True) if not known.get(element)]
    if lacking:
        there = sorted({key for known in metadata for key, value in known.items() if value})
        raise ValueError(
            f"clusters: by {element}: the stream's description has no <{element}> for "
            f"{_counted(lacking, len(labels))}; its channels have {', '.join(there) or 'nothing but their order'}"
        )
    groups: dict[str, list[int]] = {}
    for channel, known in enumerate(metadata):
        groups.setdefault(known[element], []).append(channel)
    return list(groups.values())


def _neighbours(most: int, labels: Sequence[str], positions: Sequence[Position | None]) -> list[list[int]]:
    """In the order of each cluster's first channel; channels within a cluster in the order of the stream."""
    lacking = [
        label for label, place in zip(labels, positions, strict=True) if place is None or not np.isfinite(place).all()
    ]
    if lacking:
        raise ValueError(
            f"clusters: neighbours: the stream's description has no position (<location> with X, Y, Z) for "
            f"{_counted(lacking, len(labels))}"
        )
    places = np.array(positions, dtype=np.float64).reshape(-1, 3)
    parts = [part for shank in _shanks(places) for part in _bisected(places, shank, most)]
    return sorted(sorted(int(channel) for channel in part) for part in parts)


def _shanks(places: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Electrodes that hang together, step by step, by steps of at most SHANK_GAP usual distances."""
    count = len(places)
    nearest = np.full(count, np.inf)
    for channel in range(count):
        distances = _distances(places, channel)
        apart = distances[distances > 0]  # two contacts at one place say nothing about the spacing
        nearest[channel] = apart.min(initial=np.inf)
    step = SHANK_GAP * float(np.median(nearest)) if count else 0.0
    left = np.ones(count, dtype=bool)
    shanks = []
    for first in range(count):
        if not left[first]:
            continue
        left[first] = False
        found, waiting = [first], [first]
        while waiting:
            near = np.flatnonzero(left & (_distances(places, waiting.pop()) <= step)).tolist()
            left[near] = False
            found += near
            waiting += near
        shanks.append(np.array(found, dtype=np.intp))
    return shanks


def _distances(places: NDArray[np.float64], channel: int) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.sqrt(((places - places[channel]) ** 2).sum(axis=1))
    return distances


def _bisected(places: NDArray[np.float64], members: NDArray[np.intp], most: int) -> list[NDArray[np.intp]]:
    parts = -(-len(members) // most)
    if parts == 1:
        return [members]
    inside = places[members]
    longest, second, third = np.argsort(-np.ptp(inside, axis=0), kind="stable")
    order = np.lexsort((members, inside[:, third], inside[:, second], inside[:, longest]))
    # As many parts on either side as its electrodes fill evenly.
    cut = len(members) * (parts // 2) // parts
    return [
        *_bisected(places, members[order[:cut]], most),
        *_bisected(places, members[order[cut:]], most),
    ]


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels[:SHOWN]) + (", ..." if len(labels) > SHOWN else "")


def _counted(lacking: Sequence[str], count: int) -> str:
    return f"{len(lacking)} of {count} channels: {_few(lacking)}"
