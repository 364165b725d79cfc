"""File names of BIDS, the Brain Imaging Data Structure, for recordings as NWB."""

from __future__ import annotations

import re
from pathlib import Path

from neuroloop.errors import ConfigError

ENTITIES = re.compile(
    r"sub-(?P<sub>[a-zA-Z0-9]+)(_ses-(?P<ses>[a-zA-Z0-9]+))?_task-[a-zA-Z0-9]+(_acq-[a-zA-Z0-9]+)?(_run-[0-9]+)?"
)
INTRACRANIAL = ("ieeg", "ecog", "seeg", "dbs")  # types of streams
SCALP = ("eeg", "eog", "emg", "ecg", "meg", "nirs")


def bids_path(root: Path, entities: str, stream_type: str) -> Path:
    """Where a data set with this root folder has the recording.

    entities: as `sub-01_ses-02_task-reach_run-1`; ses, acq and run may be left out. stream_type: XDF's, which decides
    between `ieeg` and, for micro-electrodes, `ecephys`. Raises ConfigError for others: BIDS has no NWB for EEG.
    """
    found = ENTITIES.fullmatch(entities)
    if found is None:
        raise ConfigError(f"bids: expected sub-ID[_ses-ID]_task-NAME[_acq-NAME][_run-NUMBER], got {entities!r}")
    if stream_type.lower() in SCALP:
        raise ConfigError(f"bids: has no NWB for streams of type {stream_type!r}; leave --bids out, or write .fif")
    kind = "ieeg" if stream_type.lower() in INTRACRANIAL else "ecephys"
    folders = [f"sub-{found['sub']}", *([f"ses-{found['ses']}"] if found["ses"] else []), kind]
    return root.joinpath(*folders, f"{entities}_{kind}.nwb")
