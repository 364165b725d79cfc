"""The rereference of a session, from what a real LSL stream says of its channels."""

import numpy as np
import pytest
from tests.integration.conftest import ALL
from tests.processes import streaming

from neuroloop_sources import SimulatorSettings, run


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        ({"by": "bank"}, [32, 8]),
        ({"neighbours": 16}, [16, 16, 8]),
    ],
    ids=["by", "neighbours"],
)
def test_clusters_come_from_what_the_stream_says_of_its_channels(start_session, unique_name, clusters, expected):
    session = start_session(
        name=unique_name,
        stream={"name": unique_name},
        classes=ALL,
        rereference={"clusters": clusters, "update_every_s": 0.1, "min_samples_per_channel": 1},
        outlets={"enabled": False},
    )
    settings = SimulatorSettings(name=unique_name, source_id=unique_name, channel_count=40, nominal_srate=15_000)
    with streaming(lambda stop: run(settings, stop=stop)):
        session.event("rereference_swapped")
    told = session.command("rereference")
    labels, banks = np.array(settings.channels), np.array(settings.banks)
    assert [len(cluster) for cluster in told["clusters"]] == expected
    assert sorted(channel for cluster in told["clusters"] for channel in cluster) == sorted(settings.channels)
    matrix = session.command("rereference_weights")
    weights = np.frombuffer(matrix["weights"]).reshape(matrix["shape"])
    assert not weights[np.ix_(banks == "A", banks == "B")].any()
    assert all(weights[np.ix_(np.isin(labels, c), np.isin(labels, c))].any() for c in told["clusters"])


def test_a_stream_without_the_element_that_clusters_are_made_from_is_refused(start_session, open_source, unique_name):
    open_source(unique_name)
    session = start_session(
        name=unique_name,
        stream={"name": unique_name},
        classes=ALL,
        front_end={"kind": "bandpower"},
        rereference={"clusters": {"by": "bank"}},
    )
    words = "clusters: by bank: the stream's description has no <bank> for 4 of 4 channels: c0, c1, c2, c3"
    assert words in session.event("stream_refused")["detail"]
