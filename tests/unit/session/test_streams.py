"""What streams say of themselves, and how they are asked for."""

from dataclasses import replace

import pylsl
import pytest

from neuroloop.config import StreamSelector
from neuroloop.errors import StreamError
from neuroloop.session.streams import describe, find, predicate


def info(labels=(), count=3, **fields):
    made = pylsl.StreamInfo("name", "EEG", count, 250, pylsl.cf_float32, "id")
    channels = made.desc().append_child("channels")
    for number, label in enumerate(labels):
        channel = channels.append_child("channel")
        channel.append_child_value("label", label)
        channel.append_child_value("unit", "microvolts")
        location = channel.append_child("location")
        for axis, value in zip("XYZ", (number, 0, -1.5), strict=True):
            location.append_child_value(axis, str(value))
    return made


def test_labels_units_and_positions_come_from_the_description():
    described = describe(info(["C3", "Cz", "C4"]))
    assert described.channels == ("C3", "Cz", "C4")
    assert described.units == ("microvolts",) * 3
    assert described.positions == ((0.0, 0.0, -1.5), (1.0, 0.0, -1.5), (2.0, 0.0, -1.5))
    assert (described.channel_count, described.nominal_srate, described.format) == (3, 250.0, "float32")


def test_channels_without_labels_are_called_by_their_number():
    assert describe(info()).channels == ("1", "2", "3")
    assert describe(info(["C3"])).channels == ("C3", "2", "3")
    assert describe(info()).positions == (None, None, None)


def test_labels_that_are_not_unique_are_made_so():
    channels = describe(info(["EEG", "EEG", "EEG"])).channels
    assert channels == ("EEG#1", "EEG#2", "EEG#3")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"name": "x"}, "name='x'"),
        ({"name": "it's", "type": "EEG"}, "name=\"it's\" and type='EEG'"),
        ({"predicate": "channel_count>3", "source_id": "a"}, "source_id='a' and (channel_count>3)"),
    ],
)
def test_a_selector_becomes_a_predicate(selector, expected):
    assert predicate(StreamSelector(**selector)) == expected


def test_a_name_with_both_kinds_of_quotes_is_still_one_string():
    assert predicate(StreamSelector(name="a'b\"c")) == "name=concat('a', \"'\", 'b\"c')"


def test_a_stream_is_the_same_source_only_with_the_same_channels_rate_and_format():
    described = describe(info(["C3", "Cz", "C4"]))
    assert described.is_same_source(replace(described, hostname="elsewhere"))
    assert described.is_same_source(replace(described, name="renamed"))
    for change in (
        {"source_id": "other"},
        {"channels": ("a", "b", "c")},
        {"nominal_srate": 500.0},
        {"format": "int16"},
    ):
        assert not described.is_same_source(replace(described, **change))


def test_a_predicate_that_is_no_xpath_is_an_error_and_not_an_empty_answer():
    with pytest.raises(StreamError, match=r"stream\.predicate: expected an XPath"):
        find(StreamSelector(predicate="name='x"), 1, 0.1)
    assert find(StreamSelector(predicate="name='nothing is called so'"), 1, 0.1) == []


def test_every_other_element_of_a_channels_description_is_kept_those_within_by_their_path():
    made = info(["C3", "Cz"])
    first = made.desc().child("channels").child("channel")
    first.append_child_value("bank", " A ")
    first.append_child("hardware").append_child_value("headstage", "2")
    first.append_child_value("empty", "")
    described = describe(made)
    assert described.metadata == ({"bank": "A", "hardware/headstage": "2"}, {}, {})


def test_a_description_without_end_is_read_to_a_depth():
    made = info(["C3"])
    element = made.desc().child("channels").child("channel")
    for _ in range(2000):
        element = element.append_child("x")
    element.append_child_value("x", "deep")
    assert "x" not in describe(made).metadata[0]
