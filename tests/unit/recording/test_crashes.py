"""A process that is killed while it records."""

import os
import signal
import time

import numpy as np
import pytest

from neuroloop.recording.reader import XdfFile
from neuroloop.recording.repair import repair
from neuroloop.recording.writer import XdfWriter, stream_header

ROWS, CHANNELS = 300, 64
TIMEOUT_S = 20.0


def record_for_ever(path):
    """Chunks whose values and times count, and after each a text that says how many there are."""
    channels = [str(number) for number in range(CHANNELS)]
    writer = XdfWriter(path)
    array = writer.add_stream(stream_header(name="array", type="EEG", channels=channels, format="int32"))
    log = writer.add_stream(stream_header(name="log", type="Log", channels=["chunks"], format="string"))
    chunk = 0
    while True:
        first = chunk * ROWS
        counts = np.arange(first, first + ROWS)
        writer.samples(array, counts.astype(float), np.repeat(counts[:, None], CHANNELS, 1).astype(np.int32))
        chunk += 1
        writer.samples(log, [float(chunk)], [[str(chunk)]])
        if chunk % 10 == 0:
            writer.boundary()


def killed_while_recording(path, size):
    """A file that was recorded by a process which is gone; at least `size` bytes of it."""
    process = os.fork()
    if process == 0:
        try:
            record_for_ever(path)
        finally:
            os._exit(1)
    give_up = time.monotonic() + TIMEOUT_S
    try:
        while not (path.exists() and path.stat().st_size >= size):
            assert time.monotonic() < give_up
    finally:
        os.kill(process, signal.SIGKILL)
        how = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(how)


@pytest.mark.parametrize("moment", range(20))
def test_a_file_whose_process_was_killed_at_any_moment_loses_at_most_its_last_chunk(tmp_path, moment):
    path = tmp_path / "a.xdf"
    killed_while_recording(path, int(np.random.default_rng(moment).integers(4, 3_000_000)))
    for repaired in (False, True):
        if repaired:
            repair(path)
        with XdfFile(path) as file:
            assert len(file.damage) == file.is_torn <= (not repaired)
            if len(file.streams) < 2:
                continue
            times, values = file.read("array")
            assert np.array_equal(times, np.arange(len(times)))
            assert np.array_equal(values, np.repeat(np.arange(len(times))[:, None], CHANNELS, 1))
            texts = [row[0] for row in file.read("log").values]
            assert texts == [str(number) for number in range(1, len(texts) + 1)]
            assert len(times) - len(texts) * ROWS in (0, ROWS)
