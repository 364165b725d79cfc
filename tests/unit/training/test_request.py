import pytest
from pydantic import ValidationError

from neuroloop.training.request import FitRequest

ARRAYS = {"arrays": "trials.npz"}


def request(**more):
    return FitRequest.model_validate({"name": "reach", "kind": "maxrate", "source": ARRAYS} | more)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "../etc"}, "name"),
        ({"kind": "forest"}, "maxrate"),
        ({"source": {}}, "exactly one of live, recording, recordings, arrays; got none"),
        ({"source": ARRAYS | {"live": {"session": "demo", "seconds": 3}}}, "got live, arrays"),
        ({"source": {"live": {"session": "demo", "seconds": 90}}}, "a session keeps its last 60 s"),
        ({"source": {"live": {"session": "demo", "seconds": 3}}, "kind": "lrr"}, "rereference/fit fits weights"),
        ({"source": {"recording": {"name": "monday.npz"}}, "kind": "lnp"}, "or name a live session"),
        ({"metric": "correlation"}, "expected one of accuracy, balanced_accuracy for maxrate"),
        ({"held_out": 0, "min_metric": 0.5}, "nothing is held out"),
        ({"held_out": 1}, "held_out"),
        ({"classes": ["a", "a"]}, "name of its own"),
        ({"seconds": 3}, "seconds"),
    ],
)
def test_a_request_that_cannot_work_is_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        request(**given)


def test_the_gate_is_about_the_first_metric_of_the_kind_unless_another_is_named():
    assert request().gate == "accuracy"
    assert request(metric="balanced_accuracy").gate == "balanced_accuracy"
    assert request(kind="lnp").gate == "correlation"
    assert request(kind="lrr").gate == "explained_variance"


def test_a_live_source_reads_back_as_it_was_written():
    live = {"session": "demo", "seconds": 300.0, "from": "next"}
    made = request(source={"live": live})
    assert made.source.model_dump(mode="json", by_alias=True, exclude_none=True) == {"live": live}
    assert FitRequest.model_validate_json(made.model_dump_json(by_alias=True)) == made
