"""What the fits make, as versions."""

import numpy as np
import pytest

from neuroloop.registry.fitted import register_in
from neuroloop.registry.registry import Registry
from neuroloop.training.process import digest, fit, result
from neuroloop.training.request import FitRequest

RNG = np.random.default_rng(3)
BINS = {"trials": RNG.poisson(5.0, (30, 4)).astype(np.float32), "labels": np.arange(30) % 2}
SAMPLES = {"samples": RNG.standard_normal((500, 4)), "channels": np.array(list("abcd"))}


@pytest.mark.parametrize(
    ("kind", "arrays", "more"),
    [("maxrate", BINS, {"classes": ["left", "right"]}), ("poisson", BINS, {}), ("lrr", SAMPLES, {})],
)
def test_a_fit_ends_in_a_version_that_says_where_it_comes_from(tmp_path, kind, arrays, more):
    registry = Registry(tmp_path)
    asked = FitRequest.model_validate({"name": "reach", "kind": kind, "source": {"arrays": "a.npz"}} | more)
    fitted = fit(asked, arrays, lambda _progress, _loss: None)
    made = result(asked, digest(arrays), fitted)
    register = register_in(registry)
    assert register("reach", fitted.weights, made | {"parent": None, "by": "ann"}) == 1
    assert register("reach", fitted.weights, made | {"parent": 1, "by": None}) == 2
    first, second = registry.versions("reach")
    assert (first.kind, first.created_by, second.parent) == (kind, "ann", 1)
    assert first.metrics == made["metrics"]
    assert first.settings == made["settings"]
    assert first.training_data == made["training"]["digest"]
    assert first.metadata["training"]["seed"] == asked.seed
    assert registry.weights("reach", 1) == fitted.weights
    registry.close()
