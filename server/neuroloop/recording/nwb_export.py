"""A recording as an NWB file: Neurodata Without Borders, for DANDI and the tools around it (extra `nwb`).

    acquisition             every stream of numbers: voltages as ElectricalSeries, others as TimeSeries
    events                  markers, and which model and version each decoder answered with from then on
    electrodes              of every stream of voltages, and of the one that the session decoded, whatever it is
    processing/ecephys      rates, a vector a bin
    processing/behavior     what each decoder answered: scores, number of the label (-1 for none)
    trials                  labels that were learned
    units                   of a broadband session, the threshold crossings of each channel, if somebody finds them

Spike times are not recorded, but found by a replay (`spike_times`). Seconds count from the first sample, or from the
first note of the session where that was earlier; the date is that of the file's header.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from xml.etree import ElementTree

import numpy as np

from neuroloop.errors import ConfigError, ModelError
from neuroloop.recording.description import CONTROL
from neuroloop.recording.mne_export import IN_VOLTS, VOLTS
from neuroloop.recording.reader import XdfFile, XdfStream, open_xdf
from neuroloop.recording.recorded import RecordedSession
from neuroloop_sources.xdf.loader import positions_mm, read_markers

if TYPE_CHECKING:
    from neuroloop.recording.spike_times import SpikeTimes

OWN = "neuroloop-"  # types of streams that a session writes about itself
MARKERS = ("markers", "marker")
RATES = "neuroloop-rates"
IN_HERTZ = ("broadband", "counts")


SUBJECT = ("id", "species", "age", "sex")
AGE = re.compile(r"P(?=\d)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?")
SEXES = ("F", "M", "O", "U")

FindSpikes = Callable[[Path], "SpikeTimes | None"]


def to_nwb(
    path: Path | str,
    target: Path,
    stream: str | None = None,
    subject: Mapping[str, str] | None = None,
    find_spikes: FindSpikes | None = None,
) -> None:
    """Write an XDF file as NWB, reading it as it is written; a file that could not be completed is taken away.

    stream: name or number of the only stream of numbers to write; all by default. subject: id, species (in Latin), age
    (ISO 8601: P30Y) and sex (F, M, O, U), of which archives want all, or none. find_spikes: asked for the spikes of a
    broadband session, as `spike_times.spike_times`, which replays it; by default there are no units.
    Raises ModelError for a file or stream that cannot be used, and where pynwb is not installed.
    """
    try:
        import pynwb
    except ImportError as error:
        raise ModelError("export to NWB needs pynwb: pip install 'neuroloop[nwb]'") from error
    if subject is not None:
        _check_subject(subject)
    with open_xdf(path) as file:
        made = _Export(file, pynwb, subject)
        made.add_streams(chosen_streams(file, stream))
        made.add_markers()
        if made.session is not None:
            made.add_session(made.session)
            if find_spikes is not None and made.counts_spikes:
                made.add_units(find_spikes(file.path))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pynwb.NWBHDF5IO(str(target), "w") as io:
                io.write(made.nwb)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def chosen_streams(file: XdfFile, which: str | None) -> list[XdfStream]:
    """Those of numbers that others sent and that have samples, or that one. Raises ModelError where there is none."""
    fitting = [
        stream
        for stream in file.streams
        if not stream.info.is_text
        and stream.sample_count
        and not stream.info.type.startswith(OWN)
        and stream.info.type.lower() not in MARKERS
    ]
    found = [stream for stream in fitting if which is None or which in (stream.name, str(stream.stream_id))]
    if not found:
        known = ", ".join(f"{stream.stream_id} ({stream.name!r})" for stream in fitting) or "none"
        wanted = "a stream" if which is None else f"stream {which!r}"
        raise ModelError(f"{file.path}: expected {wanted} of numbers with samples; the file has {known}")
    return found


class _Export:
    """The NWB file, growing."""

    def __init__(self, file: XdfFile, pynwb: Any, subject: Mapping[str, str] | None) -> None:
        self._file = file
        self._pynwb = pynwb
        is_own = any(stream.info.type == CONTROL and stream.sample_count for stream in file.streams)
        self.session = RecordedSession(file) if is_own else None
        self._decoded = _decoded(self.session)
        self._names: set[str] = set()
        self._rows: dict[int, list[int]] = {}  # of the table of electrodes, by the number of the stream
        self._has_positions = False
        self._origin = min(
            (
                float(stream.synchronised(0, 1)[0])
                for stream in file.streams
                if stream.sample_count and (not stream.info.is_text or stream.info.type == CONTROL)
            ),
            default=0.0,
        )
        name = file.path.stem
        self.nwb = pynwb.NWBFile(
            session_description=f"{'A session of neuroloop' if is_own else 'An XDF recording'}: {name}",
            identifier=str(uuid4()),
            session_id=name,
            session_start_time=_date(file),
        )
        if subject is not None:
            self.nwb.subject = pynwb.file.Subject(
                subject_id=subject["id"], species=subject["species"], age=subject["age"], sex=subject["sex"]
            )

    def add_streams(self, streams: Sequence[XdfStream]) -> None:
        self._has_positions = any(positions_mm(stream) for stream in streams)
        for stream in streams:
            self._add_stream(stream)

    def _add_stream(self, stream: XdfStream) -> None:
        from neuroloop.recording.nwb_series import timing_of, values_of

        name = self._free_name(stream.name or f"stream{stream.stream_id}")
        scales = _volts(stream)
        electrodes = None
        if scales is not None or stream.stream_id in self._decoded:
            electrodes = self._electrodes(stream, name)
        facts = {
            "name": name,
            "description": f"{stream.info.type or 'Stream'}, {stream.info.nominal_srate:g} Hz nominal",
            "data": values_of(stream),
            **timing_of(stream, self._origin),
        }
        if scales is None:
            channels = ", ".join(stream.channels)
            unit = next(iter(set(stream.units)), "") if len(set(stream.units)) == 1 else ""
            series = self._pynwb.TimeSeries(unit=unit or "a.u.", comments=f"channels: {channels}", **facts)
        elif len(set(scales)) == 1:
            series = self._pynwb.ecephys.ElectricalSeries(electrodes=electrodes, conversion=scales[0], **facts)
        else:
            series = self._pynwb.ecephys.ElectricalSeries(electrodes=electrodes, channel_conversion=scales, **facts)
        self.nwb.add_acquisition(series)

    def add_markers(self) -> None:
        for stream in self._file.streams:
            if stream.info.type.lower() not in MARKERS or not stream.sample_count or stream.name.endswith(" labels"):
                continue
            times, texts = zip(*read_markers(self._file, str(stream.stream_id)), strict=True)
            name = self._free_name(stream.name or f"markers{stream.stream_id}")
            self._add_events(name, "Markers, as they were sent", times, texts)

    def add_session(self, session: RecordedSession) -> None:
        """What a session learned, measured and answered."""
        self._add_trials(session.labels())
        self._add_rates(session)
        self._add_predictions(session)

    def _add_trials(self, labels: list[tuple[str, float, float]]) -> None:
        if not labels:
            return
        self.nwb.add_trial_column("label", "What the person did or meant; the session learned it")
        for label, start, end in sorted(labels, key=lambda one: one[1]):
            self.nwb.add_trial(start_time=start - self._origin, stop_time=end - self._origin, label=label)

    def _add_rates(self, session: RecordedSession) -> None:
        from neuroloop.recording.nwb_series import timing_of, values_of

        streams = [stream for stream in self._file.streams if stream.info.type == RATES and stream.sample_count]
        if not streams:
            return
        module = self.nwb.create_processing_module("ecephys", "What the session computed from its stream")
        kind = session.begun["settings"]["front_end"]["kind"]
        for stream in streams:
            name = "rates" if len(streams) == 1 else f"rates_{stream.info.channel_count}"
            module.add(
                self._pynwb.TimeSeries(
                    name=name,
                    description=f"Rates of front end {kind}, one vector for each bin; the time is the end of the bin",
                    unit="hertz" if kind in IN_HERTZ else "a.u.",
                    data=values_of(stream),
                    **timing_of(stream, self._origin),
                )
            )

    def _add_predictions(self, session: RecordedSession) -> None:
        from neuroloop.recording.nwb_series import timing_at

        settings = session.begun["settings"]
        names = settings["classes"] or settings["targets"]
        answers: dict[str, list[tuple[float, int, list[float] | None, str]]] = defaultdict(list)
        for one in session.predictions():
            model = f"{one['model']['name']}@{one['model']['version']}, {one['role']}"
            index = -1 if one["index"] is None else one["index"]
            answers[one["decoder"]].append((one["time"], index, one["scores"], model))
        if not answers:
            return
        module = self.nwb.create_processing_module("behavior", "What the session's decoders answered, bin by bin")
        for decoder, rows in answers.items():
            safe = _safe(decoder)
            times, indices, scores, models = zip(*rows, strict=True)
            timing = timing_at(np.array(times) - self._origin)
            module.add(
                self._pynwb.TimeSeries(
                    name=f"scores_{safe}",
                    description=f"Scores of decoder {decoder} for {', '.join(names)}; not a number where it gave none",
                    unit="a.u.",
                    data=np.array([[np.nan] * len(names) if one is None else one for one in scores]),
                    **timing,
                )
            )
            if settings["classes"]:
                numbered = ", ".join(f"{number}: {name}" for number, name in enumerate(names))
                module.add(
                    self._pynwb.TimeSeries(
                        name=f"labels_{safe}",
                        description=f"Labels that decoder {decoder} answered ({numbered}, -1: none)",
                        unit="n.a.",
                        data=np.array(indices, np.int32),
                        **timing,
                    )
                )
            changes = [at for at, model in enumerate(models) if at == 0 or model != models[at - 1]]
            self._add_events(
                self._free_name(f"models_{safe}"),
                f"Model, version and role that decoder {decoder} answered with from then on",
                [times[at] for at in changes],
                [models[at] for at in changes],
            )

    def _add_events(self, name: str, description: str, times: Sequence[float], texts: Sequence[str]) -> None:
        events = self._pynwb.event.EventsTable(name=name, description=description)
        for time, text in zip(times, texts, strict=True):
            events.add_event(timestamp=time - self._origin, annotation=text)
        self.nwb.add_events_table(events)

    @property
    def counts_spikes(self) -> bool:
        """Whether the session found spikes in voltages."""
        return self.session is not None and self.session.begun["settings"]["front_end"]["kind"] == "broadband"

    def add_units(self, spikes: SpikeTimes | None) -> None:
        """A row for each channel of the session."""
        if spikes is None:
            return
        stream = self._file.stream(self._decoded[0])
        if stream.stream_id not in self._rows:
            self._electrodes(stream, self._free_name(stream.name or f"stream{stream.stream_id}"))
        rows = self._rows[stream.stream_id]
        self.nwb.units = self._pynwb.misc.Units(
            name="units",
            description="Threshold crossings of each channel, as the session counted them: multi-unit, not sorted. "
            "The filter is causal, so a spike is where its filtered voltage first fell below the threshold. "
            "Not observed: bins with a gap, of filters that settle, before the noise was known.",
            resolution=1.0 / stream.info.nominal_srate,
            electrode_table=self.nwb.electrodes,
        )
        self.nwb.add_unit_column("channel_name", "The channel's label in its stream")
        for channel, column, times in zip(spikes.channels, spikes.columns, spikes.times, strict=True):
            self.nwb.add_unit(
                channel_name=channel,
                spike_times=times - self._origin,
                obs_intervals=spikes.observed - self._origin,
                electrodes=[rows[column]],
            )

    def _electrodes(self, stream: XdfStream, name: str) -> Any:
        """Rows of the table of electrodes, for the stream's channels."""
        device = self.nwb.create_device(name=name, description=f"Sent {stream.name!r}, source {stream.source_id!r}")
        group = self.nwb.create_electrode_group(
            name=name, description=f"Channels of {stream.name!r}", location="unknown", device=device
        )
        if self.nwb.electrodes is None:
            self.nwb.add_electrode_column("channel_name", "The channel's label in its stream")
        first = 0 if self.nwb.electrodes is None else len(self.nwb.electrodes)
        positions = positions_mm(stream) or [(np.nan,) * 3] * len(stream.channels)
        for channel, position in zip(stream.channels, positions, strict=True):
            place = {}
            if self._has_positions:  # in micrometres
                place = {f"rel_{axis}": 1000 * one for axis, one in zip("xyz", position, strict=True)}
            self.nwb.add_electrode(location="unknown", group=group, channel_name=channel, **place)
        rows = self._rows[stream.stream_id] = list(range(first, first + len(stream.channels)))
        return self.nwb.create_electrode_table_region(rows, f"Channels of {stream.name!r}")

    def _free_name(self, name: str) -> str:
        safe, number = _safe(name), 1
        while (free := safe if number == 1 else f"{safe}_{number}") in self._names:
            number += 1
        self._names.add(free)
        return free


def _check_subject(subject: Mapping[str, str]) -> None:
    """Raises ConfigError for what an archive would refuse."""
    if subject.keys() != set(SUBJECT):
        raise ConfigError(f"subject: expected {', '.join(SUBJECT)}; got {', '.join(subject) or 'nothing'}")
    if not AGE.fullmatch(subject["age"]):
        raise ConfigError(f"subject age: expected a duration as P30Y or P90D, got {subject['age']!r}")
    if subject["sex"] not in SEXES:
        raise ConfigError(f"subject sex: expected one of {', '.join(SEXES)}, got {subject['sex']!r}")


def _safe(name: str) -> str:
    """Without what HDF5 takes for a path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


def _decoded(session: RecordedSession | None) -> list[int]:
    """Numbers of the streams that went into the session's loop."""
    notes = [] if session is None else session.notes
    return list(dict.fromkeys(note["stream"] for note in notes if note["kind"] == "ring"))


def _volts(stream: XdfStream) -> list[float] | None:
    """Volts of one unit, for each channel; None for a stream that is no voltage."""
    units = [unit.lower().removesuffix("s") for unit in stream.units]
    is_known = stream.info.type.lower() in IN_VOLTS
    if not all(unit in VOLTS and (unit or is_known) for unit in units):
        return None
    return [VOLTS[unit] for unit in units]


def _date(file: XdfFile) -> datetime:
    """When the file was begun, by its header; by the file system where that does not say."""
    try:
        made = datetime.fromisoformat(ElementTree.fromstring(file.index.header).findtext("datetime") or "")
    except (ValueError, ElementTree.ParseError):
        made = datetime.fromtimestamp(file.path.stat().st_mtime, UTC)
    return made if made.tzinfo else made.astimezone()
