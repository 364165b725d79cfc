"""Recordings as XDF files: written, read by range, repaired, and handed to other programs. No session, no LSL."""

from neuroloop.recording.mne_export import to_mne
from neuroloop.recording.nwb_export import to_nwb
from neuroloop.recording.reader import open_xdf
from neuroloop.recording.writer import XdfWriter, stream_header

__all__ = ["XdfWriter", "open_xdf", "stream_header", "to_mne", "to_nwb"]
