"""The results of a session as LSL streams: scores or targets at every bin, and a marker for every label."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence

import pylsl


class Outlets:
    """`{prefix}-scores`: one channel per class, timestamps at the bins' ends, NaN where the decoder abstains.

    `{prefix}-targets`: the same of continuous targets, where the session has some; NaN while the active decoder answers
    with classes. `{prefix}-labels`: a marker with the label, at the end of each bin that has one.
    """

    def __init__(self, prefix: str, classes: Sequence[str], bin_s: float, targets: Sequence[str] = ()) -> None:
        self._scores = _Values(f"{prefix}-scores", "Scores", "Score", classes, bin_s) if classes else None
        self._targets = _Values(f"{prefix}-targets", "Targets", "Target", targets, bin_s) if targets else None
        self._labels = pylsl.StreamOutlet(
            pylsl.StreamInfo(
                f"{prefix}-labels", "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, _source_id(f"{prefix}-labels")
            )
        )

    def push(self, time: float, scores: list[float] | None, label: str | None, continuous: bool = False) -> None:
        """Send a bin's result; time: its end, LSL seconds. continuous: scores are targets."""
        if self._scores is not None:
            self._scores.push(time, None if continuous else scores)
        if self._targets is not None:
            self._targets.push(time, scores if continuous else None)
        if label is not None:
            self._labels.push_sample([label], time)


class _Values:
    """An outlet of numbers at every bin."""

    def __init__(self, name: str, type: str, channel_type: str, labels: Sequence[str], bin_s: float) -> None:
        info = pylsl.StreamInfo(name, type, len(labels), 1.0 / bin_s, pylsl.cf_double64, _source_id(name))
        channels = info.desc().append_child("channels")
        for label in labels:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("type", channel_type)
        self._outlet = pylsl.StreamOutlet(info)
        self._nothing = [math.nan] * len(labels)

    def push(self, time: float, values: list[float] | None) -> None:
        self._outlet.push_sample(self._nothing if values is None else values, time)


def _source_id(name: str) -> str:
    return f"neuroloop:{socket.gethostname()}:{name}"
