"""A real server over fake session processes (those of the API's tests)."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.processes import wait_until

from neuroloop_client import Client, NeuroloopClientError

FAKE_SERVER = Path(__file__).parents[1] / "api" / "fake_server.py"
DEMO = {"name": "demo", "stream": {"name": "demo-stream"}, "classes": ["left", "right"], "bin_ms": 10}


def is_ready(client: Client) -> bool:
    try:
        client.check_ready()
    except NeuroloopClientError:
        return False
    return True


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    command = [sys.executable, str(FAKE_SERVER), json.dumps({"port": 0, "sessions": [DEMO]})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().rpartition(" ")[2].strip()
        with Client(url) as client:
            wait_until(lambda: is_ready(client), "the server")
        yield url
        process.terminate()
