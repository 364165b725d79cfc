import io
import json
import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import safetensors.numpy
from tests.unit.models.gsnn_networks import make_graph, make_weights

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files, lnp_files
from neuroloop.models.base import GROUP
from neuroloop.models.lfr import LFR
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.models.lnp_parameters import LNPSettings, make_parameters
from neuroloop.models.online import ClassRateDecoder
from neuroloop.registry.documents import Document
from neuroloop.registry.uploads import check
from neuroloop.signal.weight_files import read_weights, write_weights

W = np.array([[0.0, 0.5], [-0.25, 0.0]])
SETTINGS = LNPSettings(lags=2)
FRAME = (1, 2, 2)


def encoder(cells=("a", "b"), frame=FRAME, **change):
    parameters = make_parameters(SETTINGS, 2, FRAME, {}).arrays() | change
    metadata = {"kind": "lnp", "cells": json.dumps(cells), "frame": json.dumps(frame)}
    return safetensors.numpy.save(parameters, metadata | {"settings": SETTINGS.model_dump_json()})


def with_header(data, header):
    length = int.from_bytes(data[:8], "little")
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def test_a_decoder_says_what_it_is(make_weights):
    upload = check(make_weights(), Document())
    assert upload.weights == make_weights()
    assert upload.content.model_dump(exclude_none=True) == {
        "kind": "maxrate",
        "settings": {},
        "classes": ["left", "right"],
        "features": 3,
        "channels": ["a", "b", "c"],
    }


def test_a_decoder_that_learned_passes_and_is_the_one_that_is_loaded():
    decoder = decoder_files.make_decoder("poisson", ["left", "right"], 4, {"prior": "frequency"})
    assert isinstance(decoder, ClassRateDecoder)
    for label in (0, 1, 0, 1):
        decoder.learn(1 + 9 * np.eye(4)[label], label)
    upload = check(decoder_files.write(decoder_files.of(decoder, 4)), Document())
    assert decoder_files.load(decoder_files.read(upload.weights)).state_dict().keys() == decoder.state_dict().keys()
    assert upload.content.settings["prior"] == "frequency"


def test_a_backbone_with_a_head_is_checked_without_making_it():
    decoder = LFR(["left", "right"], 4, LFRSettings(bins=5, width=3, kernel=2, head="maxrate"))
    for label in (0, 1, 0):
        decoder.set_backbone(dict(decoder._arrays), np.ones(4), np.ones(4), (2, 0))
        decoder.learn(1 + 9 * np.eye(4)[label], label)
    file = decoder_files.of(decoder, 4)
    content = check(decoder_files.write(file), Document()).content
    assert (content.kind, content.features, content.settings["width"]) == ("lfr", 4, 3)
    for change, message in (
        ({"mean": np.zeros(5, np.float32)}, "expected mean as numbers of shape"),
        ({"head.sums": np.zeros((2, 4))}, r"sums of shape \(2, 3\), got \(2, 4\)"),
        ({"backbone.bias1": np.full(3, -np.inf, np.float32)}, "'backbone.bias1' has values that are not finite"),
    ):
        with pytest.raises(ModelError, match=message):
            check(decoder_files.write(decoder_files.DecoderFile(file.about, file.tensors | change)), Document())


def test_a_gsnn_decoder_is_checked_without_being_made():
    settings, weights = make_weights(make_graph(3, 2))
    about = decoder_files.About(
        kind="gsnn", settings=settings.model_dump(mode="json"), classes=["left", "right"], features=3
    )
    whole = decoder_files.write(decoder_files.DecoderFile(about, weights.arrays()))
    assert check(whole, Document()).content.kind == "gsnn"
    without = {name: array for name, array in weights.arrays().items() if name != "out_bias"}
    with pytest.raises(ModelError, match="GSNN parameter out_bias: expected shape"):
        check(decoder_files.write(decoder_files.DecoderFile(about, without)), Document())


def fitted_lda(**change):
    about = {"kind": "lda", "classes": ["left", "right"], "features": 3}
    tensors = {"matrix": np.ones((3, 2)), "bias": np.ones(2), "sharpness": np.ones(1), "samples": np.ones(2, np.int64)}
    file = decoder_files.DecoderFile(decoder_files.About.model_validate(about), tensors | change)
    return decoder_files.write(file)


def test_a_decoder_that_was_fitted_at_once_is_checked_without_making_it(monkeypatch):
    points = [EntryPoint("lda", "neuroloop.models.linear:LDA", GROUP)]
    monkeypatch.setattr("neuroloop.registry.uploads.entry_points", lambda group: points)
    assert check(fitted_lda(), Document()).content.kind == "lda"
    with pytest.raises(ModelError, match=r"matrix as floats of shape \(3, 2\), got float64 \(2, 2\)"):
        check(fitted_lda(matrix=np.ones((2, 2))), Document())


def test_an_encoder_says_what_it_is():
    content = check(encoder(), Document()).content
    assert (content.kind, content.cells, content.classes) == ("lnp", ["a", "b"], None)
    assert content.settings == SETTINGS.model_dump(mode="json")
    assert lnp_files.read(check(encoder(), Document()).weights)[0] == ["a", "b"]


@pytest.mark.parametrize("form", ["csv", "npz", "safetensors"])
def test_rereferencing_weights_of_any_form_are_kept_as_safetensors(form):
    upload = check(write_weights(form, W, ["a", "b"], 3), Document(kind="lrr", channels=["a", "b"]))
    matrix, channels = read_weights(upload.weights)
    assert upload.weights[8:9] == b"{"
    assert np.array_equal(matrix, W)
    assert channels == upload.content.channels == ["a", "b"]
    assert check(upload.weights, Document()).content == upload.content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sums": np.zeros((2, 4))}, r"expected sums of shape \(2, 3\), got \(2, 4\)"),
        ({"sums": np.zeros((3, 3))}, r"expected sums of shape \(2, 3\), got \(3, 3\)"),
        ({"sums": np.full((2, 3), np.nan)}, "not finite"),
        ({"sums": np.full((2, 3), -np.inf)}, "not finite"),
        ({"sums": np.zeros((2, 3), bool)}, "expected sums as real numbers, got bool"),
        ({"classes": ["left"]}, "classes"),
        ({"classes": []}, "classes"),
        ({"classes": ["left", "left"]}, "classes: expected every name once"),
        ({"classes": ["left", ""]}, "classes: expected printable names"),
        ({"classes": ["left", "ri\x00ght"]}, "classes: expected printable names"),
        ({"classes": ["left", "right", "up"]}, r"expected sums of shape \(3, 3\)"),
        ({"features": 4}, r"expected sums of shape \(2, 4\)"),
        ({"features": 10**12}, "expected sums of shape"),
        ({"kind": "perceptron"}, "kind: expected one of .*maxrate.*, got 'perceptron'"),
        ({"settings": {"rule": "median"}}, "settings of 'maxrate': rule"),
        ({"settings": {"speed": 1}}, "speed: unknown"),
        ({"values": {"missing": 0, "signed": False, "trial_count": "1", "sharpness": 0}}, "trial_count"),
        ({"values": {}}, "missing"),
        ({"settings": {"x": "x" * 2**21}}, "unknown|at most"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused(make_weights, change, message):
    with pytest.raises(ModelError, match=message):
        check(make_weights(**change), Document())


def test_settings_that_are_not_finite_are_refused(make_weights):
    data = make_weights(settings={"half_life_s": 12345678})
    assert check(data, Document()).content.settings == {"half_life_s": 12345678}
    with pytest.raises(ModelError, match="finite"):
        check(data.replace(b"12345678", b"Infinity"), Document())


@pytest.mark.parametrize("cut", [0, 7, 8, 9, 100, -1])
def test_a_truncated_file_is_refused(make_weights, cut):
    for data in (make_weights(), encoder(), write_weights("safetensors", W, ["a", "b"], 1)):
        with pytest.raises(ModelError):
            check(data[:cut], Document())


@pytest.mark.parametrize("length", [2**63, 2**32, 0, 7])
def test_a_header_of_another_length_than_the_file_has_is_refused(make_weights, length):
    with pytest.raises(ModelError):
        check(length.to_bytes(8, "little") + make_weights()[8:], Document(kind="maxrate"))


def test_nothing_is_unpickled():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    archive = io.BytesIO()
    np.savez(archive, W=np.array([Bomb()], dtype=object))
    for data in (pickle.dumps(Bomb()), archive.getvalue()):
        for kind in ("maxrate", "lnp", "lrr", None):
            with pytest.raises(ModelError):
                check(data, Document(kind=kind, channels=["a"]))


@pytest.mark.parametrize(
    "header",
    [
        b'{"W":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}',
        b'{"W":{"dtype":"F99","shape":[2,2],"data_offsets":[0,8]}}',
        b'{"W":{"dtype":"F64","shape":[999999,999999],"data_offsets":[0,8]}}',
        b'{"__metadata__":{"neuroloop":"' + b"[" * 100_000 + b'"}}',
        b'{"__metadata__":{"neuroloop":"{}"}}',
        b'{"__metadata__":{"kind":"lnp","cells":"' + b"[" * 100_000 + b'","frame":"[]","settings":"{}"}}',
        b'{"__metadata__":{"kind":"lnp","cells":"[]","frame":"[1,1,1]","settings":"{}"}}',
        b'{"__metadata__":{"kind":["lnp"]}}',
        b"[]",
        b"{" * 100_000,
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header):
    with pytest.raises(ModelError):
        check(with_header(bytes(8), header) + bytes(8), Document(kind="maxrate", classes=["a", "b"], features=2))
    with pytest.raises(ModelError):
        check(with_header(bytes(8), header) + bytes(8), Document(kind="lrr", channels=["a", "b"]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoder(cells=["a", "a"]), "cells: expected one or more different names"),
        (encoder(cells=["a", "\ud800"]), "LNP weights"),
        (encoder(cells=["a", "\x00"]), "cells: expected printable names"),
        (encoder(cells=["a"]), "expected shape"),
        (encoder(frame=[1, 3, 2]), "expected shape"),
        (encoder(frame=[2**30, 2**30, 2**30]), "at most"),
        (encoder(gain=np.array([np.inf, 1], np.float32)), "finite"),
        (encoder(scale=np.zeros(1, np.float32)), "scale"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused(data, message):
    with pytest.raises(ModelError, match=message):
        check(data, Document())


@pytest.mark.parametrize(
    ("data", "said", "message"),
    [
        (b"0,1\n1,0\n", {}, "expected the channels' labels"),
        (b"0,1\n1,0\n", {"channels": ["a", "b", "c"]}, r"expected \(3, 3\)"),
        (b"0,nan\n1,0\n", {"channels": ["a", "b"]}, "not finite"),
        (b"1,0\n0,1\n", {"channels": ["a", "b"]}, "zero diagonal"),
        (b"a,b\n0,1\n1,0\n", {"channels": ["b", "a"]}, "channels: the document says"),
        (b"a,b\n0,1\n1,0\n", {"classes": ["b", "a"]}, "classes: the document says"),
    ],
)
def test_rereferencing_weights_that_cannot_be_are_refused(data, said, message):
    with pytest.raises(ModelError, match=message):
        check(data, Document(kind="lrr", **said))


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "poisson"},
        {"classes": ["right", "left"]},
        {"classes": ["left", "right", "up"]},
        {"features": 4},
        {"channels": ["x", "y", "z"]},
        {"settings": {"rule": "sum"}},
        {"digest": "sha256:" + "0" * 64},
    ],
)
def test_a_document_must_agree_with_the_file(make_weights, said):
    with pytest.raises(ModelError, match=r"the document says|expected sha256:0000"):
        check(make_weights(), Document(**said))


def test_bare_tensors_need_a_document_that_says_what_they_are(make_weights):
    bare = make_weights(kind="")
    with pytest.raises(ModelError, match="expected a safetensors file that says its kind"):
        check(bare, Document())
    with pytest.raises(ModelError, match=r"classes: .*features: "):
        check(bare, Document(kind="maxrate"))


def test_the_check_needs_no_compiler():
    program = "import sys, neuroloop.registry.registry; print(sorted({'numba', 'torch', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
