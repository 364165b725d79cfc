import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.models.base import Decoder, digest, make_decoder
from neuroloop.models.maxrate import MaxRate
from neuroloop.models.poisson import Poisson

CLASSES = ["left", "right"]


@pytest.mark.parametrize(("kind", "model"), [("maxrate", MaxRate), ("poisson", Poisson)])
def test_a_decoder_is_made_by_the_name_of_its_kind(kind, model):
    decoder = make_decoder(kind, CLASSES, 3)
    assert isinstance(decoder, model)
    assert isinstance(decoder, Decoder)
    assert decoder.kind == kind
    assert decoder.classes == ("left", "right")


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match=r"'maxrat' is not known; there are: .*maxrate.*poisson"):
        make_decoder("maxrat", CLASSES, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": -1}, r"'maxrate': decay: .*greater than or equal to 0; got -1"),
        ({"half_live_s": 3}, r"half_live_s: unknown; maxrate has: decay, half_life_s"),
        ({"rule": "max"}, r"rule: .*'mean' or 'sum'; got 'max'"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings, message):
    with pytest.raises(ModelError, match=message):
        make_decoder("maxrate", CLASSES, 3, settings)


def test_equal_decoders_have_equal_digests_and_learning_changes_them():
    one, other = (make_decoder("maxrate", CLASSES, 3) for _ in range(2))
    assert digest(one) == digest(other)
    assert digest(one).startswith("sha256:")
    before = digest(one)
    one.learn(np.array([1.0, 2.0, 3.0]), 0)
    assert digest(one) != before
    other.learn(np.array([1.0, 2.0, 3.0]), 0)
    assert digest(one) == digest(other)


def test_settings_that_change_the_answers_change_the_digest():
    assert digest(make_decoder("poisson", CLASSES, 3)) != digest(make_decoder("poisson", CLASSES, 3, {"smoothing": 2}))


def test_kinds_that_know_how_long_rates_are_means_are_told_unless_the_settings_say_it():
    assert make_decoder("poisson", CLASSES, 3, duration_s=0.2).settings.duration_s == 0.2
    assert make_decoder("poisson", CLASSES, 3, {"duration_s": 0.7}, 0.2).settings.duration_s == 0.7
    assert make_decoder("maxrate", CLASSES, 3, duration_s=0.2).learned() == dict.fromkeys(CLASSES, 0)
