"""Decoders out of the registry into a running session, over HTTP, and back."""

import threading

import httpx
import numpy as np
import pytest
from tests.integration.conftest import Source
from tests.integration.models import LEFT, trained, weights
from tests.processes import serving, wait_until, write_config

from neuroloop_client import Client

PATH = "/v1/sessions/swaps/decoder"


def stream(source, stop):
    """Bins of class a, until told to stop."""
    while not stop.wait(0.02):
        source.push(np.tile(LEFT / 1000, (20, 1)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("swaps")


@pytest.fixture(scope="module")
def http(folder):
    """A client of a server whose session answers, with three versions of the model `reach`."""
    name = f"swaps-{folder.name}-{id(folder)}"
    session = {"name": "swaps", "stream": {"source_id": name}, "front_end": {"kind": "counts"}, "window": 5}
    session |= {"classes": ["a", "b"], "outlets": {"enabled": False}}
    source, stop = Source(name), threading.Event()
    thread = threading.Thread(target=stream, args=(source, stop))
    thread.start()
    try:
        with (
            serving(write_config(folder, sessions=[session])) as (url, _),
            httpx.Client(base_url=url, timeout=70) as client,
        ):
            for lessons in (3, 4, 5):
                added = client.post("/v1/models/reach/versions", content=weights(trained(lessons=lessons)))
                assert added.status_code == 201, added.text
            wait_until(lambda: client.get("/v1/sessions/swaps/status").json().get("bins", 0) > 10, "bins")
            yield client
    finally:
        stop.set()
        thread.join()
        source.close()


def test_a_version_is_put_in_and_the_version_before_comes_back(http):
    for version in (1, 2):
        put = http.put(PATH, json={"model": "reach", "version": version})
        assert put.status_code == 200, put.text
    receipt = put.json()
    assert (receipt["previous"]["version"], receipt["current"]["version"]) == (1, 2)
    assert receipt["current"]["digest"] == http.get("/v1/models/reach/versions/2").json()["digest"]
    assert (receipt["missed_bins"], receipt["window_bins"]) == (0, 10)
    shown = http.get("/v1/sessions/swaps/predictions", params={"since": receipt["bin"] - 1, "limit": 1}).json()
    assert [p["model"] for p in shown["predictions"]] == [receipt["current"]]
    assert http.delete("/v1/models/reach/versions/1").status_code == 409  # a rollback would need it
    back = http.post(f"{PATH}/rollback").json()
    assert (back["previous"]["version"], back["current"]["version"]) == (2, 1)


def test_a_session_follows_an_alias(http):
    assert http.put("/v1/models/reach/aliases/champion", json={"version": 1}).json()["swaps"] == []
    assert http.put(PATH, json={"model": "reach", "alias": "champion"}).json()["current"]["version"] == 1
    candidate = {"model": "reach", "alias": "champion", "role": "shadow", "decoder": "twin"}
    assert http.put(PATH, json=candidate).json()["decoder"] == "twin"
    moved = http.put("/v1/models/reach/aliases/champion", json={"version": 3}).json()
    swaps = sorted((swap["session"], swap["role"], swap["current"]["version"]) for swap in moved["swaps"])
    assert swaps == [("swaps", "active", 3), ("swaps", "shadow", 3)]
    assert http.put("/v1/models/reach/aliases/champion", json={"version": 3}).json()["swaps"] == []
    assert http.delete(f"{PATH}/twin").json()["decoder"] == "twin"


@pytest.fixture
def neighbour(http, folder):
    """Another server on the same registry."""
    config = write_config(folder)
    with serving(config) as (url, _), httpx.Client(base_url=url, timeout=70) as client:
        yield client


def active(http):
    return http.get("/v1/sessions/swaps/predictions/latest").json()["model"]


def test_what_a_session_uses_is_not_deleted_on_another_server_until_it_lets_go(http, neighbour):
    assert http.put(PATH, json={"model": "reach", "version": 2, "role": "shadow", "decoder": "twin"}).is_success
    added = [http.post("/v1/models/guest/versions", content=weights(trained(lessons=n))).status_code for n in (6, 7)]
    assert added == [201, 201]
    assert http.put(PATH, json={"model": "guest", "version": 1, "role": "shadow", "decoder": "guest"}).is_success
    refused = neighbour.delete("/v1/models/guest/versions/1")
    assert (refused.status_code, "session 'swaps' of server" in refused.json()["detail"]) == (409, True)
    assert neighbour.delete("/v1/models/guest/versions/2").status_code == 204
    for name in ("guest", "twin"):
        assert http.delete(f"{PATH}/{name}").is_success
    wait_until(lambda: neighbour.delete("/v1/models/guest/versions/1").status_code == 204, "the end of its use")


def test_an_alias_that_is_moved_on_another_server_is_followed_and_undoes_no_rollback(http, neighbour):
    http.put("/v1/models/reach/aliases/shared", json={"version": 1})
    assert http.put(PATH, json={"model": "reach", "alias": "shared"}).json()["current"]["version"] == 1
    assert neighbour.put("/v1/models/reach/aliases/shared", json={"version": 2}).json()["swaps"] == []
    wait_until(lambda: active(http)["version"] == 2, "the exchange")
    assert http.post(f"{PATH}/rollback").json()["current"]["version"] == 1
    wait_until(lambda: active(http)["version"] == 1, "the rollback")
    assert neighbour.put("/v1/models/reach/aliases/shared", json={"version": 3}).is_success
    wait_until(lambda: active(http)["version"] != 1, "the next exchange")
    assert active(http)["version"] == 3
    http.delete("/v1/models/reach/aliases/shared")


def test_a_shadow_is_promoted_and_removed_by_its_name(http):
    assert http.put(PATH, json={"model": "reach", "version": 2, "role": "shadow"}).json()["role"] == "shadow"
    promoted = http.post(f"{PATH}/promote", json={"name": "reach"}).json()
    assert (promoted["decoder"], promoted["current"]["version"]) == ("reach", 2)
    assert http.post(f"{PATH}/rollback").json()["previous"]["version"] == 2
    assert http.delete(f"{PATH}/reach").status_code == 200
    assert http.delete(f"{PATH}/reach").status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("PUT", "", {"model": "reach", "version": 99}, 404, "has no version 99"),
        ("PUT", "", {"model": "reach", "alias": "nobody"}, 404, "no alias 'nobody'"),
        ("PUT", "", {"model": "nothing", "version": 1}, 404, "no model 'nothing'"),
        ("PUT", "", {"model": "reach"}, 422, "give either version or alias"),
        ("PUT", "", {"model": "reach", "version": 1, "alias": "x"}, 422, "give either version or alias"),
        ("PUT", "", {"model": "reach", "version": 1, "state": "warm"}, 422, "state"),
        ("PUT", "", {"model": "wide", "version": 1}, 422, "expected 4 features"),
        ("PUT", "", {"model": "reach", "version": 1, "role": "shadow", "decoder": "decoder"}, 409, "another name"),
        ("POST", "/promote", {"name": "nobody"}, 404, "no shadow 'nobody'"),
        ("DELETE", "/decoder", None, 409, "is the active one"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_reason(http, method, path, body, status, words):
    if body is not None and body.get("model") == "wide":
        http.post("/v1/models/wide/versions", content=weights(trained(features=6)))
    answer = http.request(method, PATH + path, json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]


def test_the_client_exchanges_promotes_and_rolls_back(http):
    with Client(str(http.base_url)) as client:
        first = client.put_decoder("swaps", "reach", version=1)
        assert first["current"]["version"] == 1
        client.put_decoder("swaps", "reach", version=3, role="shadow", decoder="candidate")
        answers = (p for p in client.predictions("swaps", "candidate") if p["role"] == "shadow")
        assert next(answers)["model"]["version"] == 3
        assert client.promote_decoder("swaps", "candidate")["current"]["version"] == 3
        client.roll_back_decoder("swaps")
        wait_until(lambda: client.latest("swaps")["model"]["version"] == 1, "the version before")
        client.remove_shadow("swaps", "candidate")
