"""Fits of kind `lfr`, in this process."""

import numpy as np
import pytest
from tests.unit.models.interruptions import Interruption, Memory

from neuroloop.errors import ModelError
from neuroloop.models import base, decoder_files
from neuroloop.models.lfr import LFR
from neuroloop.training.lfr import rate_window, standards
from neuroloop.training.process import fit
from neuroloop.training.request import FitRequest
from neuroloop.training.settings import lfr_settings

SMALL = {"bins": 6, "width": 16, "kernel": 2, "depth": 2}
QUICK = {"pretrain_epochs": 4, "stride": 2, "targets": 4, "projectors": {"count": 8, "outputs": 16}, "head_epochs": 30}


@pytest.fixture(autouse=True)
def _kind(monkeypatch):
    """Kinds are read from what is installed, which may be older than these sources."""

    class Point:
        def load(self):
            return LFR

    kinds = base._kinds()
    monkeypatch.setattr(base, "_kinds", lambda: kinds | {"lfr": Point()})


def request(training=None, window=None, **settings):
    given = SMALL | settings | {"training": QUICK | (training or {})}
    asked = {"name": "reach", "kind": "lfr", "source": {"arrays": "a.npz"}, "settings": given, "window": window}
    return FitRequest.model_validate(asked)


def ignore(_progress, _loss):
    return None


def make_sweeps(trials=80, units=8, seed=5):
    """Bins in which activity sweeps over the units, up or down: the mean over a trial is the same for both classes."""
    generator = np.random.default_rng(seed)
    length, pause = 10, 4
    labels = np.concatenate([[trial % 2] * length + [-1] * pause for trial in range(trials)])
    rates = np.full((len(labels), units), 5.0)
    for trial in range(trials):
        for step in range(length):
            unit = (step + trial) % units if trial % 2 else (trial - step) % units
            rates[trial * (length + pause) + step, unit] += 40
    return {"rates": generator.poisson(rates).astype(np.float32), "labels": labels}


@pytest.fixture(scope="module")
def sweeps():
    return make_sweeps()


@pytest.mark.parametrize("head", ["linear", "maxrate"])
def test_a_decoder_is_fitted_measured_on_what_it_has_not_seen_and_read_back(sweeps, head):
    told = []
    asked = request(head=head, training={"tune_epochs": 12, "tune_learning_rate": 5e-3})
    fitted = fit(asked, sweeps, lambda progress, loss: told.append((progress, loss)))
    assert fitted.metrics["accuracy"] > 0.85  # by their means, the classes are the same
    assert fitted.metrics["log_loss"] < 0.5
    assert fitted.amounts["held_out_samples"] == 16
    assert fitted.amounts["targets"] == fitted.amounts["targets_asked"] == 4
    progress, losses = zip(*told, strict=True)
    assert progress == tuple(sorted(progress))
    assert progress[-1] == 1.0
    assert losses[-1] == fitted.metrics["log_loss"]
    decoder = decoder_files.load(decoder_files.read(fitted.weights))
    assert decoder.classes == ("0", "1")
    assert len(decoder.chosen) == 4
    assert fitted.about["features"] == 8
    assert fitted.about["settings"]["window"] == 1


def test_from_scratch_the_labels_alone_train_the_backbone(sweeps):
    fitted = fit(
        request(training={"pretrain_epochs": 0, "tune_epochs": 25, "tune_learning_rate": 5e-3}), sweeps, ignore
    )
    assert fitted.metrics["accuracy"] > 0.85
    assert fitted.amounts["pretraining_samples"] == fitted.amounts["targets"] == 0


def test_pretraining_alone_makes_features_that_a_linear_head_can_use(sweeps):
    accuracy = fit(request(training={"pretrain_epochs": 30, "learning_rate": 5e-3}), sweeps, ignore).metrics["accuracy"]
    assert accuracy > 0.75


def test_a_gated_recurrent_unit_is_fitted_too(sweeps):
    asked = request(backbone="gru", training={"pretrain_epochs": 1, "tune_epochs": 25, "tune_learning_rate": 1e-2})
    assert fit(asked, sweeps, ignore).metrics["accuracy"] > 0.85


def test_a_fit_is_the_same_bit_for_bit_and_another_seed_gives_another(sweeps):
    weights = [fit(request(training={"seed": seed}), sweeps, ignore).weights for seed in (3, 3, 4)]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_nothing_is_learned_from_what_is_held_out(sweeps):
    expected = fit(request(), sweeps, ignore)
    first = int(np.flatnonzero(sweeps["labels"] >= 0)[64 * 10])
    rates = sweeps["rates"].copy()
    rates[first:] = np.random.default_rng(0).uniform(0, 99, rates[first:].shape)
    fitted = fit(request(), sweeps | {"rates": rates}, ignore)
    assert fitted.weights == expected.weights
    assert fitted.metrics != expected.metrics


def test_no_window_reaches_over_a_hole(sweeps):
    usable = np.ones(len(sweeps["labels"]), bool)
    usable[200:203] = False
    whole, holed = (fit(request(), sweeps | more, ignore).amounts for more in ({}, {"usable": usable}))
    assert whole["pretraining_samples"] == 64 * 14 - 5
    assert holed["pretraining_samples"] == whole["pretraining_samples"] - 3 - 5


def test_what_a_bin_that_cannot_be_trusted_holds_changes_no_weight(sweeps):
    usable = np.ones(len(sweeps["labels"]), bool)
    usable[200:203] = False
    weights = []
    for value in (0.0, 500.0):
        rates = sweeps["rates"].copy()
        rates[200:203] = value
        weights.append(fit(request(), sweeps | {"usable": usable, "rates": rates}, ignore).weights)
    assert weights[0] == weights[1]


def test_unlabelled_bins_are_pretrained_on(sweeps):
    amounts = fit(request(), sweeps, ignore).amounts
    assert amounts["pretraining_samples"] > amounts["training_samples"] > 0


def test_a_unit_that_is_silent_or_missing_does_not_spoil_the_others(sweeps):
    rates = sweeps["rates"].copy()
    rates[:, 0], rates[::7, 1] = 0.0, np.nan
    asked = request(training={"tune_epochs": 25, "tune_learning_rate": 5e-3})
    assert fit(asked, sweeps | {"rates": rates}, ignore).metrics["accuracy"] > 0.75
    mean, std = standards(rates)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    assert std[0] == pytest.approx(np.median(std[1:]), rel=1e-6)


def test_the_backbones_steps_are_limited_over_all_epochs(sweeps):
    none = fit(request(training={"pretrain_epochs": 3, "max_backbone_training_steps": 0}), sweeps, ignore)
    some = fit(request(training={"pretrain_epochs": 3, "max_backbone_training_steps": 2}), sweeps, ignore)
    first, second = (decoder_files.read(fitted.weights).tensors["backbone.weight0"] for fitted in (none, some))
    assert 0 < np.abs(first - second).max() < 2.5 * 2 * 3e-3  # of AdamW, a step is at most the learning rate


@pytest.mark.parametrize(
    ("asked", "arrays", "expected"),
    [
        (request(), {}, 1),
        (request(), {"times": np.arange(100) * 0.02, "duration_s": np.array(0.5)}, 25),
        (request(window=5), {"times": np.arange(100) * 0.02, "duration_s": np.array(0.5)}, 5),
    ],
)
def test_rate_vectors_are_the_means_that_the_session_has_or_the_request_asks_for(asked, arrays, expected):
    assert rate_window(asked, lfr_settings(asked)[0], arrays) == expected


def test_a_window_asked_for_twice_must_be_the_same():
    asked = request(window=5)
    asked.settings["window"] = 4
    with pytest.raises(ModelError, match="window: 5 in the request and 4 in its settings"):
        rate_window(asked, lfr_settings(asked)[0], {})


def test_labels_and_settings_that_cannot_be_learned_are_refused(sweeps):
    count, labels = len(sweeps["labels"]), sweeps["labels"]
    for change, words in (
        ({"labels": np.full(count, -1)}, "two classes or more"),
        ({"labels": np.where(labels == 0, 0, -1)}, "two classes or more"),
        ({"times": np.cumsum(np.where(np.arange(count) % 4, 1.0, 9.0))}, "no labelled bin follows on 5"),
    ):
        with pytest.raises(ModelError, match=words):
            fit(request(), sweeps | change, ignore)
    with pytest.raises(ModelError, match="widht: unknown; lfr has"):
        fit(request(widht=3), sweeps, ignore)
    with pytest.raises(ModelError, match="2 convolutions of 9 bins need a window of at least 17 bins, got 6"):
        fit(request(training={"projectors": {"kernel": 9}}), sweeps, ignore)
    with pytest.raises(ModelError, match="epochs: unknown"):
        fit(request(training={"epochs": 3}), sweeps, ignore)
    with pytest.raises(ModelError, match="trials: unknown; a fit of kind lfr takes rates, labels"):
        fit(request(), {"trials": np.ones((6, 2)), "labels": np.array([0, 1] * 3)}, ignore)
    with pytest.raises(ModelError, match=r"the loss became nan"):
        fit(request(training={"learning_rate": 1e30}), sweeps, ignore)


@pytest.mark.parametrize(("stage", "after"), [("pretraining", 1), ("pretraining", 4), ("tuning", 1), ("tuning", 3)])
def test_a_fit_that_was_interrupted_goes_on_to_the_same_end(sweeps, stage, after):
    asked = request(training={"tune_epochs": 4, "predictor_training_epochs": 2})
    stages = {"pretraining": Memory(), "tuning": Memory()}
    stages[stage].after = after

    def once():
        return fit(asked, sweeps, ignore, lambda name: stages[name].stage)

    with pytest.raises(Interruption):
        once()
    resumed = once()
    assert stages["pretraining"].loaded
    assert stages["tuning"].loaded == (stage == "tuning")
    assert stages["pretraining"].kept == stages["tuning"].kept == 4
    assert resumed.weights == fit(asked, sweeps, ignore).weights


def test_a_backbone_that_has_done_its_steps_makes_no_more_after_an_interruption(sweeps):
    asked = request(training={"pretrain_epochs": 4, "max_backbone_training_steps": 2})
    memory = Memory(1)
    with pytest.raises(Interruption):
        fit(asked, sweeps, ignore, lambda _: memory.stage)
    assert fit(asked, sweeps, ignore, lambda _: memory.stage).weights == fit(asked, sweeps, ignore).weights
    assert (memory.loaded, memory.kept) == (True, 1)
