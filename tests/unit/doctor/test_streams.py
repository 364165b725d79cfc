"""Why a stream is not seen, with real outlets."""

import os
import socket
import struct
from dataclasses import replace

import pytest
from tests.unit.doctor.conftest import answering

from neuroloop.config import StreamSelector
from neuroloop.doctor.discovery import ask
from neuroloop.doctor.streams import check_answers, check_stream

WAIT_S = 1.0


def look_for(name, config, answers=()):
    return check_stream("stream", StreamSelector(name=name), config, answers, WAIT_S)


def test_a_stream_that_is_seen_and_reached_is_well(open_outlet, config, unique_name):
    open_outlet(unique_name)
    found = look_for(unique_name, config)
    assert (found.state, found.advice) == ("ok", "")
    assert unique_name in found.found
    assert "protocol 1.10" in found.found


def test_a_stream_of_another_lsl_session_is_found_out(open_outlet, config, unique_name, tmp_path):
    (tmp_path / "lsl_api.cfg").write_text("[lab]\nSessionID = another-room\n")
    open_outlet(unique_name, os.environ | {"LSLAPICFG": str(tmp_path / "lsl_api.cfg")})
    found = look_for(unique_name, config)
    assert found.state == "fault"
    assert "is of the LSL session 'another-room'" in found.found
    assert repr(config.session_id) in found.found
    assert "session_id: another-room" in found.advice

    of_all = check_answers(config, ask(config, f"name='{unique_name}'", WAIT_S))
    assert of_all.state == "warning"
    assert "1 out of sight in others" in of_all.found


def test_where_another_stream_answers_it_is_named(open_outlet, config, unique_name):
    open_outlet(unique_name)
    answers = ask(config, f"name='{unique_name}'", WAIT_S)
    found = look_for(f"not-{unique_name}", config, answers)
    assert found.state == "fault"
    assert f"no stream with name='not-{unique_name}' answers; these do: '{unique_name}'" in found.found
    assert "known_peers" in found.advice


def test_where_nothing_answers_the_sender_and_the_network_are_suspected(config, unique_name):
    found = look_for(unique_name, config)
    assert found.state == "fault"
    assert found.found.endswith("answers, nor any other")
    assert found.advice.startswith("Start the sender. Multicast passes no router")


def test_a_stream_of_another_protocol_is_found_out(config, listener, unique_name):
    port = listener.getsockname()[1]
    here = replace(config, addresses=(), peers=("127.0.0.1",), ports=range(port, port + 1))
    with answering(listener, unique_name, config.session_id, version="2.03"):
        found = look_for(unique_name, here)
    assert found.state == "fault"
    assert "speaks LSL protocol 2.3; this server speaks 1.10" in found.found


def test_a_stream_whose_data_cannot_be_reached_is_told_from_one_that_is_silent(config, unique_name):
    group = socket.inet_aton("239.255.172.215")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener, socket.socket() as closed:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("239.255.172.215", config.multicast_port))
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4sI", group, 0))
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        with answering(listener, unique_name, config.session_id, data_port=closed.getsockname()[1]):
            found = look_for(unique_name, config)
    assert found.state == "fault"
    assert "its TCP port cannot be reached" in found.found
    assert "firewall" in found.advice


def test_a_predicate_that_is_none_is_said_to_be(config):
    found = check_stream("stream", StreamSelector(predicate="name='"), config, (), WAIT_S)
    assert found.state == "fault"
    assert "XPath" in found.found


@pytest.mark.parametrize("junk", [b"", b"word\r\nno xml", b"word\r\n<info><version>x</version></info>"])
def test_junk_in_place_of_an_answer_is_passed_over(config, listener, junk, unique_name):
    port = listener.getsockname()[1]
    here = replace(config, addresses=(), peers=("127.0.0.1",), ports=range(port, port + 1))
    with answering(listener, unique_name, config.session_id, before=junk):
        found = ask(here, f"name='{unique_name}'", 0.3)
    assert [answer.name for answer in found] == [unique_name]
