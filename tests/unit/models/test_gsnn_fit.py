import numpy as np
import pytest
import torch
from tests.unit.models.interruptions import interrupted

from neuroloop.errors import ModelError
from neuroloop.models.gsnn import GSNN
from neuroloop.models.gsnn_fit import fit, membership, standard
from neuroloop.models.gsnn_graph import make_graph
from neuroloop.models.gsnn_settings import GSNNFitSettings, GSNNSettings
from neuroloop.models.gsnn_state import standardised
from neuroloop.models.gsnn_torch import GSNNModule
from neuroloop.models.pathway import PathwayRegulariser

CLASSES = ["left", "right", "up"]
CLUSTERED = GSNNSettings.model_validate({"graph": {"kind": "clusters", "clusters": [[0, 1, 2], [3, 4, 5], [6]]}})


@pytest.fixture(scope="module")
def trials():
    """240 trials of 8 units with a rate for each of three directions; the last 60 are held back."""
    generator = np.random.default_rng(5)
    tuning, labels = generator.gamma(2.0, 5.0, (3, 8)), np.arange(240) % 3
    rates = generator.poisson(tuning[labels]).astype(float)
    rates[7, 3] = np.nan
    held_back = np.arange(240) >= 180
    return rates, labels.astype(np.intp), held_back


def run(trials, settings=None, on_epoch=None, **training):
    settings = settings or GSNNSettings()
    chosen = GSNNFitSettings(**{"epochs": 12} | training)
    return fit(*trials, 3, make_graph(settings.graph, 8, CLASSES), settings, chosen, on_epoch)


def decoder_of(fitted, settings=None):
    decoder = GSNN(CLASSES, 8, settings or GSNNSettings())
    decoder.take(fitted.weights)
    return decoder


def test_what_was_not_learned_from_is_answered_right_with_probabilities_that_mean_it(trials):
    fitted = run(trials)
    rates, labels, held_back = trials
    scores = [decoder_of(fitted).predict(one) for one in rates[held_back]]
    right = np.array([one.index for one in scores]) == labels[held_back]
    assert right.mean() > 0.9
    said = np.array([one.probability.max() for one in scores])
    assert abs(said.mean() - right.mean()) < 0.1
    assert fitted.weights.samples.tolist() == [80, 80, 80]


def test_the_parameters_of_the_best_epoch_are_kept_and_the_fit_stops_when_it_gets_no_better(trials):
    told = []
    fitted = run(trials, on_epoch=lambda *one: told.append(one), epochs=300, patience=3, learning_rate=0.05)
    assert told == list(enumerate(fitted.curve, 1))
    assert len(fitted.curve) < 300
    assert np.argmin(fitted.curve) == len(fitted.curve) - 4
    rates, labels, held_back = trials
    decoder = decoder_of(fitted)
    values = torch.tensor([decoder.predict(one).values.tolist() for one in rates[held_back]])
    loss = torch.nn.functional.cross_entropy(values, torch.from_numpy(labels[held_back]))
    assert float(loss) == pytest.approx(min(fitted.curve), rel=1e-4)


def test_a_fit_is_the_same_with_the_same_seed(trials):
    one, same, other = (run(trials, epochs=2, seed=seed) for seed in (1, 1, 2))
    for name, array in one.weights.arrays().items():
        np.testing.assert_array_equal(same.weights.arrays()[name], array, err_msg=name)
    assert not np.array_equal(one.weights.parameters.in_weight, other.weights.parameters.in_weight)


def test_features_taken_as_missing_keep_a_fit_from_learning_few_trials_by_heart():
    generator = np.random.default_rng(2)
    tuning = generator.gamma(2.0, 5.0, 40) * generator.uniform(0.85, 1.15, (3, 40))
    labels = (np.arange(360) % 3).astype(np.intp)
    rates = generator.poisson(tuning[labels]).astype(float)
    settings = GSNNSettings()
    graph, all_learned, losses = make_graph(settings.graph, 40, CLASSES), np.zeros(60, bool), []
    for missing in (0.0, 0.5):
        training = GSNNFitSettings(epochs=60, missing=missing)
        fitted = fit(rates[:60], labels[:60], all_learned, 3, graph, settings, training)
        decoder = GSNN(CLASSES, 40, settings)
        decoder.take(fitted.weights)
        said = np.array([decoder.predict(one).probability for one in rates[60:]])
        losses.append(-np.log(said[np.arange(300), labels[60:]]).mean())
    assert losses[1] < 0.7 * losses[0]


def test_with_nothing_held_back_all_epochs_are_run_on_the_loss_of_the_training(trials):
    rates, labels, _ = trials
    fitted = run((rates, labels, np.zeros(240, bool)), epochs=4)
    assert len(fitted.curve) == 4
    assert fitted.curve[-1] < fitted.curve[0]
    assert fitted.weights.sharpness == 1.0


def similarity(fitted, rates):
    """How the sites of a cluster go together in the last layer."""
    weights = fitted.weights
    _, matrix = membership(weights.graph, CLUSTERED, GSNNFitSettings())
    module = GSNNModule(weights.graph, CLUSTERED, weights.parameters)
    passed = module(torch.from_numpy(standardised(rates, weights.mean, weights.scale)))
    return -PathwayRegulariser(matrix, 4, lambda_sim=1.0)(passed.activations[-1:])[0].item()


def test_the_pathway_loss_makes_the_sites_of_a_cluster_go_together(trials):
    without = run(trials, CLUSTERED, epochs=40, lambda_sim=0.0)
    with_it = run(trials, CLUSTERED, epochs=40, lambda_sim=1.0)
    assert similarity(with_it, trials[0]) > similarity(without, trials[0]) + 0.2
    assert with_it.left_out == ("2",)
    assert without.left_out == ()


def test_pathways_are_clusters_or_named_functions():
    graph = make_graph(CLUSTERED.graph, 8, CLASSES)
    names, matrix = membership(graph, CLUSTERED, GSNNFitSettings())
    assert names == ["0", "1", "2"]
    assert [np.flatnonzero(row).tolist() for row in matrix] == [[0, 1, 2], [3, 4, 5], [6]]
    names, matrix = membership(graph, CLUSTERED, GSNNFitSettings(pathways={"M1": [0, 7]}))
    assert (names, np.flatnonzero(matrix[0]).tolist()) == (["M1"], [0, 7])
    nodes = {"kind": "nodes", "inputs": ["i"], "functions": ["A", "B"], "outputs": ["x", "y"]}
    nodes["edges"] = [("i", "A"), ("A", "B"), ("B", "x"), ("B", "y")]
    settings = GSNNSettings.model_validate({"graph": nodes})
    graph = make_graph(settings.graph, 1, ["x", "y"])
    assert membership(graph, settings, GSNNFitSettings(pathways={"all": ["B", 0]}))[1].tolist() == [[1, 1]]
    with pytest.raises(ModelError, match="all: expected functions from 0 to 1, or by name; got 'C'"):
        membership(graph, settings, GSNNFitSettings(pathways={"all": ["C"]}))


def test_dissimilar_pathways_must_be_pathways(trials):
    with pytest.raises(ModelError, match="dissimilar: 'M1' is no pathway; there are: 0, 1, 2"):
        run(trials, CLUSTERED, dissimilar=[("0", "M1")])
    run(trials, CLUSTERED, dissimilar=[("0", "1")], lambda_dis=0.1, epochs=1)


def test_one_sample_is_not_enough_to_learn_from(trials):
    rates, labels, _ = trials
    with pytest.raises(ModelError, match="two samples or more to learn from, got 1"):
        run((rates, labels, np.arange(240) > 0))


def test_features_that_are_constant_or_never_known_are_left_as_they_are():
    mean, scale = standard(np.array([[1.0, np.nan, 2.0], [1.0, np.nan, np.nan], [1.0, np.inf, 4.0]]))
    assert mean.tolist() == [1.0, 0.0, 3.0]
    assert scale.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("after", [1, 5, 12])
def test_a_fit_that_was_interrupted_goes_on_to_the_same_end(trials, after):
    def once(kept=None):
        more = {} if kept is None else {"kept": kept}
        chosen = GSNNFitSettings(epochs=12, lambda_sim=0.1, learn_phi=True)
        return fit(*trials, 3, make_graph(CLUSTERED.graph, 8, CLASSES), CLUSTERED, chosen, **more)

    expected, resumed = once(), interrupted(once, after)
    assert resumed.curve == expected.curve
    for name, array in expected.weights.arrays().items():
        np.testing.assert_array_equal(resumed.weights.arrays()[name], array, err_msg=name)


def test_a_fit_that_was_interrupted_when_it_had_stopped_by_itself_learns_no_more(trials):
    expected = run(trials, epochs=300, patience=3, learning_rate=0.05)

    def once(kept):
        settings, training = GSNNSettings(), GSNNFitSettings(epochs=300, patience=3, learning_rate=0.05)
        return fit(*trials, 3, make_graph(settings.graph, 8, CLASSES), settings, training, kept=kept)

    assert interrupted(once, len(expected.curve)).curve == expected.curve
