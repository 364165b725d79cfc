import numpy as np
import pytest
import safetensors.numpy

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.base import digest, make_decoder


@pytest.fixture(params=["maxrate", "poisson"])
def decoder(request):
    decoder = make_decoder(request.param, ["left", "right"], 6)
    rng = np.random.default_rng(3)
    for label in (0, 1, 0, 1, 1):
        decoder.learn(rng.poisson(5 + 3 * label, 6).astype(np.float32), label)
    return decoder


def test_a_decoder_comes_back_from_its_file_as_it_was(decoder):
    data = decoder_files.write(decoder_files.of(decoder, 6, list("abcdef")))
    file = decoder_files.read(data)
    loaded = decoder_files.load(file)
    assert file.about.channels == list("abcdef")
    assert digest(loaded) == digest(decoder)
    rates = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(loaded.predict(rates).values, decoder.predict(rates).values)


def test_equal_decoders_give_equal_bytes(decoder):
    again = decoder_files.load(decoder_files.of(decoder, 6))
    assert decoder_files.write(decoder_files.of(again, 6)) == decoder_files.write(decoder_files.of(decoder, 6))


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(decoder, cut):
    data = decoder_files.write(decoder_files.of(decoder, 6))
    with pytest.raises(ModelError, match="expected a safetensors file"):
        decoder_files.read(data[:cut])


def test_a_file_without_its_document_is_refused():
    with pytest.raises(ModelError, match="no entry 'neuroloop'"):
        decoder_files.read(safetensors.numpy.save({"sums": np.zeros((2, 6))}))


def test_values_that_are_not_finite_are_refused(decoder):
    file = decoder_files.of(decoder, 6)
    file.tensors["sums"][0, 0] = np.nan
    with pytest.raises(ModelError, match="'sums' has values that are not finite"):
        decoder_files.read(decoder_files.write(file))


def test_a_decoder_that_learned_before_it_knew_all_its_classes_comes_back():
    decoder = make_decoder("maxrate", ["left", "right", "up"], 6)
    rng = np.random.default_rng(3)
    for label in (0, 1, 0, 1, 2):  # the trials of the calibration hold -inf for the class not yet known
        decoder.learn(rng.poisson(5 + 3 * np.eye(6)[label]), label)
    file = decoder_files.of(decoder, 6)
    assert np.isneginf(file.tensors["trial_logits"]).any()
    assert digest(decoder_files.load(decoder_files.read(decoder_files.write(file)))) == digest(decoder)
    file.tensors["sums"][0, 0] = -np.inf
    with pytest.raises(ModelError, match="sums holds values that are not finite"):
        decoder_files.load(decoder_files.read(decoder_files.write(file)))


def test_a_state_of_another_shape_is_refused(decoder):
    file = decoder_files.of(decoder, 6)
    with pytest.raises(ModelError, match="expected sums of shape"):
        decoder_files.load(decoder_files.DecoderFile(file.about, file.tensors | {"sums": np.zeros((2, 5))}))
