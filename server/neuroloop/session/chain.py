"""Everything that a session makes for one stream, before the first sample is let in.

Made in the acquire thread, so that compiling and warming up cost the loop nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroloop.config import DecoderSettings, SessionSettings, check_clusters, check_rate
from neuroloop.errors import ModelError, StreamError
from neuroloop.memory import array_bytes
from neuroloop.models.base import is_continuous, make_decoder
from neuroloop.pipeline import Pipeline
from neuroloop.session.blocks import BlockCutter
from neuroloop.session.decoders import Decoders
from neuroloop.session.guard import Guard, budget_ms
from neuroloop.session.labels import RateHistory
from neuroloop.session.loading import Needs
from neuroloop.session.outlets import Outlets
from neuroloop.session.rereferencing import Rereferencing
from neuroloop.session.ring import Ring
from neuroloop.session.running import Fault, RunningDecoder
from neuroloop.session.sender_clock import SenderClock
from neuroloop.session.streams import StreamDescription
from neuroloop.session.timeline import Timeline


@dataclass
class Chain:
    """What lies between the ring and the results; owned by the loop from the moment it gets it."""

    description: StreamDescription
    columns: NDArray[np.int64]
    ring: Ring
    timeline: Timeline
    clock: SenderClock
    cutter: BlockCutter
    pipeline: Pipeline
    rereferencing: Rereferencing | None
    decoders: Decoders
    history: RateHistory
    outlets: Outlets | None
    gpu_memory_bytes: int = 0
    memory_bytes: int = 0  # of all arrays when the chain was made; past weights come on top, see `KEPT_BYTES`

    def restart(self, count: int) -> None:
        """A new run from this sample on: what was learned stays, what was not consumed is forgotten."""
        self.ring.consumed = count
        self.timeline.restart(count)
        self.clock.restart()
        self.cutter.drop_partial()
        self.reset()

    def rejoin(self, count: int, index: int, time: float, shift: float, followed: float) -> None:
        """Go on with this sample where another process ended: after sample `index` - 1, which was of this time.

        shift, followed: by how much the sender's clock had been set, and how much of it liblsl's offset knew.
        """
        self.ring.consumed = count
        self.timeline.rejoin(count, time, shift)
        self.clock.offset.followed = followed
        self.cutter.rejoin(index, time)
        self.reset()

    def resume(self, count: int) -> None:
        """The stream was lost and is back with this sample; the hole is counted when it comes."""
        self.timeline.resume(count)
        self.reset()

    def reset(self) -> None:
        """What comes next does not follow what came last."""
        self.pipeline.reset()
        self.decoders.reset()

    def end(self) -> None:
        self.decoders.end()
        if self.rereferencing is not None:
            self.rereferencing.end()


def check_stream(session: SessionSettings, description: StreamDescription) -> NDArray[np.int64]:
    """The indices of the channels to use. Raises StreamError where the stream is not what the session was made for."""
    wanted, name = session.stream, description.name
    if description.format in ("string", "undefined") or description.nominal_srate <= 0:
        raise StreamError(
            f"stream {name!r}: expected numbers at a regular rate, "
            f"got format {description.format} at {description.nominal_srate:g} Hz"
        )
    if wanted.channel_count is not None and wanted.channel_count != description.channel_count:
        raise StreamError(
            f"stream {name!r}: expected {wanted.channel_count} channels (stream.channel_count), "
            f"got {description.channel_count}"
        )
    if wanted.nominal_srate is not None and wanted.nominal_srate != description.nominal_srate:
        raise StreamError(
            f"stream {name!r}: expected {wanted.nominal_srate:g} Hz (stream.nominal_srate), "
            f"got {description.nominal_srate:g} Hz"
        )
    labels = wanted.channels or list(description.channels)
    missing = [label for label in labels if label not in description.channels]
    if missing:
        raise StreamError(
            f"stream {name!r}: has no channel {', '.join(missing[:8])} (stream.channels); "
            f"it has {', '.join(description.channels[:16])}{', ...' if description.channel_count > 16 else ''}"
        )
    columns = np.array([description.channels.index(label) for label in labels], dtype=np.int64)
    try:
        check_rate(session, description.nominal_srate)
        if _rereferences(session):
            _clusters(session, description, columns)
    except ValueError as error:
        raise StreamError(f"stream {name!r}: {error}") from error
    return columns


def _rereferences(session: SessionSettings) -> bool:
    return session.rereference.enabled and session.front_end.kind not in ("counts", "covariance")


def _clusters(
    session: SessionSettings, description: StreamDescription, columns: NDArray[np.int64]
) -> list[list[str | int]]:
    """The rereference's clusters as indices into the channels in use. Raises ValueError."""
    found = check_clusters(
        session.rereference.clusters,
        [description.channels[c] for c in columns],
        len(columns),
        [description.metadata[c] for c in columns] if description.metadata else None,
        [description.positions[c] for c in columns],
    )
    return [list(cluster) for cluster in found]


def _with_clusters_as_indices(
    session: SessionSettings, description: StreamDescription, columns: NDArray[np.int64]
) -> SessionSettings:
    """What the stream alone can tell is settled here; the pipeline knows channels by their labels only."""
    if not _rereferences(session):
        return session
    clusters = _clusters(session, description, columns)
    return session.model_copy(update={"rereference": session.rereference.model_copy(update={"clusters": clusters})})


def make_chain(session: SessionSettings, description: StreamDescription, dtype: np.dtype[np.generic]) -> Chain:
    """Build, compile and warm up. Raises StreamError; ModelError for settings that a decoder does not have."""
    columns = check_stream(session, description)
    session = _with_clusters_as_indices(session, description, columns)
    channels = tuple(description.channels[c] for c in columns)
    nominal_srate = description.nominal_srate
    pipeline = Pipeline(session, nominal_srate, channels)
    pipeline.warm_up()
    stage, rereferencing = pipeline.front_end.rereference, None
    if stage is not None:
        rereferencing = Rereferencing(
            stage,
            session.rereference,
            nominal_srate=nominal_srate,
            block_samples=pipeline.block_samples,
            scale=pipeline.front_end.scale,
        )
    history = RateHistory(len(pipeline.features), pipeline.bin_s)
    capacity = max(2 * pipeline.bin_samples, round(session.stream.buffer_s * nominal_srate))
    chain = Chain(
        description,
        columns,
        Ring(capacity, description.channel_count, dtype),
        Timeline(nominal_srate, session.stream.dejitter),
        SenderClock(nominal_srate),
        BlockCutter(pipeline.block_samples, pipeline.bin_samples, columns, nominal_srate, session.stream.fill, dtype),
        pipeline,
        rereferencing,
        _decoders(session, pipeline, history),
        history,
        Outlets(session.outlets.prefix or session.name, session.classes, pipeline.bin_s, session.targets)
        if session.outlets.enabled
        else None,
    )
    chain.ring.wanted = pipeline.block_samples
    chain.memory_bytes = array_bytes(chain)
    chain.gpu_memory_bytes = pipeline.front_end.gpu_memory_bytes
    return chain


def _names(settings: DecoderSettings, needs: Needs) -> tuple[str, ...]:
    """What a decoder answers with: classes or targets. Raises ModelError where the session has none of these."""
    continuous = is_continuous(settings.kind)
    names = needs.targets if continuous else needs.classes
    if not names:
        what = "targets" if continuous else "classes"
        raise ModelError(f"decoder {settings.name!r}: kind {settings.kind} needs `{what}`, and the session has none")
    return names


def _decoders(session: SessionSettings, pipeline: Pipeline, history: RateHistory) -> Decoders:
    """Fresh decoders, each asked once before the first bin. Raises ModelError."""
    classes, targets, features = tuple(session.classes), tuple(session.targets), len(pipeline.features)
    needs = Needs(classes, pipeline.channels, features, history.size, targets, session.window, pipeline.bin_s)
    bin_ms = 1000 * pipeline.bin_s
    running = {}
    for settings in session.decoders:
        names = _names(settings, needs)
        duration_s = session.window * pipeline.bin_s
        decoder = make_decoder(settings.kind, names, needs.features, settings.settings, duration_s)
        running[settings.name] = RunningDecoder(
            settings.name, settings.kind, settings.role, decoder, needs.history_bins
        )
        with suppress(Fault):  # told at the first bin, and then only if it lasts
            running[settings.name].predict(np.zeros(needs.features, np.float32))
    chosen = {settings.name: settings for settings in session.decoders}
    (active,) = (settings for settings in session.decoders if settings.role == "active")

    def guard(name: str) -> Guard:
        """As the decoder of this name is configured; one that came later, as the active one."""
        settings = chosen.get(name, active)
        return Guard(budget_ms(settings.budget_ms, bin_ms), settings.overrun_bins)

    return Decoders(session.name, running.pop(active.name), running.values(), needs, guard)
