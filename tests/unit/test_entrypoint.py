"""The image's entry point, with a `neuroloop` that tells which liblsl configuration it was given."""

import os
import subprocess
from pathlib import Path

import pytest

from neuroloop.config import LslSettings
from neuroloop.doctor.lsl_config import lsl_config

ENTRYPOINT = Path(__file__).parents[2] / "docker" / "entrypoint.sh"


@pytest.fixture
def start(tmp_path):
    """A function that runs the entry point; returns the arguments and the LSLAPICFG that `neuroloop` had."""
    program = tmp_path / "neuroloop"
    program.write_text('#!/bin/sh\necho "$*"\necho "${LSLAPICFG:-none}"\n')
    program.chmod(0o755)

    def run(*arguments, **variables):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)} | variables
        told = subprocess.run([ENTRYPOINT, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return told.stdout.splitlines()

    return run


def test_without_peers_or_a_session_liblsls_own_configuration_holds(start):
    assert start("serve", "a file.yaml") == ["serve a file.yaml", "none"]
    assert start("serve", LSLAPICFG="/given/lsl_api.cfg") == ["serve", "/given/lsl_api.cfg"]


@pytest.mark.parametrize("peers", ["amplifier,192.0.2.5", "amplifier 192.0.2.5", " amplifier,  192.0.2.5 "])
def test_peers_of_the_environment_become_liblsls(start, peers):
    _, file = start("serve", LSL_KNOWN_PEERS=peers)
    assert Path(file).read_text() == ("[lab]\nKnownPeers = {amplifier, 192.0.2.5}\n[tuning]\nMulticastMinRTT = 0.05\n")


def test_a_session_of_the_environment_becomes_liblsls(start):
    _, file = start("simulate", LSL_SESSION_ID="lab-2", LSL_KNOWN_PEERS="a")
    found = lsl_config(LslSettings(), {"LSLAPICFG": file})
    assert (found.session_id, found.peers) == ("lab-2", ("a",))
