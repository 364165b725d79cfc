"""What holds of MaxRate, and of the statistics that it shares with the Poisson decoder, whatever the samples."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuroloop.models.base import digest
from neuroloop.models.maxrate import MaxRate, MaxRateSettings
from neuroloop.models.poisson import Poisson, PoissonSettings

CLASSES, FEATURES = ("left", "right", "up"), 5

# Spikes counted in half a second, in hertz; whole numbers, so that ties are exact in any precision. Some are negative,
# as features of other kinds can be.
COUNTS = hnp.arrays(np.float64, FEATURES, elements=st.integers(-4, 20).map(lambda count: 2.0 * max(count, -1)))
LESSONS = st.lists(st.tuples(COUNTS, st.integers(0, 2)), min_size=1, max_size=25)
FORGETTING = st.fixed_dictionaries(
    {"decay": st.sampled_from([0.0, 0.3]), "half_life_s": st.sampled_from([None, 3.0])},
)
SETTINGS = st.fixed_dictionaries(
    {
        "rule": st.sampled_from(["mean", "sum"]),
        "normalize": st.sampled_from(["deviation", "mean", "none"]),
        "proportional": st.booleans(),
        "silent": st.sampled_from(["none", "first"]),
        "decay": st.sampled_from([0.0, 0.3]),
        "half_life_s": st.sampled_from([None, 3.0]),
    }
)
few = settings(max_examples=40)


def taught(lessons, model=MaxRate, **chosen):
    decoder = model(CLASSES, FEATURES, model.settings_model(**chosen))
    for rates, label in lessons:
        decoder.learn(rates, label)
    return decoder


def oracle(lessons, asked, *, rule, normalize, proportional, silent, decay, half_life_s):
    """The formulas of the module's head, in float64: logits and assignments."""
    sums, weights = np.zeros((3, FEATURES)), np.zeros(3)
    for rates, label in lessons:
        age = 1.0 if half_life_s is None else 0.5 ** (1 / half_life_s)
        sums, weights = sums * age, weights * age
        sums[label] = np.exp(-decay) * sums[label] + rates
        weights[label] = np.exp(-decay) * weights[label] + 1
    seen = weights > 0
    means = sums / np.where(seen, weights, 1)[:, None]
    r = means if rule == "mean" else sums
    total = np.abs(r).sum(axis=0)
    p = r / np.where(total > 0, total, 1)
    # The decoder compares in float32: what differs by less is a tie, and goes to the lowest.
    a = np.where(total > 0, (p > p.max(axis=0) - 1e-6).argmax(axis=0), 0 if silent == "first" else -1)
    center = means[seen].mean(axis=0)
    level = np.abs(means[seen]).mean(axis=0)
    level[level == 0] = 1
    logits = np.zeros(3)
    for k in range(3):
        own = a == k
        if not own.any():
            continue
        votes = p[k, own] if proportional else np.ones(own.sum())
        if normalize == "deviation":
            deviation = (asked - center)[own] / np.sqrt(level[own])
            logits[k] = (votes * deviation).sum() / np.sqrt(own.sum())
        else:
            logits[k] = (votes * asked[own] / (level[own] if normalize == "mean" else 1)).mean()
    return logits, a


@given(LESSONS, COUNTS, SETTINGS)
@few
def test_the_compiled_lesson_is_the_formulas(lessons, asked, chosen):
    decoder = taught(lessons, **chosen)
    logits, owners = oracle(lessons, asked, **chosen)
    assert decoder.assignments.tolist() == owners.tolist()
    assert decoder.occurrences.tolist() == [int((owners == k).sum()) for k in range(3)]
    np.testing.assert_allclose(decoder.predict(asked).values, logits, rtol=1e-5, atol=1e-5)
    matrix, bias, _ = decoder.readout
    np.testing.assert_allclose(asked @ matrix + bias, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model", "chosen"), [(MaxRate, {}), (MaxRate, {"rule": "sum"}), (Poisson, {})])
@given(LESSONS, LESSONS, FORGETTING, st.integers(0, FEATURES))
@few
def test_a_decoder_goes_on_from_its_state_bit_for_bit(model, chosen, first, then, forgetting, hole):
    decoder = taught(first, model, **chosen, **forgetting)
    back = taught([], model, **chosen, **forgetting)
    back.load_state_dict(decoder.state_dict())
    assert digest(back) == digest(decoder)
    for rates, label in then:
        rates = np.where(np.arange(FEATURES) == hole, np.nan, rates)
        one, other = decoder.predict(rates), back.predict(rates)
        assert np.array_equal(one.values, other.values)
        assert np.array_equal(one.probability, other.probability)
        decoder.learn(rates, label)
        back.learn(rates, label)
    assert digest(back) == digest(decoder)


@given(st.lists(COUNTS, min_size=3, max_size=3), st.lists(st.integers(1, 9), min_size=3, max_size=3), COUNTS)
@few
def test_how_often_a_class_was_shown_changes_nothing(shown, times, asked):
    once = taught([(rates, label) for label, rates in enumerate(shown)])
    often = taught([(rates, label) for label, rates in enumerate(shown) for _ in range(times[label])])
    np.testing.assert_allclose(often.rates, once.rates, rtol=1e-12)
    assert often.assignments.tolist() == once.assignments.tolist()
    np.testing.assert_allclose(often.predict(asked).values, once.predict(asked).values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [MaxRate, Poisson])
@given(LESSONS, FORGETTING)
@few
def test_a_batch_is_learned_as_its_samples_one_after_the_other(model, lessons, forgetting):
    batch = taught([], model, **forgetting)
    batch.learn_batch(np.array([rates for rates, _ in lessons]), [label for _, label in lessons])
    assert digest(batch) == digest(taught(lessons, model, **forgetting))


@given(LESSONS)
@few
def test_batches_of_one_are_single_samples_by_the_published_rule_too(lessons):
    batches = taught([], rule="sum", decay=0.1)
    for rates, label in lessons:
        batches.learn_batch(rates[None], [label])
    assert digest(batches) == digest(taught(lessons, rule="sum", decay=0.1))


@pytest.mark.parametrize("model", [MaxRate, Poisson])
@given(LESSONS, COUNTS, st.permutations(range(FEATURES)))
@few
def test_the_order_of_the_features_does_not_matter(model, lessons, asked, order):
    plain = taught(lessons, model, temperature=1.0).predict(asked)
    turned = taught([(rates[order], label) for rates, label in lessons], model, temperature=1.0).predict(asked[order])
    np.testing.assert_allclose(turned.values, plain.values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(turned.probability, plain.probability, rtol=1e-4, atol=1e-6)


@given(LESSONS, COUNTS)
@few
def test_missing_features_are_left_out_as_if_they_had_never_been(lessons, asked):
    kept = np.array([True, False, True, True, False])
    decoder, small = taught(lessons), MaxRate(CLASSES, 3)
    for rates, label in lessons:
        small.learn(rates[kept], label)
    scores, expected = decoder.predict(np.where(kept, asked, np.nan)), small.predict(asked[kept])
    assert scores.reason == expected.reason
    np.testing.assert_allclose(scores.values, expected.values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", [MaxRate, Poisson])
def test_a_reader_in_another_thread_sees_the_decoder_before_or_after_a_lesson_never_in_between(model):
    rng = np.random.default_rng(4)
    lessons = [(rng.poisson(4.0, 64).astype(np.float32), int(rng.integers(3))) for _ in range(400)]
    asked = rng.poisson(4.0, 64).astype(np.float32)
    replay, live = model(CLASSES, 64), model(CLASSES, 64)
    possible = {replay.predict(asked).values.tobytes()}
    for rates, label in lessons:
        replay.learn(rates, label)
        possible.add(replay.predict(asked).values.tobytes())
    seen, done = set(), threading.Event()

    def read():
        while not done.is_set():
            seen.add(live.predict(asked).values.tobytes())

    reader = threading.Thread(target=read)
    reader.start()
    for rates, label in lessons:
        live.learn(rates, label)
    done.set()
    reader.join()
    assert seen <= possible


def test_a_readout_that_is_held_stays_as_it_was():
    decoder = taught([([2.0, 0, 0, 4, 8], 0), ([0.0, 2, 2, 4, 2], 1)])
    held = decoder.readout
    before = [part.copy() for part in held]
    decoder.learn(np.array([0.0, 9, 9, 9, 9]), 2)
    assert all(np.array_equal(part, old) for part, old in zip(held, before, strict=True))


def test_settings_of_both_kinds_are_frozen():
    for chosen in (MaxRateSettings(), PoissonSettings()):
        with pytest.raises(ValueError, match="frozen"):
            chosen.decay = 1.0
