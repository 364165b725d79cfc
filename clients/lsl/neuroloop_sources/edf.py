"""EDF recordings through MNE (extra `datasets`), and the EEG Motor Movement/Imagery data that MNE downloads.

MNE reads a few seconds at a time, so that a long file need not fit into memory; volts become microvolts.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from neuroloop_sources.errors import SourceError
from neuroloop_sources.recordings import Array, Recording

MIRROR = "NEUROLOOP_DATA"
EEGBCI_FOLDER = Path("MNE-eegbci-data", "files", "eegmmidb", "1.0.0")
SUBJECTS, RUNS = 109, 14
PAGE_S = 10.0
IN_VOLTS = {"eeg", "eog", "ecg", "emg", "seeg", "ecog", "dbs", "bio"}
UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, AssertionError, UnicodeError)


def _import_mne() -> Any:
    try:
        import mne
    except ImportError as error:
        raise SourceError("EDF recordings need MNE: pip install 'neuroloop[datasets]'") from error
    return mne


def load_eegbci(subject: int, run: int) -> Recording:
    """One run of the EEG Motor Movement/Imagery data: 64 channels, 160 Hz, annotations T0, T1, T2 as markers.

    subject: 1 to 109. run: 1 to 14. The folder that NEUROLOOP_DATA names is looked in first; what is not there is
    downloaded by MNE, with progress and checksum, into its cache.
    """
    mne = _import_mne()
    for key, value, last in (("subject", subject, SUBJECTS), ("run", run, RUNS)):
        if not 1 <= value <= last:
            raise SourceError(f"eegbci {key}: expected 1 to {last}, got {value}")
    relative = EEGBCI_FOLDER / f"S{subject:03d}" / f"S{subject:03d}R{run:02d}.edf"
    mirror = os.environ.get(MIRROR)
    found = mirror is not None and Path(mirror, relative).is_file()
    try:
        (path,) = mne.datasets.eegbci.load_data(subject, run, path=mirror if found else None, update_path=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"eegbci subject {subject} run {run}: could not be downloaded ({reason}); "
            f"{MIRROR} may name a folder with {relative}"
        ) from error
    raw = _open(mne, Path(path))
    mne.datasets.eegbci.standardize(raw)
    raw.set_montage("standard_1005", verbose="error")
    return _recording(raw, Path(path).stem)


def load_edf(path: Path) -> Recording:
    """Any EDF file that MNE can read; annotations as markers."""
    return _recording(_open(_import_mne(), path), path.stem)


def _open(mne: Any, path: Path) -> Any:
    try:
        return mne.io.read_raw_edf(path, preload=False, verbose="error")
    except UNREADABLE as error:
        raise SourceError(f"{path}: MNE cannot read it as EDF: {error}") from error


def _recording(raw: Any, name: str) -> Recording:
    nominal_srate = float(raw.info["sfreq"])
    in_volts = [kind in IN_VOLTS for kind in raw.get_channel_types()]
    scale = np.where(in_volts, 1e6, 1.0)[:, None]
    page_samples = max(1, round(PAGE_S * nominal_srate))
    sample_count = int(raw.n_times)

    @lru_cache(maxsize=2)
    def page(number: int) -> Array:
        first = number * page_samples
        values = raw.get_data(start=first, stop=min(first + page_samples, sample_count), verbose="error")
        return np.ascontiguousarray((values * scale).T, np.float32)

    def read(start: int, stop: int) -> Array:
        parts = [
            page(number)[max(start - number * page_samples, 0) : stop - number * page_samples]
            for number in range(start // page_samples, -(-stop // page_samples))
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([page(0)[:0], *parts])

    places = np.array([channel["loc"][:3] for channel in raw.info["chs"]]) * 1000
    known = np.isfinite(places).all() and np.any(places, axis=1).all()
    return Recording(
        name=name,
        type="EEG",
        nominal_srate=nominal_srate,
        sample_count=sample_count,
        channels=tuple(raw.ch_names),
        units=tuple("microvolts" if volts else "" for volts in in_volts),
        format="float32",
        read=read,
        markers=tuple(sorted((float(a["onset"]), str(a["description"])) for a in raw.annotations)),
        positions_mm=tuple((float(x), float(y), float(z)) for x, y, z in places) if known else (),
    )
