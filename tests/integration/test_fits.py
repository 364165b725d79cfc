"""Fit jobs of a real server, over HTTP."""

import io
import json
import os
import signal
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from tests import processes
from tests.integration.conftest import ALL, COUNTS
from tests.processes import streaming, wait_until

from neuroloop.training.job import load
from neuroloop_sources import SimulatorSettings, run

ASKED = {"name": "reach", "kind": "maxrate", "classes": ["left", "right", "up"], "window": 5}
ENDED = {"done", "failed", "cancelled", "interrupted"}


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@contextmanager
def serving(folder, **more):
    """A server whose folder this is: a client of it, and its process."""
    config = processes.write_config(folder, **more)
    with processes.serving(config) as (url, process), httpx.Client(base_url=url, timeout=30) as http:
        yield http, process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder) as (http, process):
        yield http
    assert process.returncode == 0


@pytest.fixture(scope="module")
def reaches():
    """Bins of 12 units in 60 trials of three directions."""
    generator = np.random.default_rng(5)
    tuning = generator.gamma(2.0, 5.0, (3, 12))
    labels = np.concatenate([[trial % 3] * 10 + [-1] * 3 for trial in range(60)])
    return {"rates": generator.poisson(tuning[labels]).astype(np.float32), "labels": labels}


@pytest.fixture(scope="module")
def endless():
    """Data whose fit takes longer than a test."""
    generator = np.random.default_rng(5)
    labels = np.tile(np.array([0, 1, 2], np.int16), 400_000)
    return {"trials": generator.poisson(5.0, (len(labels), 4)).astype(np.float32), "labels": labels}


def ask(http, document, arrays, query=""):
    form = {"data": {"document": json.dumps(document)}, "files": {"arrays": ("trials.npz", npz(**arrays))}}
    answer = http.post(f"/v1/fits{query}", **form)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/v1/fits/{answer.json()['id']}"
    return answer.headers["Location"]


def ended(http, path):
    """The job, when it has ended."""
    return wait_until(lambda: (job := http.get(path).json())["state"] in ENDED and job, "the end of the fit")


def running(http, path):
    """The job, when its process has reported progress."""
    return wait_until(lambda: (job := http.get(path).json())["progress"] > 0 and job["pid"] and job, "progress")


def test_a_decoder_is_fitted_from_uploaded_trials(server, reaches):
    path = ask(server, ASKED, reaches)
    job = ended(server, path)
    assert (job["state"], job["progress"], job["detail"]) == ("done", 1.0, None)
    assert job["metrics"]["accuracy"] > 0.9
    assert job["metrics"]["log_loss"] < 0.5
    assert len(job["curve"]) == 20
    assert job["curve"][-1][1] < job["curve"][0][1]
    assert job["result"]["classes"] == ASKED["classes"]
    assert job["result"]["training"]["source"] == {"arrays": "trials.npz"}
    assert job["result"]["training"]["digest"].startswith("sha256:")
    version = server.get(f"/v1/models/reach/versions/{job['version']}").json()
    assert (version["classes"], version["metrics"]) == (ASKED["classes"], job["metrics"])
    assert version["training_data"] == job["result"]["training"]["digest"]
    version = server.get(f"/v1/models/reach/versions/{job['version']}").json()
    assert (version["kind"], version["classes"], version["metrics"]) == ("maxrate", ASKED["classes"], job["metrics"])
    assert version["training_data"] == job["result"]["training"]["digest"]
    assert version["metadata"]["training"]["fit"] == job["id"]
    assert path.rpartition("/")[2] in [fit["id"] for fit in server.get("/v1/fits").json()["fits"]]


def test_a_running_fit_has_a_lower_priority_and_ends_when_it_is_cancelled(server, endless):
    path = ask(server, ASKED | {"window": None}, endless)
    job = running(server, path)
    assert os.getpriority(os.PRIO_PROCESS, job["pid"]) == 10 + os.getpriority(os.PRIO_PROCESS, 0)
    waiting = ask(server, ASKED, endless)
    assert server.get(waiting).json()["state"] == "queued"
    assert server.delete(waiting).json()["state"] == "cancelled"
    assert server.delete(path).json()["state"] == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(job["pid"], 0)
    again = server.delete(path)
    assert (again.status_code, "is cancelled already" in again.json()["detail"]) == (409, True)


def test_a_fit_that_cannot_learn_fails_and_says_why(server, reaches):
    job = ended(server, ask(server, ASKED, reaches | {"labels": np.minimum(reaches["labels"], 0)}))
    assert job["state"] == "failed"
    assert "two classes or more to learn from, got those of: left" in job["detail"]


@pytest.mark.parametrize(
    ("kind", "settings", "arrays", "metric"),
    [
        ("lrr", {}, {"samples": "common"}, "explained_variance"),
        ("lnp", {"lags": 5, "training": {"epochs": 3}}, {"stimulus": "level", "counts": "counts"}, "correlation"),
    ],
)
def test_rereference_weights_and_encoders_are_fitted_too(server, kind, settings, arrays, metric):
    generator = np.random.default_rng(1)
    level = generator.standard_normal(4000)
    data = {
        "common": (level[:, None] * 5 + generator.standard_normal((4000, 6))).astype(np.float32),
        "level": level,
        "counts": generator.poisson(np.exp(0.8 * np.roll(level, 2) - 1)),
    }
    asked = {"name": f"my-{kind}", "kind": kind, "settings": settings}
    job = ended(server, ask(server, asked, {name: data[source] for name, source in arrays.items()}))
    assert job["state"] == "done", job["detail"]
    assert job["metrics"][metric] > 0.3


@pytest.fixture
def headset(server, open_source, unique_name):
    """The name of a session on two channels of EEG that has found its stream."""
    front_end = {"kind": "bandpower", "bands": {"alpha": [8, 13]}}
    session = {"name": unique_name, "stream": {"name": unique_name}, "front_end": front_end, "classes": ALL}
    source = open_source(unique_name, channel_count=2, nominal_srate=250.0, labels=["C3", "C4"])
    path = server.post("/v1/sessions", json=session | {"outlets": {"enabled": False}}).headers["Location"]
    source.wait_for_consumers()
    wait_until(lambda: server.get(f"{path}/rereference").is_success, "the stream")
    yield unique_name
    server.delete(path)


def test_a_result_is_used_in_a_session_if_it_is_good_enough(server, headset):
    generator = np.random.default_rng(1)
    samples = generator.standard_normal((4000, 2)) + 3 * generator.standard_normal((4000, 1))
    data = {"samples": samples, "channels": np.array(["C3", "C4"])}
    asked = {"name": "weights", "kind": "lrr", "min_metric": 0.99}
    query = f"?activate=active&session={headset}"
    before = server.get(f"/v1/sessions/{headset}/rereference").json()
    poor = ended(server, ask(server, asked, data, query))
    assert poor["state"] == "done"
    assert poor["activation"].startswith("not activated: explained_variance 0.")
    assert poor["activation"].endswith(" < 0.99")
    assert server.get(f"/v1/models/weights/versions/{poor['version']}").is_success
    assert server.get(f"/v1/sessions/{headset}/rereference").json()["version"] == before["version"]
    good = ended(server, ask(server, asked | {"min_metric": 0.5, "parent": poor["version"]}, data, query))
    assert good["activation"].startswith(f"active in session '{headset}' from bin")
    after = server.get(f"/v1/sessions/{headset}/rereference").json()
    assert (after["version"], after["source"], after["mode"]) == (before["version"] + 1, "upload", "frozen")
    assert server.get(f"/v1/models/weights/versions/{good['version']}").json()["parent"] == poor["version"]
    misfit = ended(server, ask(server, asked | {"min_metric": 0}, data | {"channels": np.array(["Oz", "Pz"])}, query))
    assert (misfit["state"], misfit["activation"][:35]) == ("done", "not activated: rereference weights:")


def test_weights_are_fitted_from_a_recording_of_the_server(server, folder):
    recordings = folder / "data" / "recordings"
    recordings.mkdir()
    samples = np.random.default_rng(1).standard_normal((2, 4000)) + np.random.default_rng(2).standard_normal(4000) * 5
    one = {"run_start_sample": [0], "event_sample": [0], "event_label": [0], "label_names": ["start"]}
    described = {"fs": 250.0, "ch_names": ["C3", "C4"], "timestamps": np.arange(4000) / 250, **one}
    (recordings / "eeg.npz").write_bytes(
        npz(data=samples, **{key: np.array(value) for key, value in described.items()})
    )
    asked = {"name": "weights", "kind": "lrr", "source": {"recording": {"name": "eeg.npz"}}}
    answer = server.post("/v1/fits", json=asked)
    assert answer.status_code == 202, answer.text
    job = ended(server, answer.headers["Location"])
    assert (job["state"], job["detail"], job["result"]["channels"]) == ("done", None, ["C3", "C4"])
    assert job["metrics"]["explained_variance"] > 0.8
    twice = server.post("/v1/fits", json=asked | {"source": {"recordings": [{"name": "eeg.npz"}] * 2}})
    both = ended(server, twice.headers["Location"])
    assert (both["state"], both["detail"], both["result"]["training"]["recordings"]) == ("done", None, 2)
    assert both["metrics"] == pytest.approx(job["metrics"], rel=1e-6)
    nowhere = server.post("/v1/fits", json=asked | {"source": {"recording": {"name": "../server.yaml"}}})
    assert (nowhere.status_code, "below the server's folder" in nowhere.json()["detail"]) == (422, True)


def test_fits_are_interrupted_when_the_server_is_killed_and_their_process_ends(tmp_path, reaches, endless):
    with serving(tmp_path) as (http, process):
        path = ask(http, ASKED | {"window": None}, endless)
        job = running(http, path)
        waiting = ask(http, ASKED, reaches)
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: is_gone(job["pid"]), "the end of the fit process")
    assert load(tmp_path / "data" / "fits" / job["id"]).state == "running"
    with serving(tmp_path) as (http, _):
        assert http.get(path).json()["state"] == "interrupted"
        assert ended(http, waiting)["state"] == "done"


def test_a_fit_goes_on_from_its_checkpoint_after_the_server_was_killed(tmp_path):
    generator = np.random.default_rng(3)
    labels = np.concatenate([[trial % 2] * 10 + [-1] * 4 for trial in range(150)])
    data = {"rates": generator.poisson(5.0, (len(labels), 16)).astype(np.float32), "labels": labels}
    training = {"pretrain_epochs": 6, "stride": 1, "head_epochs": 5, "targets": 4}
    asked = {"name": "windows", "kind": "lfr", "settings": {"bins": 10, "depth": 1, "training": training}}
    with serving(tmp_path) as (http, process):
        path = ask(http, asked, data)
        job = running(http, path)
        folder = tmp_path / "data" / "fits" / job["id"]
        wait_until((folder / "checkpoint.safetensors").exists, "a checkpoint")
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: is_gone(job["pid"]), "the end of the fit process")
    assert not (folder / "result.json").exists()
    with serving(tmp_path) as (http, _):
        assert http.get(path).json()["state"] == "interrupted"
        answer = http.post(f"{path}/resume")
        assert (answer.status_code, answer.headers["Location"]) == (202, path), answer.text
        assert answer.json()["state"] == "queued"
        again = http.post(f"{path}/resume")
        assert (again.status_code, "only one that was interrupted" in again.json()["detail"]) == (409, True)
        done = ended(http, path)
        assert (done["state"], done["id"], done["request"]) == ("done", job["id"], job["request"])
        (begun,) = done["resumed"]
        assert 0 < begun < 1
        version = http.get(f"/v1/models/windows/versions/{done['version']}").json()
        assert version["metadata"]["training"]["resumed"] == done["resumed"]
        once = ended(http, ask(http, asked, data))
        assert (done["curve"], done["metrics"]) == (once["curve"], once["metrics"])
        digests = [http.get(f"/v1/models/windows/versions/{number}").json()["digest"] for number in (1, 2)]
        assert (once["version"], digests[0]) == (2, digests[1])
    assert not (folder / "checkpoint.safetensors").exists()


@pytest.fixture
def trials(server, open_source, unique_name):
    """A session on spike counts, and a function that gives it 20 labelled trials of 0.2 s; its name is the stream's."""
    session = {"front_end": COUNTS, "classes": ALL, "outlets": {"enabled": False}, "window": 5}
    created = server.post("/v1/sessions", json={"name": unique_name, "stream": {"name": unique_name}, **session})
    assert created.status_code == 201, created.text
    path = created.headers["Location"]
    source = open_source(unique_name)
    source.wait_for_consumers()
    generator = np.random.default_rng(7)
    status = {}

    def give():
        for trial in range(20):
            source.push(generator.poisson([[2, 2, 1, 1], [1, 1, 2, 2]][trial % 2], (200, 4)).astype(np.float32))
            end = source.start + source.sent / source.nominal_srate
            wait_until(lambda: server.get(f"{path}/status").json().get("bins", 0) >= source.sent // 20, "the bins")
            label = {"label": ALL[trial % 2], "start": end - 0.2, "end": end}
            answer = server.post(f"{path}/labels", json=label)
            assert answer.status_code == 200, answer.text
        status.update(server.get(f"{path}/status").json())
        return status

    yield give
    server.delete(path)


def test_a_decoder_is_fitted_from_the_last_seconds_of_a_session(server, trials, unique_name):
    asked = {"name": "live", "kind": "poisson", "source": {"live": {"session": unique_name, "seconds": 60}}}
    early = server.post("/v1/fits", json=asked)
    assert early.status_code in (409, 422), early.text  # no stream yet, or no label
    status = trials()
    answer = server.post("/v1/fits?activate=active", json=asked)
    assert answer.status_code == 202, answer.text
    job = ended(server, answer.headers["Location"])
    assert job["state"] == "done", job["detail"]
    assert job["metrics"]["accuracy"] == 1.0
    assert job["activation"].startswith(f"active in session '{unique_name}' from bin"), job["activation"]
    version = server.get(f"/v1/models/live/versions/{job['version']}").json()
    identity = {"name": "live", "version": job["version"], "digest": version["digest"]}
    after = trials()
    (active,) = [decoder for decoder in after["decoders"] if decoder["role"] == "active"]
    assert active["model"].items() >= identity.items()
    prediction = server.get(f"/v1/sessions/{unique_name}/predictions/latest").json()
    assert prediction["model"].items() >= identity.items()
    assert after["missed_bins"] == 0
    result = job["result"]
    assert (result["classes"], result["features"], result["channels"]) == (ALL, 4, status["stream"]["channels"])
    assert result["settings"]["duration_s"] == pytest.approx(0.1)
    assert (result["training"]["training_samples"], result["training"]["held_out_samples"]) == (16, 4)
    assert result["training"]["source"] == {"live": {"session": unique_name, "seconds": 60.0, "from": "last"}}


def test_a_decoder_is_fitted_from_the_seconds_to_come(server, trials, unique_name):
    trials()
    live = {"session": unique_name, "seconds": 4, "from": "next"}
    asked = {"name": "beside", "kind": "maxrate", "window": 5, "source": {"live": live}}
    answer = server.post("/v1/fits?activate=shadow", json=asked)
    path = answer.headers["Location"]
    assert server.get(path).json()["state"] == "queued"
    assert "input.npz" not in answer.text
    trials()
    job = ended(server, path)
    assert job["state"] == "done", job["detail"]
    assert job["metrics"]["accuracy"] > 0.8
    assert job["activation"].startswith(f"shadow in session '{unique_name}' from bin"), job["activation"]
    shadows = [decoder for decoder in trials()["decoders"] if decoder["role"] == "shadow"]
    assert [(shadow["name"], shadow["model"]["version"]) for shadow in shadows] == [("beside", job["version"])]
    assert job["result"]["training"]["training_samples"] + job["result"]["training"]["held_out_samples"] >= 36


def test_a_session_that_is_not_there_has_no_data(server, unique_name):
    source = {"live": {"session": unique_name, "seconds": 9}}
    answer = server.post("/v1/fits", json={"name": "live", "kind": "maxrate", "source": source})
    assert (answer.status_code, unique_name in answer.json()["detail"]) == (404, True)


def test_a_session_misses_no_bin_while_a_fit_runs(server, endless, unique_name):
    settings = SimulatorSettings(name=unique_name, source_id=unique_name, channel_count=16, nominal_srate=15_000)
    session = {"name": unique_name, "stream": {"name": unique_name}, "classes": ALL, "outlets": {"enabled": False}}
    path = server.post("/v1/sessions", json=session).headers["Location"]

    def status():
        return server.get(f"{path}/status").json()

    with streaming(lambda stop: run(settings, stop=stop)):
        wait_until(lambda: status().get("bins", 0) > 10, "the first bins")
        fit = ask(server, ASKED | {"window": None}, endless)
        running(server, fit)
        begun = status()["bins"]
        wait_until(lambda: status()["bins"] >= begun + 100, "bins beside the fit")
        after = status()
        assert server.get(fit).json()["state"] == "running"
    assert (after["missed_bins"], after["gaps"], after["missing_samples"]) == (0, 0, 0)
    assert after["bins"] == after["seq"]
    server.delete(fit)
    server.delete(path)


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as file:  # dead, and nobody in this container collects it
        return file.read().rpartition(")")[2].split()[0] == "Z"
