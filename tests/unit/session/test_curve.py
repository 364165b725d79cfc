import contextlib

import msgpack
import pytest
import zmq

from neuroloop.session.curve import identify, new_keys
from neuroloop.session.publish import Publisher


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def subscriber(context, endpoint, server_key):
    socket = context.socket(zmq.SUB)
    identify(socket, server_key)
    socket.subscribe(b"")
    socket.connect(endpoint)
    return socket


def test_only_who_knows_the_sessions_key_hears_it(context):
    keys = new_keys()
    publisher = Publisher(context, "tcp://127.0.0.1:*", keys)
    publisher(b"status", {"seq": 1})
    strangers = [subscriber(context, publisher.endpoint, key) for key in (None, new_keys().public)]
    friend = subscriber(context, publisher.endpoint, keys.public)
    for seq in range(2, 200):
        publisher(b"status", {"seq": seq})
        if friend.poll(20):
            break
    assert msgpack.unpackb(friend.recv_multipart()[1])["seq"] == 1
    for stranger in strangers:
        with contextlib.suppress(zmq.Again):
            pytest.fail(f"a stranger heard {stranger.recv_multipart(zmq.NOBLOCK)}")
    publisher.close()


def test_keys_are_new_each_time():
    assert len({key for _ in range(3) for key in new_keys()}) == 6
