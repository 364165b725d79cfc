"""Fitted decoders in a session: they answer bins, labels test them without changing them, or they are refused."""

import hashlib
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from tests.unit.models.gsnn_networks import make_graph, make_weights

from neuroloop.errors import ModelError
from neuroloop.models import base, decoder_files
from neuroloop.models.gsnn import GSNN
from neuroloop.models.lfr import LFR
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.session.loading import LoadRequest, Needs, build, check_fit
from neuroloop.session.running import Loaded, ModelVersion, Taught

CLASSES = ("left", "right", "up")
CHANNELS = tuple(f"ch{number}" for number in range(12))


@pytest.fixture
def request_of(monkeypatch):
    kinds = {"gsnn": EntryPoint("gsnn", "neuroloop.models.gsnn:GSNN", base.GROUP)}
    monkeypatch.setattr(base, "_kinds", lambda: kinds)

    def make(**chosen):
        settings, weights = make_weights(make_graph(), **chosen)
        decoder = GSNN(CLASSES, 12, settings)
        decoder.take(weights)
        data = decoder_files.write(decoder_files.of(decoder, 12, CHANNELS))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return LoadRequest(ModelVersion("reach", 2, digest), data, "active", None, Loaded(None, "carry", 50))

    return make


def test_a_gsnn_decoder_is_loaded_answers_and_is_tested_by_labels_without_changing(request_of):
    running = build(request_of(), Needs(CLASSES, CHANNELS, 12, 8), "decoder")
    before = running.identity()
    rates = np.arange(12, dtype=np.float32)
    index = running.predict(rates, 3).index
    for label in (index, (index + 1) % 3):
        running.learn(Taught(rates, label, 0.5, np.array([3])))
    told = running.describe()
    assert running.identity() == before
    assert (before["name"], before["version"], before["learned"]) == ("reach", 2, 0)
    assert told["accuracy"] == {"bins": 2, "correct": 1, "abstained": 0}
    assert told["learned"] == {"left": 1, "right": 2, "up": 3}


def test_a_gsnn_decoder_of_other_channels_is_refused(request_of):
    needs = Needs(CLASSES, (*CHANNELS[:-1], "ear"), 12, 8)
    with pytest.raises(ModelError, match="number 12 is 'ear', not 'ch11'"):
        build(request_of(), needs, "decoder")


def lfr_request(window):
    settings = LFRSettings(bins=5, width=8, depth=2, kernel=2, window=window)
    data = decoder_files.write(decoder_files.of(LFR(CLASSES, 12, settings), 12, CHANNELS))
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return LoadRequest(ModelVersion("reach", 2, digest), data, "active", None, Loaded(None, "carry", 50))


def test_an_lfr_decoder_goes_where_the_window_of_its_rate_vectors_is_the_sessions():
    assert build(lfr_request(4), Needs(CLASSES, CHANNELS, 12, 8, window=4), "decoder").kind == "lfr"


@pytest.mark.parametrize("window", [1, 25])
def test_an_lfr_decoder_of_other_rate_vectors_is_refused_with_both_numbers(window):
    words = rf"model 'reach' version 2: .* means of {window} bins, .* fitted to means of 4;"
    with pytest.raises(ModelError, match=words):
        build(lfr_request(4), Needs(CLASSES, CHANNELS, 12, 8, window=window), "decoder")


def test_an_lfr_decoder_of_bins_of_another_length_is_refused():
    given = {"settings": {"bin_ms": 100.0}, "classes": list(CLASSES), "features": 12}
    about = decoder_files.About(kind="lfr", **given)
    check_fit("model", about, Needs(CLASSES, CHANNELS, 12, 8, bin_s=0.1))
    with pytest.raises(ModelError, match="expected bins of 20 ms, as the session's; got 100 ms"):
        check_fit("model", about, Needs(CLASSES, CHANNELS, 12, 8, bin_s=0.02))


def test_an_lfr_decoder_whose_file_says_no_window_has_the_rates_of_single_bins():
    about = decoder_files.About(kind="lfr", classes=list(CLASSES), features=12)
    check_fit("model", about, Needs(CLASSES, CHANNELS, 12, 8, window=1))
    with pytest.raises(ModelError, match=r"means of 3 bins, .* fitted to means of 1;"):
        check_fit("model", about, Needs(CLASSES, CHANNELS, 12, 8, window=3))
