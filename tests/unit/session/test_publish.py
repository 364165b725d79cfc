"""What a session publishes, to subscribers that come late, go, and come back."""

import msgpack
import pytest
import zmq

from neuroloop.session import publish
from neuroloop.session.publish import Publisher


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def endpoint(tmp_path):
    return f"ipc://{tmp_path}/results"


@pytest.fixture
def publisher(context, endpoint):
    publisher = Publisher(context, endpoint)
    yield publisher
    publisher.close()


def subscribe(context, endpoint):
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.subscribe(b"")
    socket.connect(endpoint)
    return socket


def publish_until(publisher, socket, number):
    """Publish from this number on until something has come."""
    while not socket.poll(20):
        publisher(b"bins", {"seq": number})
        number += 1
    return number


def received(socket):
    numbers = []
    while socket.poll(200):
        numbers.append(msgpack.unpackb(socket.recv_multipart()[1])["seq"])
    return numbers


def test_a_subscriber_that_comes_late_gets_what_was_kept_and_what_follows(context, endpoint, publisher):
    for number in range(1000):
        publisher(b"bins", {"seq": number})
    socket = subscribe(context, endpoint)
    end = publish_until(publisher, socket, 1000)
    for number in range(end, end + 40):
        publisher(b"bins", {"seq": number})
    assert received(socket) == list(range(end + 40))


def test_one_that_takes_the_place_of_another_misses_nothing(context, endpoint, publisher):
    first = subscribe(context, endpoint)
    end = publish_until(publisher, first, 0)
    first.close(linger=0)
    for number in range(end, end + 20):
        publisher(b"bins", {"seq": number})
    second = subscribe(context, endpoint)
    end = publish_until(publisher, second, end + 20)
    assert received(second) == list(range(end))


def test_what_is_kept_is_bounded(context, endpoint, publisher, monkeypatch):
    monkeypatch.setattr(publish, "KEPT_COUNT", 50)
    monkeypatch.setattr(publish, "KEPT_BYTES", 200)  # of 25 messages
    for number in range(500):
        publisher(b"bins", {"seq": number})
    socket = subscribe(context, endpoint)
    end = publish_until(publisher, socket, 500)
    numbers = received(socket)
    assert numbers == list(range(numbers[0], end))
    assert 15 < len(numbers) <= 50


def test_a_long_past_is_told_in_parts(context, endpoint, publisher, monkeypatch):
    monkeypatch.setattr(publish, "SENT_AT_ONCE", 3)
    for number in range(10):
        publisher(b"bins", {"seq": number})
    socket = subscribe(context, endpoint)
    end = publish_until(publisher, socket, 10)
    told = received(socket)
    assert told == [0, 1, 2]
    for number in range(end, end + 20):
        publisher(b"bins", {"seq": number})
    assert received(socket) == list(range(3, end + 20))


def test_signals_are_wanted_while_somebody_subscribes_to_them_by_name_and_never_kept(context, endpoint, publisher):
    socket = subscribe(context, endpoint)
    number = publish_until(publisher, socket, 0)
    assert not publisher.wants(b"signals")
    publisher(b"signals", {"seq": 7000})
    socket.subscribe(b"signals")
    while not publisher.wants(b"signals"):
        publisher(b"bins", {"seq": number})
        number += 1
    late = subscribe(context, endpoint)
    end = publish_until(publisher, late, number)
    for _ in range(end // publish.SENT_AT_ONCE + 1):
        publisher(b"bins", {"seq": end})
        end += 1
    assert received(late) == list(range(end))
    socket.unsubscribe(b"signals")
    while publisher.wants(b"signals"):
        publisher(b"bins", {"seq": end})
    socket.subscribe(b"signals")
    while not publisher.wants(b"signals"):
        publisher(b"bins", {"seq": end})
    socket.close()
    while publisher.wants(b"signals"):
        publisher(b"bins", {"seq": end})
