"""The text that Prometheus reads, read by Prometheus's own client."""

from typing import Any

import pytest

from neuroloop.api.exposition import Exposition

parser = pytest.importorskip("prometheus_client.parser")


def read(page: Exposition) -> dict[str, Any]:
    return {family.name: family for family in parser.text_string_to_metric_families(page.text())}


def test_labels_and_help_of_any_text_come_back_as_they_were() -> None:
    page = Exposition()
    odd = 'a"b\\n\nc}{=,'
    page.add("m", "gauge", "first\nsecond \\ line", 1.5, session=odd)
    family = read(page)["m"]
    assert (family.type, family.documentation) == ("gauge", "first\nsecond \\ line")
    assert [(s.labels, s.value) for s in family.samples] == [({"session": odd}, 1.5)]


def test_samples_of_a_family_stand_together_and_what_is_not_known_is_left_out() -> None:
    page = Exposition()
    for session, value in (("a", 1), ("b", None), ("c", 2)):
        page.add("bins_total", "counter", "bins", value, session=session)
        page.add("other", "gauge", "other", None, session=session)
    found = read(page)
    assert list(found) == ["bins"]
    assert [(s.name, s.labels["session"], s.value) for s in found["bins"].samples] == [
        ("bins_total", "a", 1),
        ("bins_total", "c", 2),
    ]
    assert page.text().count("# TYPE") == 1


def test_a_histogram_accumulates_up_to_infinity() -> None:
    page = Exposition()
    page.add_histogram("t_seconds", "t", [0.1, 1.0], [2, 0, 3], 12.5, stage="age")
    family = read(page)["t_seconds"]
    assert family.type == "histogram"
    assert [(s.name, s.labels.get("le"), s.value) for s in family.samples] == [
        ("t_seconds_bucket", "0.1", 2),
        ("t_seconds_bucket", "1.0", 2),
        ("t_seconds_bucket", "+Inf", 5),
        ("t_seconds_sum", None, 12.5),
        ("t_seconds_count", None, 5),
    ]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 0.1, 1e300, 2**53])
def test_numbers_come_back_to_the_bit(value: float) -> None:
    page = Exposition()
    page.add("m", "gauge", "m", value)
    assert read(page)["m"].samples[0].value == value
