import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.models.maxrate import MaxRate, MaxRateSettings
from neuroloop.reference import maxrate_run

CLASSES = ("left", "right", "up")
NAN = float("nan")


def decoder(*samples, classes=CLASSES, **settings):
    features = len(samples[0][0]) if samples else 3
    model = MaxRate(classes, features, MaxRateSettings(**settings))
    for values, index in samples:
        model.learn(np.array(values, dtype=float), index)
    return model


TUNED = (([9, 1, 1], 0), ([1, 9, 1], 1), ([1, 1, 9], 2))


def test_the_class_whose_features_are_the_most_active_wins():
    model = decoder(*TUNED)
    assert [model.predict(np.array(values)).index for values, _ in TUNED] == [0, 1, 2]
    assert model.assignments.tolist() == [0, 1, 2]


def test_the_logits_are_shares_times_inputs_over_their_means():
    model = decoder(([8, 2, 0], 0), ([2, 6, 4], 1), classes=("left", "right"), normalize="mean")
    scores = model.predict(np.array([5.0, 2.0, 1.0]))
    expected_right = (6 / 8 * 2 / 4 + 4 / 4 * 1 / 2) / 2
    np.testing.assert_allclose(scores.values, [8 / 10 * 5 / 5, expected_right])


def test_without_normalisation_a_feature_of_high_baseline_drowns_the_rest():
    samples = (([100, 2], 0), ([90, 8], 1))
    asked = np.array([91.0, 8.0])
    assert decoder(*samples, normalize="none").predict(asked).index == 0
    assert decoder(*samples).predict(asked).index == 1


def test_deviations_from_the_mean_are_in_poisson_standard_units():
    model = decoder(([8, 2, 0], 0), ([2, 6, 4], 1), classes=("left", "right"))
    scores = model.predict(np.array([5.0, 2.0, 1.0]))
    right = (6 / 8 * (2 - 4) / np.sqrt(4) + 4 / 4 * (1 - 2) / np.sqrt(2)) / np.sqrt(2)
    np.testing.assert_allclose(scores.values, [0.0, right], atol=1e-12)
    assert scores.index == 0


def test_features_count_alike_when_not_weighed_by_their_share():
    samples = (([8, 2, 0], 0), ([2, 6, 4], 1))
    model = decoder(*samples, classes=("left", "right"), proportional=False, normalize="none")
    np.testing.assert_allclose(model.predict(np.array([5.0, 2.0, 1.0])).values, [5.0, 1.5])


def test_the_frequent_class_does_not_win_by_being_frequent():
    frequent = [([0.5], 0)] * 90 + [([0.6], 1)] * 10
    assert decoder(*frequent).assignments.tolist() == [1]
    assert decoder(*frequent, rule="sum").assignments.tolist() == [0]


def test_the_baseline_does_not_depend_on_how_often_a_class_was_shown():
    balanced, frequent = decoder(*TUNED), decoder(*[TUNED[0]] * 50, *TUNED[1:])
    asked = np.array([2.0, 3.0, 2.0])
    np.testing.assert_allclose(balanced.predict(asked).values, frequent.predict(asked).values)


def test_silent_features_belong_to_no_class_and_dilute_none():
    samples = [([4, 1, *[0] * 18], 0), ([1, 6, *[0] * 18], 1)]
    model = decoder(*samples, classes=("left", "right"))
    assert model.assignments.tolist() == [0, 1] + [-1] * 18
    few = decoder(*((values[:2], index) for values, index in samples), classes=("left", "right"))
    asked = np.array([4.0, 5.0])
    with_silent = model.predict(np.concatenate((asked, np.zeros(18))))
    assert with_silent.index == few.predict(asked).index
    np.testing.assert_allclose(with_silent.values, few.predict(asked).values)


def test_an_untrained_decoder_abstains_and_says_so():
    scores = decoder().predict(np.ones(3))
    assert scores.index is None
    assert scores.reason.startswith("untrained: labels seen of 0 classes")
    assert not scores.values.any()
    assert not scores.probability.any()


def test_with_one_class_seen_there_is_nothing_to_choose_yet():
    scores = decoder(([9, 1, 1], 0)).predict(np.ones(3))
    assert scores.index is None
    assert "1 classes (left)" in scores.reason


def test_a_real_first_class_is_told_apart_from_an_untrained_decoder():
    scores = decoder(*TUNED).predict(np.array([9, 1, 1]))
    assert scores.index == 0
    assert scores.reason is None


def test_a_class_that_owns_no_feature_is_never_the_answer():
    model = decoder(([9, 1], 0), ([1, 9], 1), ([2, 2], 2))
    scores = model.predict(np.array([2.0, 2.0]))
    assert scores.index in (0, 1)
    assert scores.values[2] == 0.0
    assert scores.probability[2] == 0.0
    assert scores.probability.sum() == pytest.approx(1.0)


def test_where_one_class_owns_everything_the_decoder_abstains():
    scores = decoder(([9, 5], 0), ([1, 2], 1)).predict(np.array([9.0, 5.0]))
    assert scores.index is None
    assert scores.reason.startswith("no evidence: fewer than two classes")


def test_silence_is_no_vote_for_the_first_class():
    scores = decoder(*TUNED).predict(np.zeros(3))
    assert scores.index is None
    assert scores.reason.startswith("no evidence")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_any_real_type_of_input_gives_the_same_answer(dtype):
    model, exact = MaxRate(CLASSES, 3), MaxRate(CLASSES, 3)
    for index in range(3):
        row = np.eye(3)[index]
        model.learn(row.astype(dtype), index)
        exact.learn(row, index)
    asked = np.array([0, 1, 0])
    assert np.array_equal(model.predict(asked.astype(dtype)).values, exact.predict(asked).values)
    assert model.predict(asked.astype(dtype)).index == 1


@pytest.mark.parametrize("hole", [NAN, np.inf])
def test_a_missing_feature_is_left_out_of_the_answer(hole):
    model = decoder(([9, 7, 1, 1], 0), ([1, 2, 9, 3], 1), ([1, 1, 1, 8], 2))
    without = decoder(([9, 1, 1], 0), ([1, 9, 3], 1), ([1, 1, 8], 2))
    scores = model.predict(np.array([8.0, hole, 1.0, 1.0]))
    assert scores.index == 0
    np.testing.assert_allclose(scores.values, without.predict(np.array([8.0, 1.0, 1.0])).values)


def test_rates_beyond_all_bounds_are_no_evidence_and_break_nothing():
    model = decoder(*TUNED)
    assert np.isfinite(model.predict(np.array([1e308, -1e308, 1e308])).values).all()
    model.learn(np.array([1e300, 1.0, 1.0]), 0)
    scores = model.predict(np.array([1.0, 1.0, 1.0]))
    assert scores.index is None
    assert scores.reason.startswith("out of range")
    assert not scores.values.any()


def test_an_answer_to_nothing_but_missing_values_is_none():
    scores = decoder(*TUNED).predict(np.full(3, NAN))
    assert scores.index is None
    assert scores.reason.startswith("no evidence")


def test_missing_values_are_counted_and_leave_the_rates_finite():
    model = decoder(*TUNED)
    model.learn(np.array([NAN, 9.0, 1.0]), 1)
    assert model.missing == 1
    assert np.isfinite(model.predict(np.array([1.0, 9.0, 1.0])).values).all()


def test_nothing_is_learned_from_a_sample_without_a_value():
    model = decoder(*TUNED)
    with pytest.raises(ModelError, match="all 3 values are missing"):
        model.learn(np.full(3, NAN), 0)
    assert model.learned() == {"left": 1, "right": 1, "up": 1}


def test_a_label_that_is_no_class_is_refused_with_the_classes():
    with pytest.raises(ModelError, match="label: 3 is no class; there are: 0 left, 1 right, 2 up"):
        decoder(*TUNED).learn(np.ones(3), 3)


def test_another_number_of_features_is_refused():
    with pytest.raises(ModelError, match="expected 3 features, got 2"):
        decoder(*TUNED).predict(np.ones(2))


def test_the_probability_starts_even_and_comes_to_match_the_hits():
    rng = np.random.default_rng(3)
    preferred, sample = rng.uniform(0, 2 * np.pi, 20), []
    model = MaxRate([str(k) for k in range(4)], 20)
    for trial in range(600):
        label = trial % 4
        rates = rng.poisson(4 * (1 + 0.5 * np.cos(np.pi / 2 * label - preferred)))
        scores = model.predict(rates)
        if trial == 4:
            assert model.temperature is None
            assert scores.probability.max() == scores.probability[scores.probability > 0].min()
        if trial >= 300:
            sample.append((scores.index == label, scores.probability.max()))
        model.learn(rates, label)
    hits, confidence = np.mean(sample, axis=0)
    assert 0.4 < hits < 0.95
    assert confidence == pytest.approx(hits, abs=0.08)


def test_a_given_temperature_is_the_one_of_the_softmax():
    scores = decoder(*TUNED, temperature=0.5).predict(np.array([3.0, 2.0, 1.0]))
    weights = np.exp(scores.values / 0.5)
    np.testing.assert_allclose(scores.probability, weights / weights.sum())


def test_below_its_threshold_the_decoder_abstains_and_says_how_far():
    model = decoder(*TUNED, temperature=1.0, threshold=0.9)
    scores = model.predict(np.array([3.0, 3.0, 2.9]))
    assert scores.index is None
    assert "0.9 is asked" in scores.reason
    assert scores.probability.sum() == pytest.approx(1.0)
    assert decoder(*TUNED, temperature=0.05, threshold=0.9).predict(np.array([9, 1, 1])).index == 0


def test_rule_sum_without_normalisation_is_the_published_classifier():
    rng = np.random.default_rng(0)
    inputs, labels = rng.gamma(2.0, 3.0, (40, 6)), rng.integers(0, 3, 40)
    labels[:3] = [0, 1, 2]
    published = maxrate_run([(x[None], [y]) for x, y in zip(inputs, labels, strict=True)], [6], 3, decay=0.05)
    model = MaxRate(CLASSES, 6, MaxRateSettings(rule="sum", normalize="none", decay=0.05))
    for number, (x, y) in enumerate(zip(inputs, labels, strict=True)):
        scores = model.predict(x)
        if scores.index is not None:
            np.testing.assert_allclose(scores.values, published[number]["logits"][0], rtol=1e-12)
            assert scores.index == published[number]["pred"][0]
        model.learn(x, int(y))
    assert model.assignments.tolist() == published[-1]["assignments"].tolist()


def test_a_half_life_lets_the_decoder_follow_a_change():
    swapped = [([1, 9], 0), ([9, 1], 1)] * 10
    model = decoder(*[([9, 1], 0), ([1, 9], 1)] * 50, *swapped, half_life_s=4.0)
    assert model.predict(np.array([1.0, 9.0])).index == 0


def test_a_decoder_loaded_from_a_state_goes_on_bit_for_bit():
    rng = np.random.default_rng(1)
    first = decoder(*[(rng.poisson(3.0, 5), int(k)) for k in rng.integers(0, 3, 40)])
    second = MaxRate(CLASSES, 5)
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        sample, label = rng.poisson(3.0, 5), int(rng.integers(0, 3))
        one, other = first.predict(sample), second.predict(sample)
        assert np.array_equal(one.values, other.values)
        assert np.array_equal(one.probability, other.probability)
        first.learn(sample, label)
        second.learn(sample, label)
    assert first.learned() == second.learned()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["a", "b", "c"]}, "expected classes"),
        ({"kind": "poisson"}, "expected kind 'maxrate', got 'poisson'"),
        ({"sums": np.zeros((3, 7))}, r"expected sums of shape \(3, 3\)"),
        ({"trial_logits": np.zeros((2, 2))}, "expected trial_logits of shape"),
        ({"sharpness": -1.0}, "not finite logits of the decoder's classes"),
    ],
)
def test_a_state_of_another_decoder_is_refused_and_changes_nothing(change, message):
    model = decoder(*TUNED)
    before = model.predict(np.array([9, 1, 1])).values
    with pytest.raises(ModelError, match=message):
        model.load_state_dict(model.state_dict() | change)
    assert np.array_equal(model.predict(np.array([9, 1, 1])).values, before)


def test_a_state_with_a_part_missing_is_refused_by_name():
    state = decoder(*TUNED).state_dict()
    del state["weights"]
    with pytest.raises(ModelError, match="decoder state: weights is missing"):
        decoder().load_state_dict(state)


def test_a_reset_keeps_what_was_learned():
    model = decoder(*TUNED)
    before = model.predict(np.array([9, 1, 1])).values
    model.reset()
    assert np.array_equal(model.predict(np.array([9, 1, 1])).values, before)


@pytest.mark.parametrize("normalize", ["deviation", "mean", "none"])
def test_an_input_that_is_silent_throughout_is_no_evidence(normalize):
    model = decoder(([8, 2, 0], 0), ([2, 6, 4], 1), classes=("left", "right"), normalize=normalize)
    scores = model.predict(np.zeros(3))
    assert scores.index is None
    assert "silent" in scores.reason


# As a library


def test_features_may_have_a_shape_and_classes_be_named():
    model = MaxRate(CLASSES, (2, 3))
    grid = np.arange(18.0).reshape(3, 2, 3)[::-1].copy()
    grid[0, 0, 0], grid[1, 0, 1], grid[2, 0, 2] = 90, 90, 90
    for rates, name in zip(grid, CLASSES, strict=True):
        model.learn(rates, name)
    assert model.assignments.shape == (2, 3)
    assert model.assignments[0].tolist() == [0, 1, 2]
    assert model.rates.shape == model.proportions.shape == (2, 3, 3)
    assert model.occurrences.sum() == 6
    assert model.predict(grid[1]).index == model.predict(grid[1].reshape(-1)).index == 1
    with pytest.raises(ModelError, match=r"expected shape \(2, 3\), got \(3, 2\)"):
        model.predict(np.zeros((3, 2)))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_batches_are_answered_row_by_row(dtype):
    model, inputs = MaxRate(CLASSES, 3), np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype)
    model.learn_batch(inputs[:3], ["left", "right", "up"])
    scores = model.predict_batch(inputs)
    assert scores.index.tolist() == [0, 1, 2, -1]
    assert scores.reason[:3] == [None] * 3
    assert scores.reason[3].startswith("no evidence")
    assert scores.values.shape == scores.probability.shape == (4, 3)
    for row, one in enumerate(inputs):
        assert np.array_equal(scores.values[row], model.predict(one).values)


def test_a_time_axis_is_averaged_over_what_is_not_missing():
    model = decoder(*TUNED)
    steps = np.array([[[9.0, 1, 1], [1, 1, 1]], [[7.0, 1, NAN], [3, 9, 1]]])
    averaged = np.array([[8.0, 1, 1], [2, 5, 1]])
    np.testing.assert_array_equal(model.predict_batch(steps).values, model.predict_batch(averaged).values)
    over_time = decoder(*TUNED)
    model.learn_batch(averaged, [0, 1])
    over_time.learn_batch(steps, [0, 1])
    np.testing.assert_array_equal(over_time.rates, model.rates)


def test_an_empty_batch_has_no_answers_and_teaches_nothing():
    model = decoder(*TUNED)
    assert model.predict_batch(np.zeros((0, 3))).values.shape == (0, 3)
    model.learn_batch(np.zeros((0, 3)), [])
    assert sum(model.learned().values()) == 3


@pytest.mark.parametrize("rule", ["mean", "sum"])
@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (np.ones((2, 4)), [0, 1], r"inputs: expected \(batch, \*\(3,\)\) or .*, got \(2, 4\)"),
        (np.ones(3), [0], r"got \(3,\)"),
        (np.ones((2, 3)), [0, 3], "label: 3 is no class; there are: 0 left, 1 right, 2 up"),
        (np.ones((2, 3)), ["left", "down"], "label: down is no class; there are: 0 left"),
        (np.ones((2, 3)), [0], "labels: expected one for each of 2 inputs, got 1"),
        (np.array([[1, 2, 3], [NAN, NAN, np.inf]]), [0, 1], "all 3 values of number 1 are missing"),
        (np.ones((2, 3), complex), [0, 1], "inputs: expected real numbers, got complex128"),
    ],
)
def test_a_batch_that_is_wrong_in_part_teaches_nothing(rule, inputs, labels, message):
    model = decoder(*TUNED, rule=rule)
    before = model.state_dict()["sums"]
    with pytest.raises(ModelError, match=message):
        model.learn_batch(inputs, labels)
    assert np.array_equal(model.state_dict()["sums"], before)


@pytest.mark.parametrize("rule", ["mean", "sum"])
def test_missing_values_of_a_batch_are_counted(rule):
    model = decoder(*TUNED, rule=rule)
    model.learn_batch(np.array([[NAN, 1, 9], [NAN, 1, 7], [9, np.inf, 1]]), [2, 2, 0])
    assert model.missing == 3
    assert model.learned() == {"left": 2, "right": 1, "up": 3}
    assert np.isfinite(model.rates).all()


def test_the_published_rule_adds_the_mean_of_each_class_of_a_batch():
    model = MaxRate.published(CLASSES, 2, decay=0.5)
    model.learn_batch(np.array([[2.0, 4.0], [4.0, 0.0], [8.0, 8.0]]), [0, 0, 2])
    model.learn_batch(np.array([[1.0, 1.0], [3.0, 3.0]]), [0, 0])
    np.testing.assert_allclose(model.rates[:, 0], np.exp(-1.0) * np.array([3.0, 2.0]) + 2.0)
    np.testing.assert_allclose(model.rates[:, 2], 8.0)
    assert model.learned() == {"left": 4, "right": 0, "up": 1}


def test_a_half_life_ages_a_batch_by_the_time_of_all_its_samples():
    model = MaxRate(CLASSES, 1, MaxRateSettings(rule="sum", half_life_s=2.0))
    model.learn_batch(np.array([[8.0]]), [0], duration_s=1.0)
    model.learn_batch(np.array([[1.0], [3.0], [5.0], [7.0]]), [0, 1, 1, 2], duration_s=0.5)
    np.testing.assert_allclose(model.rates[0], [8.0 / 2 + 1.0, 4.0, 7.0])


def test_silent_features_go_to_the_first_class_where_that_is_asked_for():
    samples = [([4, 1, 0, 0], 0), ([1, 6, 0, 0], 1)]
    assert decoder(*samples, silent="first").assignments.tolist() == [0, 1, 0, 0]
    diluted = decoder(*samples, silent="first", normalize="none").predict(np.array([4.0, 4.0, 0.0, 0.0]))
    np.testing.assert_allclose(diluted.values, [4 * 0.8 / 3, 4 * 6 / 7, 0.0], rtol=1e-6)


def test_rates_from_elsewhere_are_taken_over():
    taught = decoder(*TUNED)
    model = MaxRate(CLASSES, 3)
    model.set_rates(taught.rates)
    asked = np.array([3.0, 5.0, 1.0])
    assert np.array_equal(model.predict(asked).values, taught.predict(asked).values)
    with pytest.raises(ModelError, match=r"expected finite values of shape \(3, 3\), got \(3, 2\)"):
        model.set_rates(np.zeros((3, 2)))


def test_negative_rates_are_told_apart_by_their_magnitudes():
    model = decoder(([-8, 2], 0), ([-2, 6], 1), classes=("left", "right"))
    assert model.assignments.tolist() == [1, 1]
    np.testing.assert_allclose(model.proportions[0], [-0.8, -0.2])
    np.testing.assert_allclose(
        model.readout.bias @ [0, 1], -(-0.2 * -5 / np.sqrt(5) + 0.75 * 4 / 2) / np.sqrt(2), rtol=1e-6
    )


def test_the_decoder_gives_its_readout_as_a_matrix():
    model = decoder(*TUNED)
    matrix, bias, eligible = model.readout
    asked = np.array([3.0, 5.0, 1.0])
    np.testing.assert_allclose(asked @ matrix + bias, model.predict(asked).values, rtol=1e-12)
    assert matrix.shape == (3, 3)
    assert eligible.tolist() == [True] * 3
