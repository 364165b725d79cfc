"""Clusters of one size, side by side: one batched product for each size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Group:
    """The clusters of one size, side by side in the gathered block."""

    members: tuple[int, ...]
    first: int
    size: int

    @property
    def stop(self) -> int:
        return self.first + len(self.members) * self.size


def group_by_size(clusters: Sequence[Sequence[int]]) -> tuple[tuple[Group, ...], NDArray[np.intp]]:
    """Groups of clusters of one size, and the order of the channels that puts each group in one run of columns."""
    sizes: dict[int, list[int]] = {}
    for number, cluster in enumerate(clusters):
        if len(cluster):
            sizes.setdefault(len(cluster), []).append(number)
    groups: list[Group] = []
    order: list[int] = []
    for size, members in sizes.items():
        groups.append(Group(tuple(members), len(order), size))
        order += [channel for number in members for channel in clusters[number]]
    return tuple(groups), np.array(order, dtype=np.intp)
