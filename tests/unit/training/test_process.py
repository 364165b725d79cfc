"""Fits by their kinds, in this process; and the fit process itself."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

from neuroloop import __version__
from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.gsnn import GSNN
from neuroloop.models.gsnn_settings import GSNNSettings
from neuroloop.models.lnp import LNP
from neuroloop.signal.lrr import LRR
from neuroloop.training.job import Job
from neuroloop.training.process import digest, fit, result
from neuroloop.training.request import FitRequest


def request(kind, **more):
    return FitRequest.model_validate({"name": "reach", "kind": kind, "source": {"arrays": "a.npz"}} | more)


def ignore(_progress, _loss):
    return None


@pytest.fixture(scope="module")
def reaches():
    """Bins of 12 units in 60 trials of 10 bins each of three directions, with pauses of 3 bins."""
    generator = np.random.default_rng(5)
    tuning = generator.gamma(2.0, 5.0, (3, 12))
    labels = np.concatenate([[trial % 3] * 10 + [-1] * 3 for trial in range(60)])
    rates = generator.poisson(np.where(labels[:, None] >= 0, tuning[labels], tuning.mean(axis=0))).astype(np.float32)
    return {"rates": rates, "labels": labels}


@pytest.mark.parametrize("kind", ["maxrate", "poisson"])
def test_a_decoder_is_fitted_measured_on_what_it_has_not_seen_and_read_back(reaches, kind):
    told = []
    asked = request(kind, classes=["left", "right", "up"], window=5)
    fitted = fit(asked, reaches, lambda progress, loss: told.append((progress, loss)))
    assert fitted.metrics["accuracy"] > 0.9
    assert fitted.metrics["balanced_accuracy"] > 0.9
    assert fitted.metrics["log_loss"] < 0.5
    assert fitted.amounts == {"training_samples": 96, "held_out_samples": 24}
    progress, losses = zip(*told, strict=True)
    assert progress == tuple(sorted(progress))
    assert progress[-1] == 1.0
    assert losses[-1] == fitted.metrics["log_loss"] < losses[0]
    decoder = decoder_files.load(decoder_files.read(fitted.weights))
    assert decoder.classes == ("left", "right", "up")
    assert sum(decoder.learned().values()) == 96
    assert fitted.about["features"] == 12


@pytest.mark.parametrize("kind", ["lda", "logistic"])
def test_a_decoder_that_is_fitted_at_once_is_measured_and_read_back(reaches, kind):
    told = []
    asked = request(kind, classes=["left", "right", "up"], window=5)
    fitted = fit(asked, reaches, lambda progress, loss: told.append((progress, loss)))
    assert fitted.metrics["accuracy"] > 0.9
    assert fitted.metrics["log_loss"] < 0.3
    assert fitted.amounts == {"training_samples": 96, "held_out_samples": 24}
    progress, losses = zip(*told, strict=True)
    assert progress == tuple(sorted(progress))
    assert (progress[-1], losses[-1]) == (1.0, fitted.metrics["log_loss"])
    decoder = decoder_files.load(decoder_files.read(fitted.weights))
    assert decoder.learned() == {"left": 32, "right": 32, "up": 32}
    assert decoder.temperature is not None
    assert result(asked, digest(reaches), fitted)["training"]["packages"]["scikit-learn"]
    assert fit(asked, reaches, ignore).weights == fitted.weights


def test_samples_with_missing_values_are_left_out_of_a_fit_at_once(reaches):
    holey = reaches | {"rates": reaches["rates"].copy()}
    holey["rates"][:13, 3] = np.nan
    fitted = fit(request("lda", classes=["left", "right", "up"], window=5), holey, ignore)
    assert fitted.amounts == {"training_samples": 94, "held_out_samples": 24}
    assert fitted.metrics["accuracy"] > 0.9


def covariances(generator, trials=40, channels=4, bins=5):
    """Bins of two classes that differ in which direction over the channels is loud, in the second of two bands."""
    mixing = generator.standard_normal((channels, channels))
    labels = np.repeat(np.arange(trials) % 2, bins)
    gains = np.ones((len(labels), 2, channels))
    gains[labels == 0, 1, 0] = 3
    gains[labels == 1, 1, 1] = 3
    samples = generator.standard_normal((30, len(labels), 2, channels)) * gains @ mixing
    products = np.einsum("sbki,sbkj->bkij", samples, samples) / 30
    rows, columns = np.triu_indices(channels)
    return {
        "rates": products[..., rows, columns].reshape(len(labels), -1).astype(np.float32),
        "labels": labels,
        "channels": np.array([f"c{number}" for number in range(channels)]),
        "trial_numbers": np.arange(len(labels)) // bins,
    }


@pytest.mark.parametrize("kind", ["csp", "riemann"])
def test_covariances_of_bins_are_learned_from_and_their_channels_tell_the_bands(kind):
    data = covariances(np.random.default_rng(2))
    fitted = fit(request(kind, classes=["left", "right"]), data, ignore)
    assert fitted.metrics["accuracy"] == 1.0
    assert fitted.about["settings"]["bands"] == 2
    decoder = decoder_files.load(decoder_files.read(fitted.weights))
    assert decoder.predict(data["rates"][-5:].mean(axis=0)).index == data["labels"][-1]
    unnamed = {name: array for name, array in data.items() if name != "channels"}
    with pytest.raises(ModelError, match="got 20 features and no channels; give `channels`, or the setting bands"):
        fit(request(kind, classes=["left", "right"]), unnamed, ignore)
    with pytest.raises(ModelError, match=r"channels in 3 bands, .*; got 20 features"):
        fit(request(kind, classes=["left", "right"], settings={"bands": 3}), unnamed, ignore)


def test_a_fit_is_the_same_bit_for_bit_and_its_result_says_from_what(reaches):
    asked = request("maxrate", seed=3)
    one, other = fit(asked, reaches, ignore), fit(asked, reaches, ignore)
    assert one.weights == other.weights
    told = json.loads(json.dumps(result(asked, digest(reaches), one)))
    assert told["training"]["digest"] == digest(reaches)
    assert told["training"]["source"] == {"arrays": "a.npz"}
    assert told["training"]["packages"].keys() >= {"neuroloop", "numpy", "numba"}
    assert told["classes"] == ["0", "1", "2"]
    changed = reaches | {"labels": np.roll(reaches["labels"], 1)}
    assert digest(changed) != digest(reaches)


def test_trials_may_come_as_they_are_and_labels_by_name():
    generator = np.random.default_rng(0)
    names = np.array(["rest", "move", ""] * 20)
    trials = generator.poisson(np.where(names[:, None] == "move", [9, 1], [1, 9]))
    fitted = fit(request("maxrate"), {"trials": trials, "labels": names}, ignore)
    assert fitted.about["classes"] == ["move", "rest"]
    assert fitted.metrics["accuracy"] > 0.9
    assert fitted.amounts == {"training_samples": 32, "held_out_samples": 8}


@pytest.mark.parametrize(
    ("more", "labels", "words"),
    [
        ({}, np.zeros(6, int), "two classes or more"),
        ({}, np.full(6, -1), "two classes or more"),
        ({"classes": ["a", "b"]}, np.array([0, 1, 2, 0, 1, 2]), "or 0 to 1; got 0 to 2"),
        ({"classes": ["a", "b"]}, np.array(["a", "b", "c", "a", "b", ""]), "c: none of the classes a, b"),
        ({"classes": ["a", "b"], "held_out": 0.5}, np.array([0, 0, 0, 1, 1, 1]), "to learn from, got those of: a"),
        ({"settings": {"decai": 1}}, np.array([0, 1, 0, 1, 0, 1]), "decai: unknown; maxrate has: decay"),
    ],
)
def test_labels_and_settings_that_cannot_be_learned_are_refused(more, labels, words):
    with pytest.raises(ModelError, match=words):
        fit(request("maxrate", **more), {"trials": np.ones((6, 2)), "labels": labels}, ignore)


def test_rereference_weights_are_fitted_and_the_residual_measured_on_later_samples():
    generator = np.random.default_rng(1)
    common = generator.standard_normal((5000, 1))
    samples = (common * 5 + generator.standard_normal((5000, 8))).astype(np.float32)
    channels = np.array([f"c{number}" for number in range(8)])
    asked = request("lrr", settings={"clusters": 4})
    fitted = fit(asked, {"samples": samples, "channels": channels}, ignore)
    lrr = LRR(list(channels), asked.settings and LRR(8).settings).load(fitted.weights)
    test = samples[4000:].astype(np.float64)
    expected = np.mean(lrr.transform(test).var(axis=0) / test.var(axis=0))
    assert fitted.metrics["residual_variance"] == pytest.approx(expected)
    assert fitted.metrics["residual_variance"] < 0.1
    assert fitted.metrics["explained_variance"] == pytest.approx(1 - expected)
    with pytest.raises(ModelError, match="samples so far"):
        fit(request("lrr"), {"samples": samples[:20]}, ignore)
    with pytest.raises(ModelError, match="half_life_s"):
        fit(request("lrr", settings={"half_life_s": 3}), {"samples": samples}, ignore)
    with pytest.raises(ModelError, match="ridges: unknown; lrr has"):
        fit(request("lrr", settings={"ridges": 3}), {"samples": samples}, ignore)


def test_an_encoder_is_fitted_and_measured_on_later_bins():
    generator = np.random.default_rng(2)
    level = generator.standard_normal(6000)
    drive = np.convolve(level, [0, 0.2, 0.8, -0.5])[: len(level)]
    counts = generator.poisson(np.exp(drive - 1.5))
    usable = np.ones(6000, bool)
    usable[2000:2100] = False
    told = []
    asked = request("lnp", settings={"lags": 6, "nonlinearity": "exp", "training": {"epochs": 5}})
    data = {"stimulus": level, "counts": counts, "usable": usable, "cells": np.array(["receptor"])}
    data["times"] = 7.0 + 0.0025 * np.arange(len(level))
    fitted = fit(asked, data, lambda progress, loss: told.append((progress, loss)))
    assert fitted.metrics["correlation"] > 0.4
    assert fitted.metrics["bits_per_spike"] > 0.3
    assert fitted.amounts == {"training_samples": 4800 - 5 - 105, "held_out_samples": 1200}
    bank = LNP.load(fitted.weights)
    assert (bank.cells, bank.settings.bin_ms) == (("receptor",), 2.5)
    assert 0 < told[0][0] <= 1
    assert told[-1][1] < 1
    for settings, words in (({"lag": 3}, "lag: unknown"), ({"training": 3}, "training: expected a map")):
        with pytest.raises(ModelError, match=words):
            fit(request("lnp", settings=settings), data, ignore)


def test_a_gsnn_decoder_is_fitted_and_measured_on_trials_that_it_has_not_seen(reaches, caplog):
    told = []
    graph = {"kind": "clusters", "clusters": [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11]]}
    settings = {"layers": 2, "graph": graph, "training": {"epochs": 20}}
    asked = request("gsnn", classes=["left", "right", "up"], window=5, settings=settings, seed=3)
    fitted = fit(asked, reaches, lambda progress, loss: told.append((progress, loss)))
    assert fitted.metrics["accuracy"] > 0.8
    assert fitted.metrics["log_loss"] < 0.7
    amounts = {"training_samples": 96, "held_out_samples": 24, "held_back_samples": 20, "pathways_left_out": 1}
    assert fitted.amounts == amounts | {"epochs": len(told) - 1}
    assert "nothing to compare with: 2" in caplog.text
    progress, losses = zip(*told, strict=True)
    assert progress == tuple(sorted(progress))
    assert told[-1] == (1.0, None)
    assert min(losses[:-1]) < losses[0]
    file = decoder_files.read(fitted.weights)
    assert file.about.kind == "gsnn"
    assert "training" not in file.about.settings
    decoder = GSNN(file.about.classes, file.about.features, GSNNSettings.model_validate(file.about.settings))
    decoder.load_state_dict({"kind": "gsnn", "classes": file.about.classes} | file.tensors)
    assert decoder.learned() == {"left": 32, "right": 32, "up": 32}
    assert fit(asked, reaches, ignore).weights == fitted.weights


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": 2}, "layer: unknown; gsnn has"),
        ({"training": {"epoch": 2}}, "epoch: unknown; gsnn has"),
        ({"training": 3}, "settings of 'gsnn': training: expected a map"),
        ({"graph": {"kind": "knn", "positions": [[0.0]] * 5}}, "a position for each of 12 features"),
        ({"training": {"validation": 0.99}}, "leaves none to learn from"),
    ],
)
def test_gsnn_settings_that_do_not_fit_are_refused(reaches, settings, words):
    with pytest.raises(ModelError, match=words):
        fit(request("gsnn", settings=settings), reaches, ignore)


@pytest.mark.parametrize(
    ("kind", "settings", "training"),
    [
        ("gsnn", {"layers": 2}, {"epochs": 3, "learning_rate": 0.02}),
        ("lfr", {"bins": 6, "width": 8, "kernel": 2}, {"pretrain_epochs": 2, "targets": 3, "head_epochs": 5}),
    ],
)
def test_the_lineage_of_a_trained_decoder_tells_what_made_it_and_makes_it_again(reaches, kind, settings, training):
    asked = request(kind, classes=["left", "right", "up"], settings=settings | {"training": training}, seed=3)
    fitted = fit(asked, reaches, ignore)
    told = json.loads(json.dumps(result(asked, digest(reaches), fitted), allow_nan=False))
    lineage = told["training"]
    assert lineage["digest"] == digest(reaches)
    assert (lineage["seed"], lineage["settings"]["seed"]) == (3, 3)
    assert training.items() <= lineage["settings"].items()
    assert settings.items() <= told["settings"].items()
    assert lineage["packages"] == {
        "neuroloop": __version__,
        **{name: version(name) for name in ("numpy", "numba", "torch", "safetensors")},
        **{name: lineage["packages"][name] for name in ("lightning", "scikit-learn") if name in lineage["packages"]},
    }
    again = request(
        kind,
        classes=told["classes"],
        settings=told["settings"] | {"training": lineage["settings"]},
        seed=99,
        held_out=lineage["held_out"],
    )
    assert fit(again, reaches, ignore).weights == fitted.weights


def test_a_seed_among_the_settings_of_the_fit_is_the_one_that_the_lineage_tells(reaches):
    asked = request("gsnn", settings={"training": {"epochs": 1, "seed": 7}}, seed=3)
    assert result(asked, digest(reaches), fit(asked, reaches, ignore))["training"]["seed"] == 7


@pytest.fixture
def started(tmp_path, reaches):
    """A function that starts the fit process on the reaches."""
    processes = []

    def start(**more):
        np.savez(tmp_path / "input.npz", **reaches)
        Job(id="one", request=request("maxrate", **more), state="running").save(tmp_path)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "neuroloop.training", str(tmp_path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def test_the_fit_process_has_a_lower_priority_and_says_json_lines_only(started, tmp_path):
    process = started()
    first = json.loads(process.stdout.readline())
    assert first["type"] == "progress"
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, 10 + os.getpriority(os.PRIO_PROCESS, 0))
    told = [first, *(json.loads(line) for line in process.stdout)]
    assert told[-1]["progress"] == 1.0
    assert process.wait(90) == 0
    assert json.loads((tmp_path / "result.json").read_bytes())["metrics"]["accuracy"] > 0.9
    assert decoder_files.read((tmp_path / "weights.safetensors").read_bytes()).about.kind == "maxrate"


def test_the_fit_process_says_what_can_be_put_right(started, tmp_path):
    process = started(settings={"decai": 1})
    told = [json.loads(line) for line in process.stdout]
    assert told[-1]["detail"].startswith("settings of 'maxrate': decai: unknown")
    assert (process.wait(90), process.stderr.read()) == (1, b"")
    assert not (tmp_path / "result.json").exists()


def test_the_fit_process_ends_when_whoever_started_it_is_gone(started, tmp_path):
    process = started()
    process.stdin.close()
    assert process.wait(90) == 3
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("kind", "settings", "more"),
    [
        ("ridge", {}, {}),
        ("kalman", {}, {}),
        (
            "gsnn_continuous",
            {"layers": 2, "training": {"epochs": 20, "patience": 20}},
            {"held_back_samples": 316, "epochs": 20, "pathways_left_out": 0},
        ),
    ],
)
def test_continuous_targets_are_fitted_and_measured_bin_by_bin(kind, settings, more):
    generator = np.random.default_rng(6)
    targets = np.cumsum(generator.standard_normal((2000, 2)), axis=0)
    targets -= targets.mean(axis=0)
    rates = targets @ generator.standard_normal((2, 30)) + 20 * generator.standard_normal((2000, 30))
    targets[100:120] = np.nan
    data = {"rates": rates, "targets": targets, "target_names": np.array(["x", "y"])}
    fitted = fit(request(kind, window=3, settings=settings), data, ignore)
    assert fitted.about["targets"] == ["x", "y"]
    assert fitted.amounts == {"training_samples": 1580, "held_out_samples": 400} | more
    assert fitted.metrics["correlation"] > 0.9
    assert decoder_files.load(decoder_files.read(fitted.weights)).targets == ("x", "y")
    with pytest.raises(ModelError, match="expected 10 known bins or more to learn from, got 0"):
        fit(request(kind), data | {"targets": np.full((2000, 2), np.nan)}, ignore)
