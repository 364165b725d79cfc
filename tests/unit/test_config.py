"""What the configuration of a session may say, and what it is told when it says something else."""

import pytest

from neuroloop import config
from neuroloop.errors import ConfigError

CSP = {"name": "d", "kind": "csp"}


def session(**changes):
    return {"name": "s", "stream": {"name": "x", "nominal_srate": 30000.0}, "classes": ["a", "b"]} | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"front_end": {"kind": "broadband", "band": [300, 16000]}}, ["front_end.band", "16000", "15000"]),
        ({"front_end": {"kind": "broadband", "band": [6000, 300]}}, ["front_end.band", "6000", "300"]),
        ({"front_end": {"kind": "bandpower", "bands": {"gamma": [30, 20000]}}}, ["gamma", "20000", "15000"]),
        ({"front_end": {"kind": "broadband", "notch": [20000]}}, ["front_end.notch", "20000", "15000"]),
        ({"bin_ms": 0.01}, ["bin_ms", "0.01", "0.0333333"]),
        ({"bin_ms": -1}, ["bin_ms", "greater than 0", "-1"]),
        ({"block_ms": 1e308}, ["block_ms", "less than or equal to 10000", "1e+308"]),
        ({"front_end": {"kind": "broadband", "band": [float("nan"), 5]}}, ["front_end", "band", "finite"]),
        ({"stream": {"name": "x", "nominal_srate": float("inf")}}, ["nominal_srate", "finite"]),
        ({"stream": {"name": "x", "channel_count": 10**28}}, ["channel_count", "65536"]),
        ({"classes": ["a", "a"]}, ["classes", "name of its own"]),
        ({"classes": ["a"]}, ["classes", "at least 2"]),
        ({"classes": ["a"], "targets": ["x"]}, ["classes", "at least 2, or targets alone; got ['a']"]),
        ({"targets": ["x", "x"]}, ["targets", "name of its own"]),
        ({"typo": 1}, ["typo", "unknown key"]),
        ({"front_end": {"kind": "wavelet"}}, ["front_end", "wavelet", "broadband"]),
        ({"stream": {}}, ["stream", "name, type, source_id, predicate"]),
        ({"rereference": {"clusters": [[0, 1], [1, 2]]}}, ["rereference.clusters", "1", "named twice"]),
        ({"rereference": {"clusters": 1}}, ["rereference.clusters", "at least 2"]),
        ({"rereference": {"clusters": {"neighbours": 1}}}, ["rereference.clusters.neighbours", "equal to 2", "1"]),
        ({"rereference": {"clusters": {"bank": 1}}}, ["clusters", "{by: element} or {neighbours: count}"]),
        ({"rereference": {"clusters": "bank"}}, ["clusters", "{by: element} or {neighbours: count}", "'bank'"]),
        ({"rereference": {"clusters": {"by": ""}}}, ["rereference.clusters.by", "at least 1 character"]),
        ({"decoders": [{"name": "d", "role": "shadow"}]}, ["decoders", "exactly one", "active"]),
        (
            {"markers": [{"stream": {"name": "m"}, "labels": {"x": "nowhere"}}]},
            ["markers", "nowhere", "'a', 'b'"],
        ),
        ({"markers": [{"stream": {"name": "m"}, "window": [1, 0]}]}, ["window", "before"]),
        ({"stimulus": {}}, ["stimulus", "name, type, source_id, predicate"]),
        ({"stimulus": {"name": "m", "frame": [1, 0, 4]}}, ["stimulus.frame", "greater than 0", "0"]),
        (
            {"stimulus": {"name": "m"}, "front_end": {"kind": "bandpower"}, "stream": {"name": "x"}},
            ["stimulus", "spikes", "broadband or counts"],
        ),
        (
            {"front_end": {"kind": "covariance", "bands": {"mu": [8, 20000]}}, "decoders": [CSP]},
            ["front_end.bands.mu", "20000", "15000"],
        ),
        (
            {"front_end": {"kind": "covariance"}},
            ["kind of 'decoder'", "maxrate takes rates", "expected csp, riemann, lda"],
        ),
        ({"decoders": [CSP]}, ["kind of 'd'", "csp takes", "covariance, got broadband"]),
    ],
)
def test_an_impossible_value_is_refused_by_key_value_and_what_is_allowed(changes, words):
    with pytest.raises(ConfigError) as caught:
        config.parse_session(session(**changes))
    for word in words:
        assert word in str(caught.value)


def test_a_cluster_with_a_channel_that_is_not_there_is_refused():
    stream = {"name": "x", "channel_count": 4}
    with pytest.raises(ConfigError, match=r"clusters.*channel 7 is not there; allowed: 0 to 3"):
        config.parse_session(session(stream=stream, rereference={"clusters": [[0, 7]]}))
    stream = {"name": "x", "channels": ["C3", "C4", "Cz"]}
    with pytest.raises(ConfigError, match=r"clusters.*'Oz' is not there; the stream has C3, C4, Cz"):
        config.parse_session(session(stream=stream, rereference={"clusters": [["C3", "Oz"]]}))


def test_a_block_divides_the_bin_and_is_no_longer_than_block_ms():
    settings = config.parse_session(session(bin_ms=20, block_ms=5))
    assert config.bin_samples(settings, 30000) == 600
    assert config.block_samples(settings, 30000) == 150
    assert config.block_samples(settings, 250) == 1
    assert config.bin_samples(settings, 512) == 10
    assert config.block_samples(settings, 512) == 2


def test_clusters_by_size_by_index_and_by_label_become_indices():
    assert config.check_clusters(2, None, 5) == [[0, 1], [2, 3], [4]]
    assert config.check_clusters(None, None, 3) == [[0, 1, 2]]
    assert config.check_clusters([["b", "c"], [0]], ["a", "b", "c"], 3) == [[1, 2], [0]]


@pytest.mark.parametrize("clusters", [32, [["a", "b"], [2, 3]], {"by": "bank"}, {"neighbours": 32}, None])
def test_every_form_of_clusters_travels_as_json(clusters):
    settings = config.parse_session(session(rereference={"clusters": clusters}))
    assert settings.model_dump(mode="json")["rereference"]["clusters"] == clusters
    assert config.parse_session(settings.model_dump(mode="json")) == settings


def test_clusters_that_only_the_stream_can_tell_wait_for_it():
    for clusters in ({"by": "bank"}, {"neighbours": 2}):
        stream = {"name": "x", "channels": ["C3", "C4", "Cz"], "channel_count": 3}
        settings = config.parse_session(session(stream=stream, rereference={"clusters": clusters}))
        with pytest.raises(ValueError, match=r"rereference\.clusters: .* for 3 of 3 channels: C3, C4, Cz"):
            config.check_clusters(settings.rereference.clusters, settings.stream.channels, 3)


@pytest.mark.parametrize("recording", [{}, {"recording": {}}, {"recording": {"buffer_mb": 128}}])
def test_a_session_is_recorded_only_where_it_says_so(recording):
    assert not config.parse_session(session(**recording)).recording.automatic
