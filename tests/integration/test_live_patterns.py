"""Decoders on the covariance of channels, from a running session: labelled, fitted, put to use in it, over HTTP."""

import httpx
import numpy as np
import pytest
from tests.processes import serving, wait_until, write_config

CLASSES = ["fists", "feet"]
SRATE = 250
TRIAL_BINS = 10  # of 0.1 s
MIXING = np.array([[1.0, 0.8, 0.3, -0.5], [0.7, -1.0, 0.9, 0.4], [0.2, 0.5, 1.0, 1.0], [-0.6, 0.9, 0.4, 0.8]])


@pytest.fixture
def http(tmp_path, unique_name):
    """A client of a server with a session on the covariance of four channels, whose name is its stream's."""
    session = {
        "name": unique_name,
        "stream": {"source_id": unique_name, "buffer_s": 60},
        "front_end": {"kind": "covariance", "bands": {"mu-beta": [8, 30]}},
        "bin_ms": 100,
        "window": 8,
        "classes": CLASSES,
        "decoders": [{"name": "decoder", "kind": "csp"}],
        "outlets": {"enabled": False},
    }
    with (
        serving(write_config(tmp_path, sessions=[session])) as (url, _),
        httpx.Client(base_url=url, timeout=70) as http,
    ):
        yield http


@pytest.fixture
def trials(open_source, unique_name):
    """A source, and a function that pushes so many trials of 1 s; what tells them apart is on every channel."""
    source, generator = open_source(unique_name, nominal_srate=float(SRATE)), np.random.default_rng(3)

    def push(count):
        ends = []
        for trial in range(count):
            power = np.array([[3, 1, 1, 1], [1, 3, 1, 1]])[trial % 2]
            samples = generator.standard_normal((SRATE, 4)) * power @ MIXING
            source.push(samples.astype(np.float32))
            ends.append(source.start + source.sent / SRATE)
        return ends

    return source, push


def test_covariances_are_fitted_from_a_running_session_and_tell_its_next_trials(http, trials, unique_name):
    source, push = trials
    path = f"/v1/sessions/{unique_name}"

    def status():
        return http.get(f"{path}/status").json()

    def decoded(bins):
        return wait_until(lambda: (found := status()).get("bins", 0) >= bins and found, f"{bins} bins")

    def told(since, until):
        """Predictions by their number, as soon as the server has them; the status may be ahead of it."""

        def found():
            answer = http.get(f"{path}/predictions", params={"since": since}).json()
            answers = {prediction["seq"]: prediction for prediction in answer["predictions"]}
            return until in answers and answers

        return wait_until(found, f"bin {until}")

    source.wait_for_consumers()
    for trial, end in enumerate(push(20)):
        decoded(TRIAL_BINS * (trial + 1))
        label = {"label": CLASSES[trial % 2], "start": end - 1, "end": end}
        assert http.post(f"{path}/labels", json=label).status_code == 200
    live = {"session": unique_name, "seconds": 60}
    for fitted, kind in enumerate(("csp", "riemann")):
        first = 20 + 10 * fitted
        answer = http.post("/v1/fits?activate=active", json={"name": kind, "kind": kind, "source": {"live": live}})
        assert answer.status_code == 202, answer.text
        job = wait_until(
            lambda at=answer.headers["Location"]: (job := http.get(at).json())["state"] in ("done", "failed") and job,
            "the fit",
        )
        assert job["state"] == "done", job["detail"]
        assert job["activation"] == f"active in session '{unique_name}' from bin {first * TRIAL_BINS} on"
        assert (job["metrics"]["accuracy"], job["result"]["channels"]) == (1.0, ["c0", "c1", "c2", "c3"])
        assert (job["result"]["features"], job["result"]["settings"]["bands"]) == (10, 1)
        push(10)
        assert decoded((first + 10) * TRIAL_BINS)["missed_bins"] == 0
        answers = told(since=first * TRIAL_BINS - 1, until=(first + 10) * TRIAL_BINS - 1)
        last = [TRIAL_BINS * (trial + 1) - 1 for trial in range(first, first + 10)]
        assert [answers[number]["label"] for number in last] == CLASSES * 5
        assert {answers[number]["model"]["name"] for number in last} == {kind}
