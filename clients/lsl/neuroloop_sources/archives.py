"""Recordings in .npz archives, of three forms that are told apart by the arrays they hold.

*EEG*: `data` (channels, samples), `fs`, `ch_names`, `timestamps`, runs, events. *Track*: spike times of units and the
position of an animal on a linear track. *Stimulus*: a stimulus and the spikes of the neuron that it drove.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroloop_sources.errors import SourceError
from neuroloop_sources.recordings import Array, Recording, reader

F64 = NDArray[np.float64]

TRACK_RATE = 50.0
STIMULUS_RATE = 1000.0
POSITIONS = 4
WINDOW_S = 0.5
SMOOTHING_S = 0.25
RUNNING = 0.05  # of the track per second
OFF_TRACK_PX = 60.0
FORMS = {
    "eeg": {"data", "fs", "ch_names", "timestamps", "run_start_sample", "event_sample", "event_label", "label_names"},
    "track": {"pos_t_s", "pos_x_px", "pos_y_px", "n_units"},
    "stimulus": {"stim1", "spike_times_s1", "stim_fs"},
}


def load_npz(path: Path, run: int | None = None, rate: float | None = None) -> Recording:
    """An .npz recording.

    run: of an EEG archive, from 0; of a stimulus archive, 1 or 2. rate: bins per second of spike recordings.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path}: cannot be read as .npz: {error}") from error
    form = next((name for name, keys in FORMS.items() if keys <= arrays.keys()), None)
    if form is None:
        known = "; ".join(f"{name} ({', '.join(sorted(keys))})" for name, keys in FORMS.items())
        raise SourceError(f"{path}: no form that is known; it holds {', '.join(arrays)}; known are: {known}")
    if rate is not None and (form == "eeg" or not rate > 0):
        raise SourceError(f"rate: expected a positive number, for a spike recording, got {rate:g} for {path.name}")
    if run is not None and form == "track":
        raise SourceError(f"run: {path.name} has no runs")
    if form == "eeg":
        return _eeg(arrays, path.stem, run or 0)
    if form == "track":
        return _track(arrays, path.stem, rate or TRACK_RATE)
    return _stimulus(arrays, path.stem, 1 if run is None else run, rate or STIMULUS_RATE)


def _eeg(arrays: Mapping[str, Array], name: str, run: int) -> Recording:
    """One run, in microvolts; the text of a marker is the label of the event."""
    starts = arrays["run_start_sample"].tolist()
    if not 0 <= run < len(starts):
        raise SourceError(f"run: {name} has runs 0 to {len(starts) - 1}, got {run}")
    first, last = starts[run], [*starts, arrays["data"].shape[1]][run + 1]
    samples = np.ascontiguousarray(arrays["data"][:, first:last].T, np.float32)
    nominal_srate = float(arrays["fs"])
    labels = arrays["label_names"]
    return Recording(
        name=f"{name}_run{run}",
        type="EEG",
        nominal_srate=nominal_srate,
        sample_count=len(samples),
        channels=tuple(arrays["ch_names"].tolist()),
        units=("microvolts",) * samples.shape[1],
        format="float32",
        read=reader(samples),
        markers=tuple(
            ((event - first) / nominal_srate, str(labels[label]))
            for event, label in zip(arrays["event_sample"].tolist(), arrays["event_label"].tolist(), strict=True)
            if first <= event < last
        ),
        times=reader(arrays["timestamps"][first:last] - arrays["timestamps"][first]),
    )


def _track(arrays: Mapping[str, Array], name: str, rate: float) -> Recording:
    """Spike counts per unit and bin, to the end of tracking.

    While the animal runs, each half second is marked at its start with where it is, of four equal parts of the track,
    and whether it runs outwards or back: `p0-out` ... `p3-in`.
    """
    time, along = _along_track(arrays)
    began = float(arrays["pos_t_s"][0])
    sample_count = int((time[-1] - began) * rate)
    edges = began + np.arange(sample_count + 1) / rate
    units = [arrays[f"spike_times_s_u{unit}"] for unit in range(int(arrays["n_units"]))]
    counts = np.stack([np.histogram(spikes, edges)[0] for spikes in units], axis=1).astype(np.int16)
    return Recording(
        name=name,
        type="SpikeCounts",
        nominal_srate=rate,
        sample_count=sample_count,
        channels=tuple(f"unit{unit:02d}" for unit in range(len(units))),
        units=("count",) * len(units),
        format="int16",
        read=reader(counts),
        markers=_track_markers(time - began, along),
    )


def _along_track(arrays: Mapping[str, Array]) -> tuple[F64, F64]:
    """Times at which the animal was seen, and its place along the track then, from 0 to 1.

    The tracker answers with one constant place, or a corner, where it has lost the animal. The track is the straight
    line along which the positions vary most; what is far beside it is lost tracking as well.
    """
    x, y = arrays["pos_x_px"].astype(np.float64), arrays["pos_y_px"].astype(np.float64)
    seen = (x > 0) & (y > 0) & ~((x == x.max()) | (y == y.min()))
    values, counts = np.unique(np.stack([x, y], axis=1), axis=0, return_counts=True)
    stuck = values[np.argmax(counts)]
    seen &= (x != stuck[0]) | (y != stuck[1])
    places = np.stack([x, y], axis=1)[seen]
    places -= np.median(places, axis=0)
    across, axis = np.linalg.eigh(np.cov(places.T))[1].T
    beside = places @ across
    on_track = np.abs(beside - np.median(beside)) < OFF_TRACK_PX
    along = places[on_track] @ (axis * np.sign(axis[0]))
    low, high = np.percentile(along, [1, 99])
    return arrays["pos_t_s"][seen][on_track], (along - low) / (high - low)


def _track_markers(time: F64, along: F64) -> tuple[tuple[float, str], ...]:
    """time: seconds after the first sample. One marker for every window in which the animal runs."""
    per_window = 25
    step = WINDOW_S / per_window
    place = np.interp(np.arange(int(time[-1] / step)) * step, time, along)
    width = round(SMOOTHING_S / step) | 1
    place = np.convolve(np.pad(place, width // 2, mode="edge"), np.full(width, 1 / width), mode="valid")
    speed = np.gradient(place, step)
    windows = len(place) // per_window
    mean_place = place[: windows * per_window].reshape(windows, per_window).mean(axis=1)
    mean_speed = speed[: windows * per_window].reshape(windows, per_window).mean(axis=1)
    part = np.clip((mean_place * POSITIONS).astype(int), 0, POSITIONS - 1)
    return tuple(
        (window * WINDOW_S, f"p{part[window]}-{'out' if mean_speed[window] > 0 else 'in'}")
        for window in np.flatnonzero(np.abs(mean_speed) > RUNNING).tolist()
    )


def _stimulus(arrays: Mapping[str, Array], name: str, run: int, rate: float) -> Recording:
    """The stimulus' mean and the neuron's spike count in each bin, as two channels."""
    if f"stim{run}" not in arrays or f"spike_times_s{run}" not in arrays:
        raise SourceError(f"run: {name} has no stimulus {run}")
    stimulus, stimulus_rate = arrays[f"stim{run}"], float(arrays["stim_fs"])
    per_bin = round(stimulus_rate / rate)
    if per_bin < 1 or abs(per_bin * rate - stimulus_rate) > 1e-6 * stimulus_rate:
        raise SourceError(f"rate: expected a whole part of the stimulus' {stimulus_rate:g} Hz, got {rate:g}")
    sample_count = len(stimulus) // per_bin
    mean = stimulus[: sample_count * per_bin].reshape(sample_count, per_bin).mean(axis=1)
    spikes = np.histogram(arrays[f"spike_times_s{run}"], np.arange(sample_count + 1) / rate)[0]
    return Recording(
        name=f"{name}_{run}",
        type="StimulusAndSpikes",
        nominal_srate=rate,
        sample_count=sample_count,
        channels=("stimulus", "unit00"),
        units=("volts", "count"),
        format="float32",
        read=reader(np.stack([mean, spikes], axis=1).astype(np.float32)),
    )
