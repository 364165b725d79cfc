"""An outlet on one host, the server in a container on another, and a router between them that passes no multicast."""

import json
import subprocess
import sys

import pytest
import yaml
from tests.processes import wait_until

from neuroloop.demo.processes import PYTHON, Process

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

INSIDE = "/etc/neuroloop/server.yaml"
READER = """
import json, sys
from neuroloop_client import Client
answers = []
with Client("http://127.0.0.1:8765") as client:
    for prediction in client.predictions("two-hosts"):
        if answers or prediction["label"] is not None:
            answers.append(prediction)
        if len(answers) == 50:
            break
    print(json.dumps({"answers": answers, "status": client.status("two-hosts")}, default=str))
"""


@pytest.fixture
def settings(hosts, unique_name):
    """Of a server, for the stream of an outlet on the left host."""
    session = {
        "name": "two-hosts",
        "stream": {"name": unique_name},
        "markers": [{"stream": {"name": f"{unique_name}-markers"}, "window": [0.0, 0.5]}],
        "classes": ["right", "up-right", "up", "up-left", "left", "down-left", "down", "down-right"],
    }
    outlet = ["simulate", "--json", "--name", unique_name, "--source-id", unique_name, "--channel-count", "32"]
    with Process("neuroloop_sources", outlet, ["ip", "netns", "exec", hosts.left, *PYTHON]) as source:
        source.json_line()
        yield {"outlive_s": 0, "sessions": [session]}


@pytest.fixture
def two_hosts(image, hosts, settings, lsl_session_id, tmp_path):
    """What makes the command line of a container on the right host."""
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(settings | {"folder": "/var/lib/neuroloop"}))

    def program(**environment):
        variables = {"LSL_SESSION_ID": lsl_session_id} | environment
        files = {tmp_path / "server.yaml": INSIDE}
        return image.program(tmp_path, environment=variables, files=files, namespace=hosts.right)

    return program


def read_labels(hosts):
    """Fifty predictions from the first label on, as a client on the right host gets them, and the session's status."""
    told = json.loads(hosts.run(hosts.right, sys.executable, "-c", READER, timeout=300).stdout)
    first = told["answers"][0]["seq"]
    assert [answer["seq"] for answer in told["answers"]] == list(range(first, first + 50))
    assert told["status"]["stream"]["state"] == "connected"


def examine(image, program):
    """What the doctor of a container finds: check -> finding."""
    command = [*program, image.entrypoint, "doctor", INSIDE, "--json"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return {finding["check"]: finding for finding in json.loads(told.stdout)}


def test_the_doctor_says_that_multicast_does_not_pass_and_known_peers_mend_it(image, hosts, two_hosts):
    blind = examine(image, two_hosts())
    assert blind["two-hosts: stream"]["state"] == "fault"
    assert "Multicast passes no router" in blind["two-hosts: stream"]["advice"]

    seeing = examine(image, two_hosts(LSL_KNOWN_PEERS=hosts.left_address))
    assert seeing[f"peer {hosts.left_address}"]["state"] == "ok"
    assert seeing["two-hosts: stream"]["state"] == "ok", seeing
    assert {seeing[check]["state"] for check in ("clock", "real time", "kernels", "recordings")} <= {"ok", "warning"}


def test_labels_come_from_the_other_hosts_stream_and_the_container_is_healthy(image, hosts, two_hosts):
    program = two_hosts(LSL_KNOWN_PEERS=hosts.left_address)
    with Process(image.entrypoint, ["serve", INSIDE], program) as server:
        assert server.line("neuroloop listening on ").split()[-1] == "http://127.0.0.1:8765"
        read_labels(hosts)
        health = subprocess.run([*two_hosts(), *image.config["Healthcheck"]["Test"][1:]])
    assert health.returncode == 0
    wait_until(lambda: not server.running, "the end of the container")
    dead = subprocess.run([*two_hosts(), *image.config["Healthcheck"]["Test"][1:]], stderr=subprocess.DEVNULL)
    assert dead.returncode != 0


def test_a_peer_that_liblsls_own_file_names_is_found(hosts, settings, lsl_session_id, tmp_path):
    file, config = tmp_path / "lsl_api.cfg", tmp_path / "server.yaml"
    file.write_text(f"[lab]\nSessionID = {lsl_session_id}\nKnownPeers = {{{hosts.left_address}}}\n")
    config.write_text(yaml.safe_dump(settings | {"folder": str(tmp_path / "data")}))
    program = ["ip", "netns", "exec", hosts.right, "env", f"LSLAPICFG={file}", *PYTHON]
    with Process("neuroloop", ["serve", str(config)], program) as server:
        server.line("neuroloop listening on ")
        read_labels(hosts)
