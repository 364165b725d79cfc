"""Two timelines of labels beside each other."""

import io
import sys

import numpy as np
import pytest

from neuroloop.config import parse_session
from neuroloop.errors import ConfigError, ModelError
from neuroloop.recording.picture import COLOURS, picture, png
from neuroloop.recording.what_if import Segment, changed, compare, parse_changes

SETTINGS = parse_session({"name": "s", "stream": {"name": "x"}, "classes": ["a", "b"]}).model_dump(mode="json")
BINS = [1.0 + 0.02 * number for number in range(1, 11)]
WAS = list(zip(BINS, [None, None, *"aaaabbbb"], strict=True))
NOW = list(zip(BINS, [None, "a", *"aabbbbbb"], strict=True))
LABELS = [("a", 1.04, 1.08), ("b", 1.12, 1.2)]


def test_agreement_and_accuracy_count_the_bins_that_have_labels() -> None:
    found = compare({}, WAS, NOW, LABELS, [0.2, None, 0.4], [1.0, 2.0, 3.0])
    assert (found.compared, found.agreed) == (8, 6)
    assert (found.recorded.bins, found.recorded.labelled, found.replayed.labelled) == (10, 8, 9)
    assert (found.recorded.judged, found.recorded.correct) == (6, 6)
    assert (found.replayed.judged, found.replayed.correct) == (6, 6)
    assert found.recorded.latency_ms["p50"] == pytest.approx(0.3)
    assert found.replayed.latency_ms["p50"] == 2.0


def test_timelines_are_cut_where_either_changes() -> None:
    segments = compare({}, WAS, NOW, LABELS, [], []).segments
    assert segments[:3] == [
        Segment(0.0, 0.02, None, None, None),
        Segment(0.02, 0.04, None, "a", None),
        Segment(0.04, 0.08, "a", "a", "a"),
    ]
    assert segments[-1].end == pytest.approx(0.2)


def test_bins_of_another_length_are_compared_with_the_nearest() -> None:
    halves = [(time - late, label) for time, label in WAS for late in (0.01, 0.0)]
    found = compare({}, WAS, halves, [], [], [])
    assert found.compared >= 14
    assert found.agreement is not None
    assert found.agreement > 0.9


def test_timelines_without_a_label_in_common_have_no_agreement() -> None:
    silent = [(time, None) for time, _ in WAS]
    found = compare({}, WAS, silent, LABELS, [], [])
    assert (found.agreement, found.replayed.accuracy) == (None, None)


def test_settings_are_changed_by_their_dotted_keys() -> None:
    session = changed(SETTINGS, parse_changes(["rereference.ridge=0.25", "window=7", "classes=[a, b, c]"]))
    assert (session.rereference.ridge, session.window, session.classes) == (0.25, 7, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rereference.nonsense=1", "rereference.nonsense: unknown key"),
        ("window=0", "window"),
        ("window", "expected key=value"),
        ("window.deep=3", "window"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        changed(SETTINGS, parse_changes([text]))


def test_the_picture_shows_every_label_and_takes_no_text_for_markup() -> None:
    named = [(time, "<b>" if label == "b" else label) for time, label in NOW]
    drawn = picture(compare({}, WAS, named, LABELS, [], []), "a & b")
    assert drawn.count("<rect") == sum(
        one is not None
        for segment in compare({}, WAS, named, LABELS, [], []).segments
        for one in (segment.meant, segment.recorded, segment.replayed)
    )
    assert "&lt;b&gt;" in drawn
    assert "<b>" not in drawn
    assert "a &amp; b" in drawn


def test_the_png_has_bars_as_long_as_their_labels_hold() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    image = imread(io.BytesIO(png(compare({}, WAS, NOW, LABELS, [], []), "_a$b$")))
    assert image.shape[:2] == (300, 1200)
    colours = [np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255 for colour in COLOURS[:2]]
    of_a, of_b = (np.abs(image[:, :, :3] - colour).max(2) < 0.01 for colour in colours)
    areas = [int(shown[:, :1110].sum()) for shown in (of_a, of_b)]  # the legend is right of them
    bins_of_a, bins_of_b = 2 + 4 + 3, 4 + 4 + 6  # meant, recorded, replayed
    assert areas[0] / areas[1] == pytest.approx(bins_of_a / bins_of_b, rel=0.03)


def test_labels_that_look_like_formulas_are_drawn_as_they_are() -> None:
    pytest.importorskip("matplotlib")
    odd = [(time, {"a": "_a", "b": "$\\nosuch{$"}.get(label or "")) for time, label in NOW]
    assert png(compare({}, WAS, odd, LABELS, [], []), "$\\nosuch{$").startswith(b"\x89PNG")


def test_a_png_of_timelines_without_labels_is_empty_bars() -> None:
    pytest.importorskip("matplotlib")
    silent = [(time, None) for time, _ in WAS]
    assert png(compare({}, silent, silent, [], [], []), "nothing").startswith(b"\x89PNG")


def test_without_matplotlib_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModelError, match="pip install matplotlib; or draw HTML"):
        png(compare({}, WAS, NOW, LABELS, [], []), "a")
