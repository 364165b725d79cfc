"""Recordings as XDF files: written, read by range, repaired, and handed to other programs. No session, no LSL."""
