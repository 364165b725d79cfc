import numpy as np
import pytest
from scipy import stats

from neuroloop.models.maxrate import MaxRate
from neuroloop.models.poisson import Poisson, PoissonSettings

CLASSES = ("left", "right", "up")


def decoder(*samples, **settings):
    model = Poisson(CLASSES, len(samples[0][0]) if samples else 3, PoissonSettings(**settings))
    for values, index in samples:
        model.learn(np.array(values, dtype=float), index)
    return model


TUNED = (([8, 2, 2], 0), ([2, 8, 2], 1), ([2, 2, 8], 2))


def test_the_logits_are_the_log_likelihood_of_the_counts_up_to_what_classes_share():
    model = decoder(*TUNED * 1000, duration_s=0.5)
    rates = np.array([6.0, 2.0, 4.0])
    exact = [stats.poisson.logpmf(0.5 * rates, 0.5 * np.array(values)).sum() for values, _ in TUNED]
    values = model.predict(rates).values
    np.testing.assert_allclose(values - values[0], np.array(exact) - exact[0], atol=0.02)


def test_each_class_starts_with_a_share_of_the_mean_rate():
    model = decoder(([8, 2], 0), ([0, 2], 1), duration_s=1.0, smoothing=1.0)
    expected = 3 * np.log([6, 2]) - [6, 2]
    values = model.predict(np.array([3.0, 0.0])).values
    np.testing.assert_allclose(values[:2], expected - 2.0)


def test_a_feature_never_heard_in_a_class_makes_it_improbable_not_impossible():
    scores = decoder(([9, 3], 0), ([0, 3], 1)).predict(np.array([9.0, 3.0]))
    assert np.isfinite(scores.values).all()
    assert scores.index == 0


def test_a_feature_silent_in_every_class_has_no_say():
    model = decoder(([9, 3, 0], 0), ([1, 3, 0], 1))
    quiet, loud = (model.predict(np.array([5.0, 3.0, x])) for x in (0.0, 50.0))
    assert np.array_equal(quiet.values, loud.values)


def test_silence_speaks_for_the_quieter_class():
    assert decoder(([9, 9], 0), ([1, 1], 1)).predict(np.zeros(2)).index == 1


def test_an_untrained_decoder_abstains_until_two_classes_are_seen():
    assert decoder().predict(np.ones(3)).reason.startswith("untrained")
    assert decoder(([1, 1, 1], 1)).predict(np.ones(3)).index is None
    assert decoder(*TUNED[:2]).predict(np.array([8, 2, 2])).index == 0


def test_a_class_not_seen_is_never_the_answer():
    scores = decoder(*TUNED[:2]).predict(np.array([2, 2, 8]))
    assert scores.index in (0, 1)
    assert scores.probability[2] == 0.0


def test_the_prior_is_even_unless_the_frequency_is_asked_for():
    samples = [([4.0, 4.0], 0)] * 9 + [([4.0, 4.0], 1)]
    asked = np.array([4.0, 4.0])
    even, frequency = (decoder(*samples, prior=prior).predict(asked).values for prior in ("uniform", "frequency"))
    assert even[0] == pytest.approx(even[1])
    assert frequency[0] - frequency[1] == pytest.approx(np.log(9))


def test_a_missing_feature_is_left_out_exactly():
    model = decoder(([9, 7, 1], 0), ([1, 2, 9], 1))
    without = decoder(([9, 1], 0), ([1, 9], 1))
    scores = model.predict(np.array([8.0, np.nan, 1.0]))
    np.testing.assert_allclose(scores.values, without.predict(np.array([8.0, 1.0])).values)


def test_negative_inputs_give_finite_scores():
    scores = decoder(([-1, 3], 0), ([2, -5], 1)).predict(np.array([-2.0, 4.0]))
    assert np.isfinite(scores.values).all()


def test_the_same_labels_decode_better_than_by_maxrate():
    rng = np.random.default_rng(5)
    preferred, angles = rng.uniform(0, 2 * np.pi, 48), np.arange(8) * np.pi / 4
    truth = rng.lognormal(2, 0.8, 48)[:, None] * (1 + 0.6 * np.cos(angles - preferred[:, None]))
    names, hits = [str(k) for k in range(8)], np.zeros(2)
    models = (Poisson(names, 48), MaxRate(names, 48))
    for trial in range(300):
        label = trial % 8
        rates = rng.poisson(0.5 * truth[:, label]) / 0.5
        for number, model in enumerate(models):
            hits[number] += trial >= 100 and model.predict(rates).index == label
            model.learn(rates, label, 0.5)
    poisson, maxrate = hits / 200
    assert poisson > 0.95
    assert 0.35 < maxrate < poisson


def test_a_decoder_loaded_from_a_state_answers_the_same_to_the_bit():
    rng = np.random.default_rng(1)
    first = decoder(*[(rng.poisson(3.0, 5), int(k)) for k in rng.integers(0, 3, 40)])
    second = Poisson(CLASSES, 5)
    second.load_state_dict(first.state_dict())
    asked = rng.poisson(3.0, 5)
    assert np.array_equal(first.predict(asked).values, second.predict(asked).values)
    assert np.array_equal(first.predict(asked).probability, second.predict(asked).probability)
    assert second.learned() == first.learned()
