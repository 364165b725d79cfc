from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from neuroloop_client import Clock, NeuroloopClientError
from neuroloop_client._resumption import Resumption
from neuroloop_client.clock import estimate

Map = dict[str, Any]


def message(seq: int, number: int) -> Map:
    return {"type": "prediction", "seq": seq, "decoder": f"decoder-{number}", "time": float(seq)}


@given(st.lists(st.integers(1, 3), min_size=1, max_size=20), st.lists(st.integers(0, 12), max_size=8), st.data())
def test_over_any_number_of_broken_connections_every_message_comes_once(
    bins: list[int], breaks: list[int], data: st.DataObject
) -> None:
    sent = [message(seq, number) for seq, count in enumerate(bins) for number in range(count)]
    for _ in range(data.draw(st.integers(0, 5))):  # answers of shadows may come late
        late = sent.pop(data.draw(st.integers(0, len(sent) - 1)))
        sent.insert(data.draw(st.integers(0, len(sent))), late)
    counted = [max(m["seq"] for m in sent[: position + 1]) for position in range(len(sent))]
    resumption, taken = Resumption(), []
    for length in [*breaks, len(sent)]:
        seq = resumption.query().get("resume_from", 0)
        resumption.opened("run")
        of_connection = [m for m, bin in zip(sent, counted, strict=True) if bin >= seq][:length]
        taken += [found for m in of_connection if (found := resumption.take(m)) is not None]
    assert taken == sent


def at_bin(seq: int) -> Resumption:
    resumption = Resumption()
    resumption.opened("first")
    resumption.take(message(seq, 0))
    resumption.opened("first")
    return resumption


def test_bins_that_are_gone_are_counted_from_the_one_that_is_known() -> None:
    told: Any = at_bin(10).take({"type": "lagged", "missed": 5, "oldest_seq": 15})
    assert told["missed"] == 4
    assert at_bin(10).take({"type": "lagged", "missed": 1, "oldest_seq": 11}) is None


def test_what_a_slow_client_missed_is_left_as_the_server_says() -> None:
    resumption = at_bin(10)
    resumption.take(message(11, 0))
    lagged: Map = {"type": "lagged", "missed": 300, "oldest_seq": 150}
    assert resumption.take(lagged) == lagged


def test_another_run_begins_anew_and_is_told_once() -> None:
    resumption = at_bin(10)
    assert resumption.query() == {"resume_from": 10, "run": "first"}
    assert resumption.may_try_again(NeuroloopClientError("another run", {"status": 409}))
    assert resumption.query() == {}
    resumption.opened("second")
    assert resumption.take_new_run() == {"type": "new_run", "run": "second", "previous_run": "first"}
    assert resumption.take_new_run() is None
    assert resumption.take(message(0, 0)) is not None
    assert resumption.query() == {"resume_from": 0, "run": "second"}


def test_a_session_that_is_gone_is_not_waited_for() -> None:
    retried = {status: at_bin(1).may_try_again(NeuroloopClientError("", {"status": status})) for status in (401, 404)}
    assert retried == {401: False, 404: False}
    assert at_bin(1).may_try_again(NeuroloopClientError("no answer"))


def test_the_quickest_round_trip_tells_the_clock() -> None:
    clock = estimate([(10.0, 110.9, 11.0), (20.0, 120.5, 20.25)])
    assert clock == Clock(120.5 - 20.125, 0.125)
    assert clock.monotonic(clock.lsl(3.0)) == 3.0
