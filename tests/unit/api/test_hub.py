import asyncio
import math
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroloop.api import hub as hub_module
from neuroloop.api.hub import HISTORY_S, RESUME_LENGTH, Hub, Message, Subscriber


def prediction(seq: int, model: str = "main", role: str = "active") -> Message:
    return Message.of("predictions", {"type": "prediction", "seq": seq, "model": {"name": model}, "role": role})


async def settled(publish: Callable[[], None]) -> None:
    publish()
    await asyncio.sleep(0)


def filled(*messages: Message) -> Hub:
    hub = Hub()

    def publish() -> None:
        for message in messages:
            hub.publish(message)

    asyncio.run(settled(publish))
    return hub


def test_a_packed_message_passes_unchanged_and_its_json_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    to_json = hub_module.to_json
    monkeypatch.setattr(hub_module, "to_json", lambda value, **options: made.append(value) or to_json(value, **options))
    packed = msgpack.packb({"seq": 1, "scores": [1.0, math.nan, math.inf]})
    message = Message("rates", packed)
    assert message.packed is packed
    assert [message.json for _ in range(3)] == ['{"seq":1,"scores":[1.0,null,null]}'] * 3
    assert len(made) == 1


def test_a_subscriber_gets_the_topics_it_asked_for_in_order() -> None:
    async def run() -> list[str]:
        hub = Hub()
        with hub.subscribe(["rates", "events"]) as subscriber:
            for topic in ("rates", "predictions", "events", "rates"):
                hub.publish(prediction(1) if topic == "predictions" else Message.of(topic, {"type": topic}))
            hub.close()
            return [message.topic async for message in _all(subscriber)]

    assert asyncio.run(run()) == ["rates", "events", "rates"]


def test_a_stalled_subscriber_is_told_what_it_missed_and_goes_on_with_the_newest() -> None:
    async def run() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        hub = Hub()
        with hub.subscribe(["predictions"], 16) as stalled, hub.subscribe(["predictions"], 1000) as other:
            for seq in range(100):
                hub.publish(prediction(seq))
            hub.close()
            return [m.map async for m in _all(stalled)], [m.map async for m in _all(other)]

    stalled, other = asyncio.run(run())
    assert stalled[0] == {"type": "lagged", "missed": 100 - RESUME_LENGTH}
    assert [m["seq"] for m in stalled[1:]] == list(range(100 - RESUME_LENGTH, 100))
    assert [m["seq"] for m in other] == list(range(100))


@given(st.lists(st.sampled_from(["put", "get"]), max_size=60), st.integers(RESUME_LENGTH, 12))
def test_every_message_is_delivered_in_order_or_counted_as_missed(steps: list[str], length: int) -> None:
    async def run() -> None:
        subscriber = Subscriber(length)
        put = delivered = missed = 0
        newest = -1

        def take(message: Message) -> None:
            nonlocal delivered, missed, newest
            if message.topic == "lagged":
                missed += message.map["missed"]
                return
            delivered += 1
            assert message.map["seq"] > newest
            newest = message.map["seq"]

        waiting = 0
        for step in steps:
            if step == "put":
                subscriber.put(prediction(put))
                put, waiting = put + 1, min(length, waiting + 1)
            elif delivered + missed < put:
                message = await subscriber.get()
                assert message is not None
                take(message)
        subscriber.close()
        async for message in _all(subscriber):
            take(message)
        assert delivered + missed == put

    asyncio.run(run())


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


def test_predictions_older_than_a_minute_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(hub_module.time, "monotonic", lambda: now)
    hub = Hub()
    asyncio.run(settled(lambda: hub.publish(prediction(1))))
    now += HISTORY_S + 1
    asyncio.run(settled(lambda: hub.publish(prediction(2))))
    assert hub.seq_range() == (2, 2)


async def _all(subscriber: Subscriber) -> Any:
    while (message := await subscriber.get()) is not None:
        yield message
