import numpy as np

from neuroloop.session import frame_history
from neuroloop.session.frame_history import FrameHistory


def filled(count, **changes):
    """Bins whose frames are their numbers; changes: bin number -> what is other in it."""
    history = FrameHistory(2, 3, 0.02)
    for number in range(count):
        bin = {"frame": np.full(2, number, np.float32), "counts": np.full(3, 10 * number, np.float32), "follows": True}
        history.add(0.02 * (number + 1), **bin | changes.get(f"bin{number}", {}))
    return history


def test_bins_come_back_by_their_numbers_with_the_times_of_their_centres():
    bins = filled(10).since(7, 100)
    assert (bins.first, bins.frames[:, 0].tolist(), bins.counts[:, 2].tolist()) == (7, [7, 8, 9], [70, 80, 90])
    np.testing.assert_allclose(bins.centers, [0.15, 0.17, 0.19])
    assert bins.usable.all()


def test_the_last_minute_is_kept():
    history = filled(3500)
    assert (history.size, history.first) == (3000, 500)
    assert history.since(0, 2).frames[:, 1].tolist() == [500, 501]


def test_less_is_kept_of_large_frames(monkeypatch):
    monkeypatch.setattr(frame_history, "KEPT_BYTES", 29 * 100)
    assert FrameHistory(2, 3, 0.02).size == 100


def test_a_bin_without_a_frame_or_without_counts_is_there_but_of_no_use():
    bins = filled(4, bin1={"frame": None}, bin2={"counts": None}).since(0, 9)
    assert bins.usable.tolist() == [True, False, False, True]
    assert (bins.frames[1].tolist(), bins.counts[2].tolist()) == ([0, 0], [0, 0, 0])


def test_bins_that_were_held_without_a_frame_that_came_late_are_of_no_use():
    history = filled(8)
    history.distrust(0.105)  # in bin 5
    assert history.since(0, 9).usable.tolist() == [True] * 5 + [False] * 3
    history.distrust(0.17)
    assert history.since(0, 9).usable.tolist() == [True] * 5 + [False] * 3


def test_what_leads_to_the_next_bin_begins_after_the_last_hole():
    assert filled(9, bin4={"follows": False}).unbroken(100).frames[:, 0].tolist() == [4, 5, 6, 7, 8]
    assert filled(9, bin4={"frame": None}).unbroken(100).frames[:, 0].tolist() == [5, 6, 7, 8]
    assert filled(9, bin4={"counts": None}).unbroken(2).frames[:, 0].tolist() == [7, 8]
    assert filled(9, bin8={"frame": None}).unbroken(2).frames.shape == (0, 2)


def gone_on(history, added, unbroken):
    other = FrameHistory(2, 3, 0.02)
    other.load_state_dict(history.leading(added, unbroken))
    return other


def test_another_history_goes_on_with_the_bins_that_lead_to_the_next(monkeypatch):
    monkeypatch.setattr(frame_history, "AT_ONCE_BYTES", 60)
    history = filled(3500, bin3400={"follows": False})
    state = history.state_dict()
    assert state == {"added": 3500, "unbroken": 100}
    history.add(100.0, None, None, True)  # meanwhile
    other = gone_on(history, **state)
    found, expected = other.unbroken(200), filled(3500, bin3400={"follows": False}).unbroken(200)
    assert found.first == expected.first == 3400
    for name in ("frames", "counts", "centers", "usable"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes()


def test_of_large_frames_the_newest_go_on_and_of_none_nothing(monkeypatch):
    monkeypatch.setattr(frame_history, "LEADING_BYTES", 20 * 7)
    assert gone_on(filled(50), 50, 50).unbroken(50).frames[:, 0].tolist() == [43, 44, 45, 46, 47, 48, 49]
    assert len(gone_on(filled(50), 50, 0).unbroken(50).frames) == 0


def test_bins_that_were_overwritten_meanwhile_do_not_go_on(monkeypatch):
    monkeypatch.setattr(frame_history, "KEPT_BYTES", 29 * 10)
    other = gone_on(filled(33), 30, 30)
    assert other.added == 30
    assert other.unbroken(99).frames[:, 0].tolist() == [24, 25, 26, 27, 28, 29]
