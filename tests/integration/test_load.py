"""Load: what is carried without a loss, and what is said when it is too much."""

import threading

import numpy as np
import pytest

from neuroloop_sources import SimulatorSettings, run

CLASSES = ["a", "b"]


@pytest.mark.slow
def test_256_channels_at_30_khz_are_decoded_without_a_missed_bin(start_session, unique_name):
    session = start_session(
        name=unique_name,
        stream={"source_id": unique_name},
        rereference={"clusters": 32},
        classes=CLASSES,
        outlets={"enabled": False},
    )
    settings = SimulatorSettings(name=unique_name, source_id=unique_name, channel_count=256)
    stop = threading.Event()
    source = threading.Thread(
        target=run, args=(settings,), kwargs={"stop": stop, "wait_for_consumers": True, "seconds": 6}
    )
    source.start()
    try:
        bins = session.bins(290)
    finally:
        stop.set()
        source.join()
    status = session.command("status")
    assert [b["seq"] for b in bins] == list(range(len(bins)))
    assert (status["missed_bins"], status["gaps"], status["missing_samples"]) == (0, 0, 0)


def test_a_load_that_is_too_much_is_announced_and_every_bin_is_still_answered(start_session, open_source, unique_name):
    """One bin per sample at 20 kHz is more than any loop in Python can answer."""
    rate = 20_000
    session = start_session(
        name=unique_name,
        stream={"name": unique_name},
        front_end={"kind": "counts"},
        bin_ms=1000 / rate,
        classes=CLASSES,
        outlets={"enabled": False},
    )
    source = open_source(unique_name, nominal_srate=float(rate))
    source.wait_for_consumers()
    source.push(np.ones((rate, 4), np.float32))
    overload = session.event("overload")
    assert overload["late_bins"] > 0.1 * overload["bins"]
    assert "late in the last second" in overload["detail"]
    bins = session.bins(rate)
    assert [b["seq"] for b in bins] == list(range(rate))
    assert session.command("status")["late_bins"] > 0.9 * rate
    assert session.command("status")["missed_bins"] == 0
