"""The REST interface held against its own description, by requests that nobody thought of, while a session decodes."""

import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from tests.integration.conftest import COUNTS, ones, streaming

SETTINGS = Path(__file__).with_name("schemathesis.toml")
SRATE = 250.0


@contextmanager
def closing_process(process):
    """End it, whatever happens."""
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


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
    config = tmp_path / "server.yaml"
    config.write_text(yaml.safe_dump({"port": 0, "folder": str(tmp_path / "data"), "sessions": [session]}))
    source = open_source(unique_name, nominal_srate=SRATE)

    def push(stop: threading.Event):
        while not stop.wait(10 / SRATE):
            source.push(ones(10))

    program = [sys.executable, "-m", "neuroloop", "serve", str(config)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server, streaming(push):
        url = server.stdout.readline().rpartition(" ")[2].strip()
        with closing_process(server), httpx.Client(base_url=url) as http:
            while not (http.get("/v1/sessions/demo/predictions").json().get("predictions")):
                assert server.poll() is None
            command = ["--config-file", str(SETTINGS), "run", f"{url}/openapi.json", "--checks", "all"]
            limits = [
                "--max-examples",
                "5",
                "--workers",
                "2",
                "--request-timeout",
                "30",
                "--continue-on-failure",
                "--seed",
                "1",
                "--no-color",
            ]
            arguments = [sys.executable, "-m", "schemathesis.cli", *command, *limits]
            ran = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=390)
            assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
            assert "Tested:" in ran.stdout
            assert http.get("/healthz").is_success
            status = http.get("/v1/sessions/demo/status").json()
            assert (status["state"], status["missed_bins"]) in {("running", 0), ("stopped", 0)}
        assert server.returncode == 0
