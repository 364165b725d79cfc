import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from neuroloop.doctor.lsl_config import LslConfig
from neuroloop.doctor.network import check_multicast, check_peers, check_ports


def test_multicast_that_comes_back_is_well(config):
    assert check_multicast(config).state == "ok"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_multicast_without_a_route_is_a_fault_that_says_how_to_do_without():
    program = (
        "from neuroloop.doctor.lsl_config import LslConfig\nfrom neuroloop.doctor.network import check_multicast\n"
        "found = check_multicast(LslConfig())\nprint(found.state, found.found)\nprint(found.advice)"
    )
    command = ["unshare", "--net", sys.executable, "-c", program]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert told.startswith("fault does not work here: 224.0.0.1 (")
    assert "lsl.known_peers" in told


def test_without_a_group_that_is_asked_nothing_can_be_found():
    assert check_multicast(LslConfig(addresses=("127.0.0.1",))).state == "fault"


@pytest.mark.parametrize(("random_ports", "state"), [(True, "warning"), (False, "fault")])
def test_ports_that_are_all_taken_are_found_out(listener, random_ports, state):
    port = listener.getsockname()[1]
    found = check_ports(LslConfig(ports=range(port, port + 1), random_ports=random_ports))
    assert found.state == state
    assert f"all of {port}-{port} are taken" in found.found


def test_free_ports_are_well(config):
    assert check_ports(replace(config, ports=range(40_000, 40_032))).state == "ok"


def test_a_peer_without_an_address_is_a_fault(config):
    def resolve(name):
        raise socket.gaierror(-2, "Name or service not known")

    [found] = check_peers(replace(config, peers=("amplifier",)), [], resolve)
    assert (found.check, found.state) == ("peer amplifier", "fault")
    assert "Name or service not known" in found.found


def test_a_peer_with_no_stream_that_answers_is_named_with_its_ports(config):
    [found] = check_peers(replace(config, peers=("192.0.2.7",)), [])
    assert found.state == "warning"
    assert "no stream of 192.0.2.7 answers at the UDP ports 16572-16603" in found.found
