"""The REST interface held against its own description, by requests that nobody thought of, while a session decodes."""

import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from tests.integration.conftest import COUNTS, ones
from tests.processes import serving, streaming, wait_until, write_config

SETTINGS = Path(__file__).with_name("schemathesis.toml")
SRATE = 250.0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_answer_is_described_none_is_a_fault_of_the_server_and_the_session_goes_on(
    tmp_path, open_source, unique_name
):
    session = {
        "name": "demo",
        "stream": {"name": unique_name},
        "front_end": COUNTS,
        "window": 5,
        "bin_ms": 40,
        "classes": ["left", "right"],
        "decoders": [{"name": "main"}, {"name": "other", "kind": "poisson", "role": "shadow"}],
        "outlets": {"enabled": False},
    }
    source = open_source(unique_name, nominal_srate=SRATE)

    def push(stop: threading.Event):
        while not stop.wait(10 / SRATE):
            source.push(ones(10))

    limits = {"max-examples": "2", "workers": "1", "request-timeout": "30", "seed": "1"}
    options = [part for name, value in limits.items() for part in (f"--{name}", value)]
    with (
        streaming(push),
        serving(write_config(tmp_path, sessions=[session])) as (url, server),
        httpx.Client(base_url=url) as http,
    ):
        wait_until(lambda: http.get("/v1/sessions/demo/predictions").json().get("predictions"), "a prediction")
        command = ["--config-file", str(SETTINGS), "run", f"{url}/openapi.json", "--checks", "all"]
        arguments = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            *command,
            *options,
            "--continue-on-failure",
            "--no-color",
        ]
        ran = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=390)
        assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
        assert "Tested:" in ran.stdout
        assert http.get("/healthz").is_success
        status = http.get("/v1/sessions/demo/status").json()
        assert (status["state"], status["missed_bins"]) in {("running", 0), ("stopped", 0)}
    assert server.returncode == 0
