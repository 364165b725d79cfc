"""Searches over settings, on this machine."""

import json
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from neuroloop.errors import ModelError
from neuroloop.training import search, settings
from neuroloop.training.job import candidate_name
from neuroloop.training.messages import parse
from neuroloop.training.process import fit
from neuroloop.training.request import FitRequest

PATIENCE_S = 150
VALUES = {"rule": ["sum", "mean"], "normalize": ["none", "deviation"]}


def request(values=VALUES, **more):
    document = {"name": "m", "kind": "maxrate", "source": {"arrays": "a.npz"}, "search": values}
    return FitRequest.model_validate(document | more)


def data():
    """Trials of three classes, one of which is far more frequent: summed up, it wins."""
    labels = np.random.default_rng(4).choice(3, 150, p=[0.6, 0.2, 0.2])
    tuning = np.random.default_rng(6).gamma(2.0, 1.0, (3, 12)) + np.arange(12)
    return {"trials": np.random.default_rng(5).poisson(tuning[labels]).astype(np.float32), "labels": labels}


def ignore(_progress, _loss):
    return None


def run(folder, asked):
    """The messages of the fit process, which ends by itself."""
    (folder / "job.json").write_text(json.dumps({"id": "job", "request": asked.model_dump(mode="json")}))
    np.savez(folder / "input.npz", **data())
    command = [sys.executable, "-m", "neuroloop.training", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        said = process.stdout.read()
        process.wait(PATIENCE_S)
    return [message for line in said.splitlines() if (message := parse(line))]


def test_candidates_are_all_combinations_laid_over_the_settings():
    asked = request(
        {"width": [16, 32], "training.learning_rate": [1e-3, 1e-2], "training.predictors.depth": [2]},
        kind="lfr",
        settings={"bins": 9, "training": {"batch": 64}},
    )
    assert [one["training.learning_rate"] for one in asked.searched] == [1e-3, 1e-2, 1e-3, 1e-2]
    assert [one.settings["width"] for one in asked.candidates] == [16, 16, 32, 32]
    training = {"batch": 64, "learning_rate": 1e-3, "predictors": {"depth": 2}}
    assert asked.candidates[0].settings == {"bins": 9, "width": 16, "training": training}
    assert all(one.search is None for one in asked.candidates)
    assert asked.settings == {"bins": 9, "training": {"batch": 64}}
    assert request(None).searched == [{}]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"held_out": 0}, "nothing is held out to choose by"),
        ({"kind": "lrr", "source": {"recordings": [{"name": "a"}]}}, "from several recordings takes one value"),
        ({"values": {"a": list(range(15)), "b": list(range(15))}}, "225 combinations; at most 200"),
        ({"values": {"a": []}}, "at least 1 item"),
        ({"values": {}}, "at least 1 item"),
    ],
)
def test_a_search_that_cannot_be_is_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        request(**changes)


def test_values_are_checked_before_there_is_a_job():
    settings.check(request())
    with pytest.raises(ModelError, match="rule"):
        settings.check(request({"rule": ["sum", "loudest"]}))
    with pytest.raises(ModelError, match=r"search: rule.of: rule of the settings is no map"):
        settings.check(request({"rule.of": [1]}, settings={"rule": "sum"}))


def test_the_best_candidate_becomes_the_result_and_the_scores_of_all_its_lineage(tmp_path):
    asked = request()
    told = run(tmp_path, asked)
    alone = [fit(one, data(), ignore) for one in asked.candidates]
    scores = [one.metrics["accuracy"] for one in alone]
    assert len(set(scores)) > 1
    best = scores.index(max(scores))
    assert (tmp_path / "weights.safetensors").read_bytes() == alone[best].weights
    result = json.loads((tmp_path / "result.json").read_bytes())
    found = result["training"]["search"]
    assert (found["metric"], found["chosen"]) == ("accuracy", best)
    assert [one["settings"] for one in found["candidates"]] == asked.searched
    assert [one["metrics"] for one in found["candidates"]] == [one.metrics for one in alone]
    assert result["metrics"] == alone[best].metrics
    progress = [message.progress for message in told]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


def test_candidates_that_were_fitted_before_an_interruption_are_not_fitted_again(tmp_path):
    asked = request()
    kept = {"metrics": {"accuracy": 2.0}, "training": {"seed": 7}}
    search.keep(tmp_path / candidate_name(2), b"weights", kept)
    told = run(tmp_path, asked)
    assert (told[0].type, told[0].progress) == ("resumed", 0.25)
    assert (tmp_path / "weights.safetensors").read_bytes() == b"weights"
    result = json.loads((tmp_path / "result.json").read_bytes())
    assert (result["training"]["seed"], result["training"]["search"]["chosen"]) == (7, 2)


def test_a_candidate_whose_fit_fails_is_noted_and_loses(tmp_path):
    asked = request({"rule": ["sum", "mean"]}, metric="balanced_accuracy")
    for number in range(2):
        search.keep_failure(tmp_path / candidate_name(number), "the loss became nan")
    with pytest.raises(
        ModelError, match="none of 2 candidates has a balanced_accuracy; the first: the loss became nan"
    ):
        search.settle(asked, tmp_path)
    search.keep(tmp_path / candidate_name(1), b"w", {"metrics": {"balanced_accuracy": 0.1}, "training": {}})
    search.settle(asked, tmp_path)
    found = json.loads((tmp_path / "result.json").read_bytes())["training"]["search"]
    assert found["chosen"] == 1
    assert found["candidates"][0] == {"settings": {"rule": "sum"}, "failed": "the loss became nan"}
