"""What a session makes of a stream before the first sample."""

import numpy as np
import pytest

from neuroloop.config import parse_session
from neuroloop.errors import StreamError
from neuroloop.session.chain import make_chain
from neuroloop.session.streams import StreamDescription
from neuroloop.signal.weights import car_weights

LABELS = tuple(f"c{i}" for i in range(6))


def described(**changes):
    fields = {
        "name": "x",
        "type": "Ephys",
        "source_id": "x",
        "hostname": "here",
        "channel_count": 6,
        "nominal_srate": 1000.0,
        "format": "float32",
        "channels": LABELS,
        "units": ("uV",) * 6,
        "positions": tuple((0.0, float(i), 0.0) for i in range(6)),
        "metadata": tuple({"bank": "AB"[i % 2]} for i in range(6)),
    }
    return StreamDescription(**fields | changes)


def clusters(description, rereference, **settings):
    session = {
        "name": "s",
        "stream": {"name": "x"} | settings.pop("stream", {}),
        "classes": ["a", "b"],
        "front_end": {"kind": "bandpower"},
        "outlets": {"enabled": False},
        "rereference": rereference,
    }
    chain = make_chain(parse_session(session | settings), description, np.dtype(np.float32))
    try:
        return None if chain.rereferencing is None else chain.rereferencing.describe()["clusters"]
    finally:
        chain.end()


def test_clusters_come_from_the_streams_descriptions_and_positions():
    assert clusters(described(), {"clusters": {"by": "bank"}}) == [["c0", "c2", "c4"], ["c1", "c3", "c5"]]
    assert clusters(described(), {"clusters": {"neighbours": 3}}) == [["c0", "c1", "c2"], ["c3", "c4", "c5"]]


def test_clusters_are_those_of_the_channels_in_use():
    chosen = {"channels": ["c5", "c0", "c3", "c2"]}
    assert clusters(described(), {"clusters": {"by": "bank"}}, stream=chosen) == [["c5", "c3"], ["c0", "c2"]]
    assert clusters(described(), {"clusters": {"neighbours": 2}}, stream=chosen) == [["c5", "c3"], ["c0", "c2"]]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"by": "probe"}, r"no <probe> for 6 of 6 channels: c0, .*; its channels have bank"),
        ({"neighbours": 3}, r"no position .* for 1 of 6 channels: c2"),
        ([["c0", "Fpz"]], "channel 'Fpz' is not there"),
    ],
)
def test_a_stream_that_lacks_what_clusters_are_made_from_is_refused(form, words):
    places = list(described().positions)
    places[2] = None
    with pytest.raises(StreamError, match=rf"stream 'x': rereference\.clusters.*{words}"):
        clusters(described(positions=tuple(places)), {"clusters": form})


def test_a_session_without_rereference_needs_no_clusters():
    assert clusters(described(), {"clusters": {"by": "probe"}, "enabled": False}) is None


@pytest.mark.parametrize("again", ["resume", "restart"])
def test_weights_belong_to_the_channels_and_outlive_a_hole_and_a_stop(again):
    session = {"name": "s", "stream": {"name": "x"}, "classes": ["a", "b"], "front_end": {"kind": "bandpower"}}
    settings = parse_session(session | {"outlets": {"enabled": False}})
    chain = make_chain(settings, described(), np.dtype(np.float32))
    try:
        weights = car_weights(LABELS, [range(6)], version=7)
        chain.pipeline.front_end.rereference.apply.set_weights(weights)
        getattr(chain, again)(1000)
        assert chain.rereferencing.weights.version == 7
        assert np.array_equal(chain.rereferencing.weights.matrix, weights.matrix)
    finally:
        chain.end()
