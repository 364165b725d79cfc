"""The signals of a session, from an LSL outlet to a client that looks at them."""

import numpy as np
import pytest
from tests.integration.conftest import COUNTS
from tests.processes import serving, wait_until, write_config

from neuroloop_client import Client

SRATE, BIN = 250.0, 10


def session(name):
    return {
        "name": "demo",
        "stream": {"name": name},
        "front_end": COUNTS,
        "window": 5,
        "bin_ms": 40,
        "classes": ["left", "right"],
        "outlets": {"enabled": False},
    }


def messages(stream):
    """Those that come until a while of silence."""
    while True:
        try:
            yield stream.receive(timeout=0.1)
        except TimeoutError:
            return


@pytest.fixture
def client(tmp_path, unique_name):
    with serving(write_config(tmp_path, sessions=[session(unique_name)])) as (url, _), Client(url) as client:
        yield client


def test_a_client_sees_the_samples_that_were_sent_and_costs_nothing_when_it_has_gone(client, open_source, unique_name):
    source = open_source(unique_name, nominal_srate=SRATE)
    source.wait_for_consumers()
    random = np.random.default_rng(3)
    sent = []

    def push():
        sent.append(random.standard_normal((BIN, 4)).astype(np.float32))
        source.push(sent[-1])

    seen = {}
    with client.stream("demo", ["signals", "predictions"]) as stream:
        while len(seen) < 20:
            push()
            seen |= {message["seq"]: message for message in messages(stream) if message["type"] == "signals"}
    assert sorted(seen) == list(range(min(seen), max(seen) + 1))
    for seq, message in seen.items():
        assert message["samples"] == [BIN * seq, BIN * seq + BIN - 1]
        np.testing.assert_array_equal(np.array(message["low"], np.float32), sent[seq])
        assert message["high"] == message["low"]

    with client.stream("demo", ["predictions"]) as stream:
        before = client.status("demo")["bins"]
        wait_until(lambda: push() or client.status("demo")["bins"] > before + 5, "bins")
        assert {message["type"] for message in messages(stream)} == {"prediction"}
