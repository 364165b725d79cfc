"""The command `neuroloop doctor`, with a real outlet."""

import json
import subprocess
import sys

from tests.integration.conftest import ones
from tests.processes import write_config


def doctor(*arguments):
    command = [sys.executable, "-m", "neuroloop", "doctor", "--timeout", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def sessions(*names):
    return [{"name": name, "stream": {"name": name}, "classes": ["a", "b"]} for name in names]


def test_a_server_that_lacks_nothing_is_told_so_with_exit_code_0(open_source, unique_name, tmp_path):
    open_source(unique_name).push(ones(10))
    told = doctor(write_config(tmp_path, sessions=sessions(unique_name)), "--json")
    found = {finding["check"]: finding for finding in json.loads(told.stdout)}
    assert told.returncode == 0, told.stdout
    assert found[f"{unique_name}: stream"]["state"] == "ok"
    assert unique_name in found[f"{unique_name}: stream"]["found"]
    assert {"multicast", "ports", "streams", "clock", "real time", "kernels", "gpu", "recordings"} <= found.keys()


def test_a_stream_that_is_not_seen_is_told_with_what_to_do_and_exit_code_1(unique_name, tmp_path):
    told = doctor(write_config(tmp_path, sessions=sessions(unique_name)))
    lines = told.stdout.splitlines()
    [at] = [
        number for number, line in enumerate(lines) if line.startswith(f"fault    {unique_name}: stream: no stream")
    ]
    assert told.returncode == 1
    assert "known_peers" in lines[at + 1]


def test_a_configuration_that_is_wrong_is_told_in_one_line(tmp_path):
    told = doctor(write_config(tmp_path, sessions=[{"name": "x"}]))
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("neuroloop: ")
