"""A real server over fake session processes (those of the API's tests)."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuroloop_client import Client, NeuroloopClientError

FAKE_SERVER = Path(__file__).parents[1] / "api" / "fake_server.py"
DEMO = {"name": "demo", "stream": {"name": "demo-stream"}, "classes": ["left", "right"], "bin_ms": 10}


def wait_until_ready(client: Client) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            return client.check_ready()
        except NeuroloopClientError:
            assert time.monotonic() < end, "the server did not become ready"


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    command = [sys.executable, str(FAKE_SERVER), json.dumps({"port": 0, "sessions": [DEMO]})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().rpartition(" ")[2].strip()
        with Client(url) as client:
            wait_until_ready(client)
        yield url
        process.terminate()
