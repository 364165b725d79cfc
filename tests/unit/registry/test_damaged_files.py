"""Weight files with bytes changed, cut out or put in: each is read, or refused with a reason; nothing else happens."""

import contextlib
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuroloop.errors import ModelError, NeuroloopError
from neuroloop.models import decoder_files
from neuroloop.models.lnp import LNP
from neuroloop.models.lnp_parameters import LNPSettings
from neuroloop.models.online import ClassRateDecoder
from neuroloop.registry.documents import Document
from neuroloop.registry.uploads import check
from neuroloop.signal.weight_files import write_weights

RATES = np.arange(4, dtype=np.float32)
ENCODER = LNP(["a", "b"], (1, 2, 2), LNPSettings(lags=2)).save()
WEIGHTS = write_weights("safetensors", np.array([[0.0, 0.5], [-0.25, 0.0]]), ["a", "b"], 1)


def decoder_file():
    decoder = decoder_files.make_decoder("maxrate", ["left", "right"], 4)
    assert isinstance(decoder, ClassRateDecoder)
    for label in (0, 1, 0, 1):
        decoder.learn(1 + 9 * np.eye(4)[label], label)
    return decoder_files.write(decoder_files.of(decoder, 4, list("abcd")))


DECODER = decoder_file()
PIECES = [b"", b"\x00", b"\xff" * 8, b"NaN", b"-1", b"1e400", b'"', b"{", b"F64", b"I8", b"../../x", b"\x80\x04K\x01."]


@st.composite
def damaged(draw):
    data = bytearray(draw(st.sampled_from([DECODER, ENCODER, WEIGHTS])))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 1))
        end = min(len(data), at + draw(st.integers(0, 12)))
        data[at:end] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)))
        if not data:
            break
    return bytes(data)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(data=damaged())
def test_a_damaged_file_is_read_or_refused_with_a_reason(data):
    with contextlib.suppress(NeuroloopError):
        accepted = check(data, Document())
        assert accepted.content.model_dump_json()
    with contextlib.suppress(NeuroloopError):
        decoder = decoder_files.load(decoder_files.read(data))
        if decoder.classes == ("left", "right"):
            assert decoder.predict(RATES).index in (0, 1, None)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "bool", "uint8"])
def test_arrays_of_another_type_are_read_as_what_they_are_or_refused(dtype):
    header = json.loads(DECODER[8 : 8 + int.from_bytes(DECODER[:8], "little")])
    arrays = {name: value.astype(dtype) for name, value in safetensors.numpy.load(DECODER).items()}
    data = safetensors.numpy.save(arrays, header["__metadata__"])
    with contextlib.suppress(ModelError):
        decoder = decoder_files.load(decoder_files.read(data))
        assert np.isfinite(decoder.predict(RATES).values).all()
