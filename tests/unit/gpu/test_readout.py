import numpy as np
import pytest
import torch

from neuroloop.gpu.readout import TorchReadout
from neuroloop.models.answer_kernels import ANSWERED, MISSING, SILENT
from neuroloop.models.maxrate import MaxRate
from neuroloop.models.poisson import Poisson
from neuroloop.models.readout import Readout

torch.set_num_threads(1)

CLASSES = ("left", "right", "up", "none yet")


def trained(kind, features=30, seed=0):
    """A decoder that has seen all classes but the last, and its readout on its way."""
    rng = np.random.default_rng(seed)
    tuning = rng.gamma(2.0, 10.0, (3, features))
    decoder = kind(CLASSES, features)
    for number in range(60):
        decoder.learn(rng.poisson(tuning[number % 3]).astype(np.float32), number % 3)
    return decoder, rng.poisson(tuning[rng.integers(0, 3, 40)]).astype(np.float32)


def on(device, decoder):
    readout = TorchReadout(decoder.features, len(CLASSES)).to(device)
    readout.load(decoder.readout, 1 / decoder.temperature, isinstance(decoder, MaxRate))
    return readout


@pytest.mark.parametrize("kind", [MaxRate, Poisson])
def test_answers_are_those_of_the_decoder_one_by_one_and_all_at_once(device, kind):
    decoder, samples = trained(kind)
    logits, probability, index, outcome = on(device, decoder)(torch.from_numpy(samples).to(device))
    assert (outcome == ANSWERED).all()
    for number, sample in enumerate(samples):
        scores = decoder.predict(sample)
        np.testing.assert_allclose(logits[number].cpu(), scores.values, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(probability[number].cpu(), scores.probability, rtol=1e-4, atol=1e-6)
        assert int(index[number]) == scores.index
        alone = on(device, decoder)(torch.from_numpy(sample).to(device))
        assert int(alone[2]) == scores.index
        assert alone[0].shape == (len(CLASSES),)


def test_silence_and_missing_values_are_told_apart_from_an_answer(device):
    decoder, samples = trained(MaxRate)
    samples[0] = 0
    samples[1, 3] = np.nan
    _, probability, _, outcome = on(device, decoder)(torch.from_numpy(samples[:3]).to(device))
    assert outcome.tolist() == [SILENT, MISSING, ANSWERED]
    np.testing.assert_allclose(probability[0].cpu(), decoder.predict(samples[0]).probability)
    assert not probability[1].any()


def test_of_equal_classes_the_first_that_can_be_the_answer_wins():
    readout = TorchReadout(2, 3)
    readout.load(Readout(np.ones((2, 3)), np.zeros(3), np.array([False, True, True])))
    assert int(readout(torch.ones(2))[2]) == 1


def test_another_readout_is_taken_in_place():
    decoder, samples = trained(MaxRate)
    other, _ = trained(MaxRate, seed=1)
    readout = on("cpu", decoder)
    address = readout.matrix.data_ptr()
    readout.load(other.readout)
    assert readout.matrix.data_ptr() == address
    np.testing.assert_allclose(
        readout(torch.from_numpy(samples[0]))[0], other.predict(samples[0]).values, rtol=1e-5, atol=1e-4
    )
