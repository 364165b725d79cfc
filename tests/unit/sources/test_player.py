"""What the player streams of a recording."""

import threading

import numpy as np
import pytest

from neuroloop_sources import Recording, SourceError, chain, play
from neuroloop_sources.player import make_feed
from neuroloop_sources.recordings import reader
from neuroloop_sources.stream import Feed


def ramp(count: int = 50, name: str = "ramp", **changes: object) -> Recording:
    samples = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    facts: dict[str, object] = {
        "name": name,
        "type": "EEG",
        "nominal_srate": 100.0,
        "sample_count": count,
        "channels": ("a", "b"),
        "units": ("microvolts", "microvolts"),
        "format": "float32",
        "read": reader(samples),
        "markers": ((0.0, "first"), (0.255, "middle")),
    }
    return Recording(**{**facts, **changes})


def in_chunks(feed: Feed, size: int, count: int) -> tuple[bytes, list[tuple[float, str]]]:
    samples, markers = [], []
    for start in range(0, count, size):
        after = min(start + size, count)
        samples.append(feed.samples(start, after))
        markers += list(feed.markers(start, after))
    return np.concatenate(samples).tobytes(), markers


@pytest.mark.parametrize("size", [1, 7, 50, 120])
def test_samples_and_markers_are_the_same_in_chunks_of_any_size(size: int) -> None:
    feed = make_feed(ramp(), loop=True)
    samples, markers = in_chunks(feed, size, 120)
    assert samples == np.concatenate([ramp().read(0, 50)] * 2 + [ramp().read(0, 20)]).tobytes()
    assert markers == [(0.0, "first"), (25.5, "middle"), (50.0, "first"), (75.5, "middle"), (100.0, "first")]


def test_a_recording_that_is_not_looped_ends() -> None:
    assert make_feed(ramp()).sample_count == 50
    assert make_feed(ramp(), loop=True).sample_count is None


def test_values_are_rounded_and_limited_to_an_integer_format() -> None:
    values = np.array([[1.6, -300.0], [-1.5, 200.0]], np.float32)
    feed = make_feed(ramp(2, read=reader(values)), format="int8")
    np.testing.assert_array_equal(feed.samples(0, 2), np.array([[2, -128], [-2, 127]], np.int8))


def test_recorded_times_are_sent_where_there_are_some() -> None:
    times = np.arange(50) / 100 + 0.001
    feed = make_feed(ramp(times=reader(times)), recorded_times=True)
    assert feed.offsets is not None
    np.testing.assert_array_equal(feed.offsets(10, 20), times[10:20])
    with pytest.raises(SourceError, match="recorded_times"):
        make_feed(ramp(), recorded_times=True)


def test_chained_recordings_read_as_one_across_the_seam() -> None:
    both = chain([ramp(50), ramp(30, "other")])
    assert (both.name, both.sample_count, both.seconds) == ("ramp+other", 80, 0.8)
    np.testing.assert_array_equal(both.read(45, 55), np.concatenate([ramp().read(45, 50), ramp(30).read(0, 5)]))
    assert both.markers == ((0.0, "first"), (0.255, "middle"), (0.5, "first"), (0.755, "middle"))


@pytest.mark.parametrize("change", [{"channels": ("a", "c")}, {"nominal_srate": 50.0}, {"format": "int16"}])
def test_recordings_that_differ_cannot_be_chained(change: dict[str, object]) -> None:
    with pytest.raises(SourceError, match=next(iter(change))):
        chain([ramp(), ramp(**change)])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"speed": 0.0}, "speed"), ({"chunk": 0}, "chunk"), ({"format": "string"}, "format")],
)
def test_what_cannot_be_played_is_refused_by_name(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(SourceError, match=named):
        play(ramp(), stop=threading.Event(), **arguments)


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(SourceError, match="ramp"):
        make_feed(ramp(0))
