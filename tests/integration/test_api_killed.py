"""The API process is killed while models are uploaded, a fit runs and a session decodes; another one is started."""

import json
import threading
from hashlib import sha256

import httpx
import numpy as np
import pytest
from tests.benchmarks.races import counts
from tests.integration.models import trained, weights
from tests.integration.test_fits import ask, is_gone, running
from tests.integration.test_models import verify
from tests.processes import serving, wait_until, write_config
from tests.unit.registry.conftest import weights_of

from neuroloop_client import Client

SESSION = "survivor"
UPLOADERS = 3
FIT = {"name": "fitted", "kind": "maxrate", "classes": ["left", "right", "up"]}


def upload(url, seed, acknowledged):
    """Upload until the server is gone; acknowledged: the digest of each version it has answered 201 for."""
    with httpx.Client(base_url=url, timeout=30) as http:
        for n in range(100_000):
            data = weights_of(seed * 100_000 + n)
            try:
                answer = http.post("/v1/models/uploaded/versions", content=data)
            except httpx.TransportError:
                return
            assert answer.status_code == 201, answer.text
            acknowledged[answer.json()["version"]] = f"sha256:{sha256(data).hexdigest()}"


@pytest.fixture
def config(tmp_path, unique_name):
    """A server whose session receives a stream, and goes on for a minute without the server."""
    session = {"name": SESSION, "stream": {"source_id": unique_name}, "front_end": {"kind": "counts"}, "window": 5}
    session |= {"classes": ["a", "b"], "outlets": {"enabled": False}}
    with counts(unique_name):
        yield write_config(tmp_path, sessions=[session], outlive_s=60)


@pytest.fixture
def endless():
    """Data whose fit takes minutes."""
    generator = np.random.default_rng(5)
    labels = np.tile([0, 1, 2], 40_000)
    return {"trials": generator.poisson(5.0, (len(labels), 40)).astype(np.float32), "labels": labels}


def on_port(config, url):
    """The same server, on the port that it had."""
    settings = json.loads(config.read_text()) | {"port": int(url.rpartition(":")[2])}
    config.write_text(json.dumps(settings))
    return config


def test_a_killed_server_is_restarted_and_nothing_that_was_acknowledged_or_ran_is_lost(config, endless):
    acknowledged = {}
    decoder = f"/v1/sessions/{SESSION}/decoder"
    with serving(config) as (url, process), httpx.Client(base_url=url, timeout=70) as http:
        for lessons in (3, 4):
            assert http.post("/v1/models/reach/versions", content=weights(trained(lessons=lessons))).is_success
        wait_until(lambda: http.get(f"/v1/sessions/{SESSION}/status").json().get("bins", 0) > 10, "bins")
        for version in (1, 2):
            swapped = http.put(decoder, json={"model": "reach", "version": version})
            assert swapped.status_code == 200, swapped.text
        in_use = swapped.json()["current"]
        run = http.get(f"/v1/sessions/{SESSION}").json()["run"]
        fit = ask(http, FIT, endless)
        fitting = running(http, fit)["pid"]
        client = Client(url)
        predictions = client.predictions(SESSION)
        seen = [next(predictions) for _ in range(25)]
        uploads = [threading.Thread(target=upload, args=(url, seed, acknowledged)) for seed in range(UPLOADERS)]
        for thread in uploads:
            thread.start()
        wait_until(lambda: len(acknowledged) > 30, "uploads")
        process.kill()
        for thread in uploads:
            thread.join()
    whole = verify(config)
    assert (whole.exit_code, whole.stderr) == (0, "")
    with serving(on_port(config, url)) as (again, process), httpx.Client(base_url=again, timeout=70) as http:
        assert again == url
        for version in (1, 2):  # before the session has said what it uses, too
            refused = http.delete(f"/v1/models/reach/versions/{version}")
            assert (refused.status_code, f"session '{SESSION}'" in refused.text) == (409, True), refused.text
        wait_until(lambda: http.get(f"/v1/sessions/{SESSION}").json()["state"] == "running", "the session")
        found_at = http.get(f"/v1/sessions/{SESSION}/status").json()["seq"]
        while seen[-1]["seq"] < found_at + 25:
            seen.append(next(predictions))
        predictions.close()
        session = http.get(f"/v1/sessions/{SESSION}").json()
        assert (session["state"], session["run"]) == ("running", run)
        assert {(p["model"]["name"], p["model"]["digest"]) for p in seen} == {("reach", in_use["digest"])}
        assert [p["seq"] for p in seen] == list(range(seen[0]["seq"], seen[0]["seq"] + len(seen)))
        assert http.delete("/v1/models/reach/versions/2").status_code == 409
        assert http.get(f"/v1/sessions/{SESSION}/status").json()["missed_bins"] == 0
        assert http.get(fit).json()["state"] == "interrupted"
        wait_until(lambda: is_gone(fitting), "the end of the fit process")
        kept = {v["version"]: v["digest"] for v in http.get("/v1/models/uploaded/versions").json()}
        assert acknowledged.items() <= kept.items()
        back = http.post(f"{decoder}/rollback").json()
        assert (back["previous"]["version"], back["current"]["version"]) == (2, 1)
        assert http.delete("/v1/models/reach/versions/2").status_code == 204
        client.delete(SESSION)
        client.close()
        process.terminate()
        assert process.wait(20) == 0
