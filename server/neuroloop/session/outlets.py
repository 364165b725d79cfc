"""The results of a session as LSL streams: class scores at every bin, and a marker for every label."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence

import pylsl


class Outlets:
    """`{prefix}-scores`: one channel per class, timestamps at the bins' ends, NaN where the decoder abstains.

    `{prefix}-labels`: a marker with the label, at the end of each bin that has one.
    """

    def __init__(self, prefix: str, classes: Sequence[str], bin_s: float) -> None:
        host = socket.gethostname()
        scores = pylsl.StreamInfo(
            f"{prefix}-scores",
            "Scores",
            len(classes),
            1.0 / bin_s,
            pylsl.cf_double64,
            f"neuroloop:{host}:{prefix}-scores",
        )
        channels = scores.desc().append_child("channels")
        for label in classes:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("type", "Score")
        labels = pylsl.StreamInfo(
            f"{prefix}-labels", "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, f"neuroloop:{host}:{prefix}-labels"
        )
        self._scores = pylsl.StreamOutlet(scores)
        self._labels = pylsl.StreamOutlet(labels)
        self._abstained = [math.nan] * len(classes)

    def push(self, time: float, scores: list[float] | None, label: str | None) -> None:
        """Send a bin's result; time: its end, LSL seconds."""
        self._scores.push_sample(self._abstained if scores is None else scores, time)
        if label is not None:
            self._labels.push_sample([label], time)
