import subprocess
import sys

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.models.base import make_decoder
from neuroloop.models.state_checks import check_class_rates, check_trials


def state(**change):
    decoder = make_decoder("maxrate", ["a", "b", "c"], 4)
    for label in (0, 1, 0, 1, 2):  # while c was unknown its logits were -inf
        decoder.learn(1 + 9 * np.eye(4)[label], label)
    return decoder.state_dict() | change


def check(given):
    check_class_rates(given, 3, 4)
    check_trials(given, 3)


def test_what_a_decoder_knows_passes():
    assert np.isneginf(state()["trial_logits"]).any()
    check(state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sums": np.zeros((3, 4), complex)}, "expected sums as real numbers, got complex128"),
        ({"sums": np.full((3, 4), "x")}, "expected sums as real numbers"),
        ({"sums": np.full((3, 4), -np.inf)}, "sums holds values that are not finite"),
        ({"weights": np.array([1.0, -1.0, 0.0])}, "expected weights from 0 on, got -1.0"),
        ({"counts": np.zeros((3, 1), int)}, r"expected counts of shape \(3,\), got \(3, 1\)"),
        ({"missing": "many"}, "expected missing as a whole number from 0 on, got 'many'"),
        ({"signed": 1}, "expected signed to be true or false, got 1"),
        ({"trial_count": -3}, "expected trial_count as a whole number"),
        ({"trial_count": 10**30}, r"expected trial_logits of shape \(3, 256\)"),
        ({"trial_labels": np.array([0, 1, 7])}, "not finite logits|expected trial_labels"),
        ({"sharpness": float("nan")}, "not finite logits"),
        ({"sharpness": [1.0]}, "not finite logits"),
    ],
)
def test_what_no_decoder_can_know_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        check(state(**change))


@pytest.mark.parametrize("name", ["sums", "weights", "counts", "missing", "trial_logits", "trial_labels", "sharpness"])
def test_a_part_that_is_missing_is_refused(name):
    given = state()
    del given[name]
    with pytest.raises(ModelError):
        check(given)


def test_the_checks_need_no_compiler():
    program = (
        "import sys, neuroloop.models.state_checks, neuroloop.models.online_settings, neuroloop.models.lnp_files; "
        "print(sorted({'numba', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
