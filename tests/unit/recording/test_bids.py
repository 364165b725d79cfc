"""File names of BIDS."""

from pathlib import Path

import pytest

from neuroloop.errors import ConfigError
from neuroloop.recording.bids import bids_path


@pytest.mark.parametrize(
    ("entities", "stream_type", "expected"),
    [
        ("sub-01_task-reach", "ECoG", "sub-01/ieeg/sub-01_task-reach_ieeg.nwb"),
        ("sub-M7_ses-02_task-reach_run-1", "Ephys", "sub-M7/ses-02/ecephys/sub-M7_ses-02_task-reach_run-1_ecephys.nwb"),
    ],
)
def test_a_recording_lies_in_the_folders_of_its_subject_session_and_kind(entities, stream_type, expected):
    assert bids_path(Path("set"), entities, stream_type) == Path("set") / expected


@pytest.mark.parametrize(
    "entities", ["sub-01", "01_task-reach", "sub-0_1_task-x", "sub-01_task-x_run-a", "sub-../_task-x"]
)
def test_other_names_are_refused(entities):
    with pytest.raises(ConfigError, match="expected sub-ID"):
        bids_path(Path("set"), entities, "ECoG")


def test_a_name_that_bids_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="no NWB for streams of type 'EEG'"):
        bids_path(Path("set"), "sub-01_task-rest", "EEG")
