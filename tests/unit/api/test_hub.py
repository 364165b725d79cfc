import asyncio
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from neuroloop.api import history as history_module
from neuroloop.api import message as message_module
from neuroloop.api.history import FORMS_KEPT, HISTORY_S, History
from neuroloop.api.hub import Hub
from neuroloop.api.message import Message
from neuroloop.api.subscriber import ALL, BEHIND_LIMIT, RESUME_LENGTH, HistoryReader, Policy, Subscriber
from neuroloop.errors import Conflict, Unavailable

Map = dict[str, Any]


def prediction(seq: int, decoder: str = "main", role: str = "active") -> Message:
    content = {"type": "prediction", "seq": seq, "decoder": decoder, "model": {"name": "reach"}, "role": role}
    return Message.of("predictions", content)


def event(seq: int) -> Message:
    return Message.of("events", {"type": "event", "seq": seq})


def filled(*messages: Message) -> Hub:
    hub = Hub()
    for message in messages:
        hub.publish(message)
    return hub


def received(subscriber: Subscriber) -> list[Map]:
    """Everything until the hub is closed."""

    async def run() -> list[Map]:
        maps = []
        while (message := await subscriber.get()) is not None:
            maps.append(message.map)
        return maps

    return asyncio.run(run())


def test_a_packed_message_passes_unchanged_and_its_json_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    to_json = message_module.to_json
    monkeypatch.setattr(
        message_module, "to_json", lambda value, **options: made.append(value) or to_json(value, **options)
    )
    packed = msgpack.packb({"seq": 1, "scores": [1.0, math.nan, math.inf]})
    message = Message("rates", packed)
    assert message.packed is packed
    assert [message.json for _ in range(3)] == [b'{"seq":1,"scores":[1.0,null,null]}'] * 3
    assert message.frame(binary=False) is message.frame(binary=False)
    assert len(made) == 1


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("binary", [True, False])
def test_a_frame_is_what_a_websocket_server_would_send(size: int, binary: bool) -> None:
    message = Message.of("rates", {"text": "x" * size})
    payload = message.packed if binary else message.json
    expected = Frame(Opcode.BINARY if binary else Opcode.TEXT, payload).serialize(mask=False)
    assert message.frame(binary) == expected


def test_the_bin_of_a_message_is_found_without_unpacking_the_rest() -> None:
    assert prediction(7).seq == 7
    assert Message.of("status", {"stream": {"seq": 1, "channels": ["a"] * 99}, "seq": 8}).seq == 8
    assert [Message.of("events", content).seq for content in ({"seq": None}, {})] == [0, 0]


def test_a_subscriber_gets_the_topics_it_asked_for_in_order() -> None:
    hub = Hub()
    with hub.subscribe(["rates", "events"]) as subscriber:
        for topic in ("rates", "predictions", "events", "rates"):
            hub.publish(prediction(1) if topic == "predictions" else Message.of(topic, {"type": topic}))
        hub.close()
        assert [message["type"] for message in received(subscriber)] == ["rates", "events", "rates"]


def test_a_subscriber_that_comes_after_the_end_is_told_so() -> None:
    hub = filled(prediction(1))
    hub.close()
    with hub.subscribe(["predictions"]) as subscriber:
        assert received(subscriber) == []


def test_a_stalled_subscriber_is_told_what_it_missed_and_goes_on_with_the_newest() -> None:
    hub, count = Hub(), BEHIND_LIMIT + 100
    with hub.subscribe(["predictions"]) as stalled:
        for seq in range(count):
            hub.publish(prediction(seq))
        hub.close()
        messages = received(stalled)
    assert messages[0] == {"type": "lagged", "missed": count - RESUME_LENGTH, "oldest_seq": count - RESUME_LENGTH}
    assert [m["seq"] for m in messages[1:]] == list(range(count - RESUME_LENGTH, count))


def test_a_stalled_subscriber_of_the_latest_gets_one_message_of_each_topic_and_decoder() -> None:
    hub = Hub()
    with hub.subscribe(["predictions", "events"], Policy("latest")) as stalled:
        for seq in range(1000):
            hub.publish(prediction(seq))
            hub.publish(prediction(seq, "other", "shadow"))
            if seq % 10 == 0:
                hub.publish(event(seq))
        hub.close()
        messages = received(stalled)
    assert [(m["type"], m["seq"]) for m in messages] == [("event", 990), ("prediction", 999), ("prediction", 999)]
    assert [m["decoder"] for m in messages[1:]] == ["main", "other"]


def test_every_nth_bin_is_counted_from_bin_0_and_events_all_come() -> None:
    hub = Hub()
    with hub.subscribe(["predictions", "events"], Policy("every", 5)) as subscriber:
        for seq in range(3, 18):
            hub.publish(prediction(seq))
        hub.publish(event(18))
        hub.close()
        assert [m["seq"] for m in received(subscriber)] == [5, 10, 15, 18]


def test_a_message_is_written_at_once_to_a_subscriber_that_waits_and_to_no_other() -> None:
    async def run() -> tuple[list[int], list[int]]:
        hub = Hub()
        written: list[int] = []
        has_room = True

        def write(message: Message) -> bool:
            if has_room:
                written.append(message.seq)
            return has_room

        with hub.subscribe(["predictions"], write=write) as subscriber:
            hub.publish(prediction(0))  # nobody waits yet
            taken = [await subscriber.get()]
            waiting = asyncio.create_task(subscriber.get())
            await asyncio.sleep(0)
            hub.publish(prediction(1))
            has_room = False
            hub.publish(prediction(2))
            has_room = True
            hub.publish(prediction(3))  # not before the one that did not fit
            taken += [await waiting, await subscriber.get()]
        return written, [message.seq for message in taken if message is not None]

    assert asyncio.run(run()) == ([1], [0, 2, 3])


STEPS = st.lists(st.sampled_from(["put", "get", "many", "event"]), max_size=60)


@given(STEPS, st.integers(0, 40), st.booleans())
def test_every_message_is_delivered_in_order_or_counted_as_missed(steps: list[str], kept: int, resumes: bool) -> None:
    history = History()
    for seq in range(kept):
        history.add(prediction(seq))
    subscriber = HistoryReader(history, ["predictions"], ALL, None)
    seen = kept
    if resumes:
        seen = kept // 2
        subscriber.resume(seen)
    first, missed, delivered = seen, 0, 0

    def take(message: Message) -> None:
        nonlocal seen, missed, delivered
        if message.topic == "lagged":
            missed += message.map["missed"]
            seen = message.map["oldest_seq"]
        else:
            assert message.seq == seen
            seen, delivered = seen + 1, delivered + 1

    async def run() -> None:
        for step in steps:
            if step == "event":
                history.add(event(history.next_seq))
            elif step == "get":
                if delivered + missed < history.next_seq - first:
                    message = await subscriber.get()
                    assert message is not None
                    take(message)
            else:
                for _ in range(1 if step == "put" else BEHIND_LIMIT // 2):
                    message = prediction(history.next_seq)
                    history.add(message)
                    subscriber.offer(message)
        subscriber.close()
        while (message := await subscriber.get()) is not None:
            take(message)

    asyncio.run(run())
    assert delivered + missed == history.next_seq - first


def test_one_that_resumes_gets_all_since_then_and_what_comes_meanwhile() -> None:
    hub = filled(*(m for seq in range(2000) for m in (prediction(seq), event(seq + 1))))
    with hub.subscribe(["predictions"], resume_from=500) as subscriber:
        hub.publish(prediction(2000))
        hub.close()
        assert [m["seq"] for m in received(subscriber)] == list(range(500, 2001))
    with hub.subscribe(["events"], resume_from=1999) as subscriber:
        assert [m["seq"] for m in received(subscriber)] == [1999, 2000]
    with hub.subscribe(["predictions"], Policy("latest"), resume_from=500) as subscriber:
        assert [m["seq"] for m in received(subscriber)] == [2000]
    with hub.subscribe(["predictions"], Policy("every", 100), resume_from=1750) as subscriber:
        assert [m["seq"] for m in received(subscriber)] == [1800, 1900, 2000]


def test_one_that_resumes_from_before_the_history_is_told_how_many_bins_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history_module, "HISTORY_BYTES", 100_000)
    hub = filled(*(prediction(seq, model) for seq in range(1000) for model in ("main", "other")))
    oldest, newest = hub.seq_range() or (0, 0)
    assert 800 < oldest < newest == 999
    with hub.subscribe(["predictions"], resume_from=10) as subscriber:
        hub.close()
        lagged, *rest = received(subscriber)
    assert lagged == {"type": "lagged", "missed": oldest - 10, "oldest_seq": oldest}
    assert [m["seq"] for m in rest] == [seq for seq in range(oldest, 1000) for _ in range(2)]


def test_a_bin_in_the_future_cannot_be_resumed_from_and_none_before_anything_is_known() -> None:
    filled(prediction(4)).check_resumption(5)
    with pytest.raises(Conflict, match="bin 6 is in the future, the next one is 5"):
        filled(prediction(4)).check_resumption(6)
    with pytest.raises(Unavailable, match="nothing yet"):
        Hub().check_resumption(0)


def test_the_history_keeps_json_and_frames_of_the_newest_messages_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    messages = [prediction(seq) for seq in range(FORMS_KEPT + 10)]
    for message in messages:
        hub.publish(message)
        assert message.frame(binary=False)
    hub.since(-1, 1000, "main")
    kept = [message for message in messages if message._json is not None or message._map is not None]
    assert kept == messages[-FORMS_KEPT:]


def test_what_a_quiet_session_says_for_hours_is_let_go_of_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(history_module.time, "monotonic", lambda: now)
    history = History()
    for _ in range(200):
        now += 1
        history.add(Message.of("status", {"seq": 3}))
    assert (history.end - history.first, history.oldest_seq, history.next_seq) == (HISTORY_S + 1, 3, 3)


def test_the_latest_is_of_the_active_model_unless_another_is_named() -> None:
    hub = filled(prediction(1), prediction(1, "other", "shadow"), prediction(2), prediction(2, "other", "shadow"))
    latest, of_other = hub.latest(), hub.latest("other")
    assert latest is not None
    assert of_other is not None
    assert (latest.map["seq"], latest.map["role"]) == (2, "active")
    assert (of_other.map["seq"], of_other.map["role"]) == (2, "shadow")
    assert hub.latest("nobody") is None


def test_since_counts_bins_and_never_splits_one() -> None:
    hub = filled(*(prediction(seq, model) for seq in range(5) for model in ("main", "other")))
    assert [m.map["seq"] for m in hub.since(1, 2)] == [2, 2, 3, 3]
    assert [m.map["seq"] for m in hub.since(1, 2, "other")] == [2, 3]
    assert hub.since(4, 10) == []
    assert hub.seq_range() == (0, 4)


def test_the_answer_of_a_late_shadow_is_with_its_bin_in_the_history_and_where_it_came_in_the_stream() -> None:
    late = prediction(1, "other", "shadow")
    hub = filled(*(prediction(seq) for seq in range(4)), late, prediction(4))
    assert [m.map["seq"] for m in hub.since(0, 2)] == [1, 1, 2]
    assert hub.since(1, 9, "other") == []
    assert hub.seq_range() == (0, 4)
    with hub.subscribe(["predictions"], resume_from=3) as subscriber:
        hub.close()
        assert [m["seq"] for m in received(subscriber)] == [3, 1, 4]


def test_predictions_older_than_a_minute_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(history_module.time, "monotonic", lambda: now)
    hub = filled(prediction(1))
    now += HISTORY_S + 1
    hub.publish(prediction(2))
    assert hub.seq_range() == (2, 2)
