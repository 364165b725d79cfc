import itertools
from typing import get_args

import pytest

from neuroloop.errors import Conflict
from neuroloop.training.job import NEXT, Job, State, load
from neuroloop.training.messages import Failed, Moved, Progress, Resumed, parse, write
from neuroloop.training.request import FitRequest


def job(state="queued", **more):
    request = FitRequest.model_validate({"name": "reach", "kind": "maxrate", "source": {"arrays": "a.npz"}} | more)
    return Job(id="one", request=request, state=state)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(get_args(State), repeat=2)))
def test_a_job_goes_from_state_to_state_on_the_known_ways_only(before, after):
    one = job(before)
    if after in NEXT.get(before, ()):
        one.turn(after)
        assert one.state == after
        assert (one.ended is not None) == one.ended_already == (after != "running")
    else:
        with pytest.raises(Conflict, match=f"is {before} already"):
            one.turn(after)
        assert one.state == before


@pytest.mark.parametrize("state", get_args(State))
@pytest.mark.parametrize("died", [True, False])
@pytest.mark.parametrize("has_data", [True, False])
def test_a_job_waits_again_if_it_was_interrupted_or_its_process_died_and_its_data_are_there(state, died, has_data):
    one = job(state)
    one.died, one.has_data, one.detail = died, has_data, "exit code -9"
    if has_data and (state == "interrupted" or (state == "failed" and died)):
        assert one.is_resumable
        one.wait_again()
        assert (one.state, one.died, one.detail, one.ended, one.resumed) == ("queued", False, None, None, [0.0])
        one.go_on(0.4)
        one.turn("running")
        one.turn("interrupted")
        one.wait_again()
        assert one.resumed == [0.4, 0.0]
    else:
        assert not one.is_resumable
        with pytest.raises(Conflict, match=r"only one that was interrupted|would again: exit code -9|no data any more"):
            one.wait_again()
        assert (one.state, one.resumed) == (state, [])


def test_what_is_written_is_read_back_and_half_a_file_is_no_job(tmp_path):
    one = job()
    one.turn("running")
    one.advance(0.5, 1.25)
    one.save(tmp_path)
    assert load(tmp_path) == one
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]
    content = (tmp_path / "job.json").read_bytes()
    (tmp_path / "job.json").write_bytes(content[: len(content) // 2])
    assert load(tmp_path) is None
    assert load(tmp_path / "nowhere") is None


def test_progress_never_goes_back_and_a_long_curve_is_thinned():
    one = job()
    for step in range(5000):
        one.advance(step / 5000, float(step))
    one.advance(0.1, None)
    assert one.progress == 4999 / 5000
    assert len(one.curve) <= 1000
    assert one.curve[0] == (0.0, 0.0)
    assert one.curve[-1] == (4999 / 5000, 4999.0)


def test_the_gate_names_the_metric_what_it_was_and_what_was_wanted():
    assert job().below_gate() is None
    gated = job(min_metric=0.8)
    assert gated.below_gate() == "accuracy unknown < 0.8"
    gated.metrics = {"accuracy": 0.61}
    assert gated.below_gate() == "accuracy 0.61 < 0.8"
    gated.metrics = {"accuracy": 0.8}
    assert gated.below_gate() is None


def test_a_job_that_moves_to_another_node_says_from_where_it_went_on():
    one = job("running")
    one.move()
    one.go_on(0.4)
    one.move()
    assert one.resumed == [0.4, 0.0]


def test_messages_are_read_back_and_anything_else_in_the_output_is_passed_over():
    failed = Failed(detail="two classes are needed")
    for message in (Progress(progress=0.25, loss=1.5), Progress(progress=1.0), Resumed(progress=0.5), Moved(), failed):
        line = write(message)
        assert line.count(b"\n") == 1
        assert parse(line) == message
    for line in (b"", b"\n", b"loading ...\n", b"[1]\n", b'{"type": "progress", "progress": 2}\n', b"\xff\xfe\n"):
        assert parse(line) is None
