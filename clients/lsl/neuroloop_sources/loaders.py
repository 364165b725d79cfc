"""Recordings by name: what `neuroloop play` and `neuroloop demo --dataset` take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuroloop_sources.archives import load_npz
from neuroloop_sources.edf import load_edf, load_eegbci
from neuroloop_sources.errors import SourceError
from neuroloop_sources.recordings import Recording, chain
from neuroloop_sources.xdf.loader import load_xdf

EEGBCI = "eegbci"


def open_source(
    source: str,
    *,
    subject: int = 1,
    runs: Sequence[int] | None = None,
    rate: float | None = None,
    stream: str | None = None,
    markers: str | None = None,
) -> Recording:
    """The recording that `source` names: an .xdf, .edf or .npz file, or `eegbci`.

    subject: of eegbci. runs: of eegbci (1 by default) or of an .npz that has runs; several are chained. rate: bins per
    second of a spike recording. stream, markers: name or number, of an .xdf; see `load_xdf`. Raises SourceError.
    """
    path = Path(source)
    kind = EEGBCI if source == EEGBCI else path.suffix.lower()
    if kind not in (EEGBCI, ".edf", ".npz", ".xdf"):
        raise SourceError(f"{source}: expected an .xdf, .edf or .npz file, or {EEGBCI!r}")
    if kind != EEGBCI and not path.is_file():
        raise SourceError(f"{source}: no such file")
    if rate is not None and kind != ".npz":
        raise SourceError(f"rate: only for spike recordings in .npz files, got {rate:g} for {source}")
    for key, value in (("stream", stream), ("markers", markers)):
        if value is not None and kind != ".xdf":
            raise SourceError(f"{key}: only for .xdf files, got {value!r} for {source}")
    if kind in (".edf", ".xdf"):
        if runs:
            raise SourceError(f"run: {source} has no runs")
        return load_edf(path) if kind == ".edf" else load_xdf(path, stream, markers)
    if kind == EEGBCI:
        parts = [load_eegbci(subject, run) for run in runs or (1,)]
    else:
        parts = [load_npz(path, run, rate) for run in runs or (None,)]
    return parts[0] if len(parts) == 1 else chain(parts)
