"""Encoders out of the registry into a running session, over HTTP, and back."""

import asyncio
import json
import threading

import httpx
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from tests.integration.conftest import Source
from tests.integration.models import bank, weights
from tests.processes import serving, wait_until, write_config
from typer.testing import CliRunner

from neuroloop.cli import app as cli
from neuroloop_client import AsyncClient, Client

PATH = "/v1/sessions/vision/encoder"


def stream(counts, movie, stop):
    """Spikes of four channels at 1 kHz and frames of 2 x 2 pixels at 100 Hz, until told to stop."""
    generator = np.random.default_rng(1)
    while not stop.wait(0.02):
        counts.push(generator.poisson(0.02, (20, 4)).astype(np.float32))
        movie.push(generator.standard_normal((2, 4)).astype(np.float32))


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    """A client of a server with a session that has a stimulus and one that has none, and three versions of `retina`."""
    folder = tmp_path_factory.mktemp("vision")
    name = f"vision-{folder.name}-{id(folder)}"
    common = {"front_end": {"kind": "counts"}, "classes": ["a", "b"], "outlets": {"enabled": False}, "window": 5}
    common |= {"stream": {"source_id": name}}
    stimulus = {"source_id": f"{name}-movie", "frame": [1, 2, 2]}
    sessions = [{"name": "vision", "stimulus": stimulus} | common, {"name": "blind"} | common]
    counts, movie = Source(name), Source(f"{name}-movie", 4, 100.0)
    stop = threading.Event()
    thread = threading.Thread(target=stream, args=(counts, movie, stop))
    thread.start()
    try:
        with (
            serving(write_config(folder, sessions=sessions)) as (url, _),
            httpx.Client(base_url=url, timeout=70) as client,
        ):
            for gain in (1.0, 2.0, 3.0):
                added = client.post("/v1/models/retina/versions", content=bank(gain=gain).save())
                assert added.status_code == 201, added.text
            wait_until(lambda: (status(client).get("stimulus") or {}).get("kept_bins", 0) > 10, "frames")
            wait_until(lambda: status(client, "blind").get("bins", 0) > 10, "bins")
            yield client
            assert status(client)["missed_bins"] == 0
    finally:
        stop.set()
        thread.join()
        counts.close()
        movie.close()


def ended(client, path):
    """The fit job, when it has ended."""
    return wait_until(lambda: (job := client.get(path).json())["state"] in ("done", "failed") and job, "the fit's end")


def status(client, session="vision"):
    return client.get(f"/v1/sessions/{session}/status").json()


def test_a_version_is_put_in_and_the_version_before_comes_back(http):
    for version in (1, 2):
        put = http.put(PATH, json={"model": "retina", "version": version})
        assert put.status_code == 200, put.text
    receipt = put.json()
    assert (receipt["previous"]["version"], receipt["current"]["version"]) == (1, 2)
    assert receipt["current"]["digest"] == http.get("/v1/models/retina/versions/2").json()["digest"]
    assert (receipt["missed_bins"], receipt["window_bins"], receipt["encoder"]) == (0, 10, "retina")
    (encoder,) = status(http)["encoders"]
    assert encoder["model"]["version"] == 2
    assert http.delete("/v1/models/retina/versions/1").status_code == 409  # a rollback would need it
    assert "session 'vision'" in http.delete("/v1/models/retina/versions/2").json()["detail"]
    back = http.post(f"{PATH}/rollback").json()
    assert (back["previous"]["version"], back["current"]["version"]) == (2, 1)


def test_a_session_follows_an_alias(http):
    assert http.put("/v1/models/retina/aliases/champion", json={"version": 1}).json()["swaps"] == []
    assert http.put(PATH, json={"model": "retina", "alias": "champion"}).json()["current"]["version"] == 1
    twin = {"model": "retina", "alias": "champion", "role": "shadow", "encoder": "twin"}
    assert http.put(PATH, json=twin).json()["encoder"] == "twin"
    moved = http.put("/v1/models/retina/aliases/champion", json={"version": 3}).json()
    swaps = sorted((swap["session"], swap["encoder"], swap["current"]["version"]) for swap in moved["swaps"])
    assert swaps == [("vision", "retina", 3), ("vision", "twin", 3)]
    assert http.delete(f"{PATH}/twin").json()["encoder"] == "twin"
    assert http.delete("/v1/models/retina/aliases/champion").status_code == 204


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "words"),
    [
        ("PUT", "", {"model": "retina", "version": 99}, 404, "has no version 99"),
        ("PUT", "", {"model": "retina"}, 422, "give either version or alias"),
        ("PUT", "", {"model": "retina", "version": 1, "state": "cold"}, 422, "state: unknown key"),
        ("PUT", "", {"model": "wide", "version": 1}, 422, "expected frames of 4 values"),
        ("PUT", "", {"model": "foreign", "version": 1}, 422, "these are none: x9"),
        ("PUT", "", {"model": "reach", "version": 1}, 422, "expected an encoder (kind 'lnp')"),
        ("PUT", "", {"model": "retina", "version": 1, "role": "shadow", "encoder": "retina"}, 409, "another name"),
        ("POST", "/promote", {"name": "nobody"}, 404, "no shadow 'nobody'"),
        ("POST", "/promote", {"name": "retina"}, 409, "is the active one"),
        ("POST", "/promote", {}, 422, "name"),
        ("DELETE", "/nobody", None, 404, "no shadow 'nobody'"),
        ("DELETE", "/retina", None, 409, "is the active one"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_reason(http, method, path, body, code, words):
    assert http.put(PATH, json={"model": "retina", "version": 1}).status_code == 200
    others = {"wide": bank(frame=(1, 3, 3)).save(), "foreign": bank(cells=("c0", "x9")).save(), "reach": weights()}
    if body is not None and body.get("model") in others:
        assert http.post(f"/v1/models/{body['model']}/versions", content=others[body["model"]]).status_code == 201
    before = status(http)["encoders"][0]["model"]
    answer = http.request(method, PATH + path, json=body)
    assert answer.status_code == code, answer.text
    assert words in answer.json()["detail"]
    assert status(http)["encoders"][0]["model"] == before


def test_a_session_without_a_stimulus_says_what_to_configure(http):
    answer = http.put("/v1/sessions/blind/encoder", json={"model": "retina", "version": 1})
    assert answer.status_code == 409
    assert "add `stimulus` to its configuration" in answer.json()["detail"]
    assert http.post("/v1/sessions/blind/encoder/rollback").status_code == 409


def test_an_encoder_is_fitted_from_the_session_and_used_in_it(http):
    live = {"session": "vision", "seconds": 2, "from": "next"}
    asked = {"name": "fitted", "kind": "lnp", "settings": {"lags": 3}, "source": {"live": live}}
    early = http.post("/v1/fits?activate=active", json=asked | {"source": {"live": live | {"session": "blind"}}})
    job = ended(http, early.headers["Location"])
    assert (job["state"], "has no stimulus" in job["detail"]) == ("failed", True)
    answer = http.post("/v1/fits?activate=shadow", json=asked)
    assert answer.status_code == 202, answer.text
    job = ended(http, answer.headers["Location"])
    assert job["state"] == "done", job["detail"]
    assert job["activation"].startswith("shadow in session 'vision' from bin"), job["activation"]
    assert job["result"]["cells"] == ["c0", "c1", "c2", "c3"]
    assert job["result"]["frame"] == [1, 2, 2]
    amounts = job["result"]["training"]
    assert 96 <= amounts["training_samples"] + amounts["held_out_samples"] <= 120
    (shadow,) = [encoder for encoder in status(http)["encoders"] if encoder["role"] == "shadow"]
    assert (shadow["name"], shadow["model"]["version"]) == ("fitted", job["version"])
    assert http.delete(f"/v1/models/fitted/versions/{job['version']}").status_code == 409
    assert http.delete(f"{PATH}/fitted").status_code == 200
    assert http.delete(f"/v1/models/fitted/versions/{job['version']}").status_code == 204


def test_messages_are_of_the_schema_and_come_for_every_bin(http):
    schema = http.get("/v1/schema/messages.json").json()
    validator = Draft202012Validator(schema)
    with Client(str(http.base_url)) as client, client.stream("vision", ["encoders"], format="json") as results:
        client.put_encoder("vision", "retina", version=2)
        messages = [next(results) for _ in range(60)]
    for message in messages:
        validator.validate(json.loads(json.dumps(message)))
    assert {message["type"] for message in messages} == {"encoder"}
    seqs = [message["seq"] for message in messages]
    assert seqs == list(range(seqs[0], seqs[0] + 60))
    assert messages[-1]["model"]["version"] == 2
    assert all(score is not None for score in messages[-1]["correlation"])


def test_both_clients_exchange_promote_roll_back_and_remove(http):
    url = str(http.base_url)
    with Client(url) as client:
        client.put_encoder("vision", "retina", version=1)
        client.put_encoder("vision", "retina", version=3, role="shadow", encoder="candidate")
        with client.live("vision", ["encoders"]) as results:
            assert next(m for m in results if m["encoder"] == "candidate")["model"]["version"] == 3
        assert client.remove_shadow_encoder("vision", "candidate")["encoder"] == "candidate"

    async def exchange():
        async with AsyncClient(url) as client:
            await client.put_encoder("vision", "retina", version=2, role="shadow", encoder="candidate")
            promoted = await client.promote_encoder("vision", "candidate")
            back = await client.roll_back_encoder("vision")
            await client.remove_shadow_encoder("vision", "candidate")
            return [receipt["current"]["version"] for receipt in (promoted, back)]

    assert asyncio.run(exchange()) == [2, 1]


def test_the_command_exchanges_promotes_rolls_back_and_removes(http):
    def told(*arguments):
        result = CliRunner().invoke(cli, ["encoders", *arguments, "--server", str(http.base_url)])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert told("swap", "vision", "retina", "--version", "1")["current"]["version"] == 1
    shadow = ("swap", "vision", "retina", "--version", "3", "--role", "shadow", "--encoder", "candidate")
    assert told(*shadow)["encoder"] == "candidate"
    assert told("promote", "vision", "candidate")["current"]["version"] == 3
    assert told("rollback", "vision")["current"]["version"] == 1
    assert told("remove", "vision", "candidate")["model"]["version"] == 3
    last = [entry["path"] for entry in http.get("/v1/audit", params={"limit": 5}).json()["entries"]]
    assert [path.removeprefix(PATH) for path in last] == ["", "", "/promote", "/rollback", "/candidate"]
