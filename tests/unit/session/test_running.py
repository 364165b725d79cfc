"""Whatever a decoder's own code does, the loop gets an answer that can be used, or a fault."""

import numpy as np
import pytest

from neuroloop.models.base import Scores
from neuroloop.models.maxrate import MaxRate
from neuroloop.session.running import Fault, RunningDecoder, Taught

RATES = np.ones(3, np.float32)
LESSON = Taught(RATES, 0, 1.0, np.arange(3))


def running(**methods):
    return RunningDecoder("d", "broken", "active", type("Broken", (MaxRate,), methods)(["a", "b"], 3), 8)


def answering(values=(0.0, 0.0), index=None, probability=(0.0, 0.0)):
    count = [0]

    def predict(self, rates):
        count[0] += 1
        if count[0] == 1:  # of the warm-up
            return None
        return Scores(np.array(values), index, None, np.array(probability))

    return running(predict=predict)


@pytest.mark.parametrize(
    ("decoder", "words"),
    [
        (answering(values=(np.nan, 0.0)), "values that are not finite"),
        (answering(probability=(np.inf, 0.0)), "probability that are not finite"),
        (answering(values=(0.0, 0.0, 0.0)), r"values of shape \(3,\); expected \(2,\)"),
        (answering(index=2), "index 2; there are 2 classes"),
        (answering(index="a"), "raised TypeError"),
    ],
)
def test_an_answer_that_nobody_can_use_is_a_fault(decoder, words):
    with pytest.raises(Fault, match=words):
        decoder.predict(RATES)


def test_an_error_of_the_decoders_own_code_is_a_fault_that_says_which():
    decoder = running(learn=lambda *_: 1 / 0, reset=lambda _: 1 / 0)
    with pytest.raises(Fault, match="learn raised ZeroDivisionError: division by zero"):
        decoder.learn(LESSON)
    with pytest.raises(Fault, match="reset raised ZeroDivisionError"):
        decoder.reset()
    assert decoder.knowledge.learned == 0


def test_a_prediction_names_how_many_labels_its_decoder_has_learned():
    decoder = RunningDecoder("d", "maxrate", "active", MaxRate(["a", "b"], 3), 8)
    before = decoder.identity()
    decoder.learn(LESSON)
    after = decoder.identity()
    assert (before["learned"], after["learned"], after["version"]) == (0, 1, 1)
    assert before["digest"] != after["digest"]
    assert decoder.describe()["learned"] == {"a": 1, "b": 0}


def test_labels_are_a_test_alone_for_a_decoder_that_does_not_learn_online():
    decoder = running(online=False, learn=lambda *_: 1 / 0)
    before = decoder.identity()
    decoder.predict(RATES, 2)
    decoder.learn(LESSON)
    assert decoder.identity() == before
    assert decoder.describe()["learned"] == {"a": 0, "b": 0}
    assert decoder.knowledge.accuracy.bins == 1
