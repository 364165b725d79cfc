import pytest
from pydantic import ValidationError

from neuroloop.registry.documents import Document


@pytest.mark.parametrize(
    "said",
    [
        {"metrics": {"loss": float("nan")}},
        {"metadata": {"a": {"b": [float("inf")]}}},
        {"metadata": {"a": object()}},
        {"metadata": {"a": "\ud800"}},
        {"description": "\ud800"},
        {"description": "x" * 5000},
        {"parent": 0},
        {"training_data": "md5:00"},
        {"name": "../x"},
        {"number": 3},
    ],
)
def test_what_json_or_the_registry_cannot_hold_is_refused(said):
    with pytest.raises(ValidationError):
        Document(**said)
