"""A stream of a recording as MNE's `Raw`, with markers and gaps as annotations (extra `datasets`).

MNE knows no pauses: a sample's number is its time. What is missing in a pause is filled with zeros and marked
`BAD_ACQ_SKIP`, which MNE's filters and averages leave out, so that everything after it is at its time. A pause longer
than a day, and a clock that goes back, are marked `BAD boundary` where they are, and not filled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.recording.reader import XdfFile, XdfStream, open_xdf
from neuroloop_sources.recordings import pauses
from neuroloop_sources.xdf.loader import choose, read_markers

F64 = NDArray[np.float64]

PAGE_S = 10.0
LONGEST_PAUSE_S = 86_400.0
TYPES = ("eeg", "eog", "ecg", "emg", "ecog", "seeg", "dbs", "bio", "stim", "misc")
IN_VOLTS = TYPES[:8]
VOLTS = {
    "volt": 1.0,
    "v": 1.0,
    "millivolt": 1e-3,
    "mv": 1e-3,
    "microvolt": 1e-6,
    "uv": 1e-6,
    "µv": 1e-6,
    "μv": 1e-6,  # another letter
    "nanovolt": 1e-9,
    "nv": 1e-9,
    "": 1e-6,  # XDF's convention
}


def to_mne(path: Path | str, stream: str | None = None) -> Any:
    """A stream of an XDF file as `mne.io.RawArray`, all of it in memory.

    stream: name or number; the only one of numbers at a regular rate by default. Markers become annotations at their
    place by the synchronised clocks; those before the first or after the last sample are left out. Channels are of the
    type that the stream's or their own description gives, as far as MNE knows it, else `misc`; voltages are in volts.
    Raises ModelError for a file or stream that cannot be used, and where MNE is not installed.
    """
    mne = _import_mne()
    with open_xdf(path) as file:
        chosen = choose(file, stream)
        times = chosen.synchronised()
        places, skips, breaks = _places(times, chosen.info.nominal_srate)
        info = mne.create_info(list(chosen.channels), chosen.info.nominal_srate, _types(chosen))
        raw = mne.io.RawArray(_data(chosen, places), info, verbose="error")
        found = _marker_places(file, times, places)
    srate = chosen.info.nominal_srate
    marks = [(place / srate, 0.0, text) for place, text in found if 0 <= place < raw.n_times]
    marks += [(start / srate, count / srate, "BAD_ACQ_SKIP") for start, count in skips]
    marks += [(place / srate, 0.0, "BAD boundary") for place in breaks]
    onsets, durations, descriptions = zip(*sorted(marks), strict=True) if marks else ((), (), ())
    raw.set_annotations(mne.Annotations(onsets, durations, descriptions), verbose="error")
    return raw


def _import_mne() -> Any:
    try:
        import mne
    except ImportError as error:
        raise ModelError("to_mne needs MNE: pip install 'neuroloop[datasets]'") from error
    return mne


def _places(times: F64, srate: float) -> tuple[NDArray[np.int64], list[tuple[int, int]], list[int]]:
    """The place of each sample in the array; (first, count) of the places that are filled; those of other breaks."""
    missing = pauses(times, 1 / srate)
    went_back = (missing[1:] > 0) & (np.diff(times) < 1 / srate)
    missing[1:][went_back] = np.inf  # nothing that could be filled lies between
    unfilled = np.flatnonzero(missing > LONGEST_PAUSE_S)
    missing[missing > LONGEST_PAUSE_S] = 0
    filled = np.rint(missing * srate).astype(np.int64)
    places = np.arange(len(times)) + np.cumsum(filled)
    skips = [(int(places[after] - filled[after]), int(filled[after])) for after in np.flatnonzero(filled)]
    return places, skips, places[unfilled].tolist()


def _data(stream: XdfStream, places: NDArray[np.int64]) -> F64:
    """(channels, places), in volts where the channel is a voltage."""
    scale = np.array(
        [
            VOLTS.get(unit.lower().removesuffix("s"), 1.0) if kind in IN_VOLTS else 1.0
            for unit, kind in zip(stream.units, _types(stream), strict=True)
        ]
    )
    data = np.zeros((len(stream.channels), int(places[-1]) + 1))
    page = max(1, round(PAGE_S * stream.info.nominal_srate))
    for start in range(0, stream.sample_count, page):
        values = np.asarray(stream.read(start, start + page).values)
        data[:, places[start : start + page]] = (values * scale).T
    return data


def _types(stream: XdfStream) -> list[str]:
    own = stream.of_channels("type")
    kinds = [(kind or stream.info.type).lower() for kind in own]
    return [kind if kind in TYPES else "misc" for kind in kinds]


def _marker_places(file: XdfFile, times: F64, places: NDArray[np.int64]) -> list[tuple[float, str]]:
    """Markers between the first and last sample, by the time of the samples around them."""
    grown = np.maximum.accumulate(times)
    known = read_markers(file)
    at = np.interp([time for time, _ in known], grown, places, left=-1, right=-1)
    return [(place, text) for place, (_, text) in zip(at.tolist(), known, strict=True)]
