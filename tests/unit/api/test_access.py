"""Who may do what, from the route table itself."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.processes import wait_until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from neuroloop.api.app import create_app
from neuroloop.server_config import parse
from neuroloop.tokens import ROLES, TokenFile
from neuroloop_client import Client, NeuroloopClientError

Serve = Callable[..., Any]
EVERYBODY = "everybody"

NEEDS = {
    "GET /healthz": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /metrics": "viewer",
    "GET /v1/info": "viewer",
    "GET /v1/streams": "viewer",
    "GET /v1/schema/messages.json": "viewer",
    "GET /v1/schema/asyncapi.json": "viewer",
    "GET /v1/audit": "admin",
    "GET /v1/fits": "viewer",
    "POST /v1/fits": "operator",
    "GET /v1/fits/{fit}": "viewer",
    "DELETE /v1/fits/{fit}": "operator",
    "POST /v1/fits/{fit}/resume": "operator",
    "GET /v1/models": "viewer",
    "POST /v1/models": "operator",
    "GET /v1/models/{model}": "viewer",
    "DELETE /v1/models/{model}": "operator",
    "GET /v1/models/{model}/versions": "viewer",
    "POST /v1/models/{model}/versions": "operator",
    "GET /v1/models/{model}/versions/{version}": "viewer",
    "DELETE /v1/models/{model}/versions/{version}": "operator",
    "GET /v1/models/{model}/versions/{version}/weights": "viewer",
    "GET /v1/models/{model}/aliases/{alias}": "viewer",
    "PUT /v1/models/{model}/aliases/{alias}": "operator",
    "DELETE /v1/models/{model}/aliases/{alias}": "operator",
    "GET /v2/health/live": "viewer",
    "GET /v2/health/ready": "viewer",
    "GET /v2": "viewer",
    "GET /v2/models/{model}": "viewer",
    "GET /v2/models/{model}/versions/{version}": "viewer",
    "GET /v2/models/{model}/ready": "viewer",
    "GET /v2/models/{model}/versions/{version}/ready": "viewer",
    "POST /v2/models/{model}/infer": "viewer",
    "POST /v2/models/{model}/versions/{version}/infer": "viewer",
    "POST /v2/repository/index": "viewer",
    "POST /v2/repository/models/{model}/load": "operator",
    "POST /v2/repository/models/{model}/unload": "operator",
    "GET /v1/recordings": "viewer",
    "GET /v1/recordings/{recording}": "viewer",
    "GET /v1/recordings/{recording}/description": "viewer",
    "DELETE /v1/recordings/{recording}": "operator",
    "GET /v1/sessions": "viewer",
    "POST /v1/sessions": "admin",
    "GET /v1/sessions/{session}": "viewer",
    "DELETE /v1/sessions/{session}": "admin",
    "POST /v1/sessions/{session}/start": "operator",
    "POST /v1/sessions/{session}/stop": "operator",
    "GET /v1/sessions/{session}/status": "viewer",
    "GET /v1/sessions/{session}/events": "viewer",
    "POST /v1/sessions/{session}/labels": "operator",
    "POST /v1/sessions/{session}/recording/start": "operator",
    "POST /v1/sessions/{session}/recording/stop": "operator",
    "POST /v1/sessions/{session}/recording/annotations": "operator",
    "GET /v1/sessions/{session}/predictions": "viewer",
    "GET /v1/sessions/{session}/predictions/latest": "viewer",
    "PUT /v1/sessions/{session}/decoder": "operator",
    "POST /v1/sessions/{session}/decoder/rollback": "operator",
    "POST /v1/sessions/{session}/decoder/promote": "operator",
    "DELETE /v1/sessions/{session}/decoder/{name}": "operator",
    "PUT /v1/sessions/{session}/encoder": "operator",
    "POST /v1/sessions/{session}/encoder/rollback": "operator",
    "POST /v1/sessions/{session}/encoder/promote": "operator",
    "DELETE /v1/sessions/{session}/encoder/{name}": "operator",
    "GET /v1/sessions/{session}/rereference": "viewer",
    "PUT /v1/sessions/{session}/rereference": "operator",
    "PATCH /v1/sessions/{session}/rereference": "operator",
    "POST /v1/sessions/{session}/rereference/fit": "operator",
    "GET /v1/sessions/{session}/rereference/fits/{fit_id}": "viewer",
    "GET /v1/sessions/{session}/rereference/weights": "viewer",
}
"""What everybody agreed on. A new route fails the test below until it has a line here."""


def route_table() -> list[str]:
    paths = create_app(parse({})).openapi()["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def tokens(folder: Path) -> dict[str, str]:
    file = TokenFile(folder)
    return {role: file.create(f"{role}-1", role) for role in ROLES}


@pytest.fixture(scope="module")
def guarded(tokens: dict[str, str], folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server with a token of each role."""
    from .conftest import serve, settings_of

    with serve(settings_of("demo"), folder=str(folder)) as (url, _):
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success)
        yield url


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_every_route_has_a_role() -> None:
    assert set(route_table()) == set(NEEDS)


@pytest.mark.parametrize("route", route_table())
def test_a_route_takes_its_role_and_those_above_it_and_no_other(
    guarded: str, tokens: dict[str, str], route: str
) -> None:
    method, path = route.split()
    url = guarded + path.replace("{session}", "nobody").replace("{", "").replace("}", "")
    url += "?timeout=0" if path == "/v1/streams" else ""
    needed = NEEDS[route]
    unknown = httpx.request(method, url, headers=bearer("nl_nonsense"))
    without = httpx.request(method, url)
    assert [without.status_code == 401, unknown.status_code == 401] == 2 * [needed != EVERYBODY]
    for role, token in tokens.items():
        answer = httpx.request(method, url, headers=bearer(token), json={} if method in {"POST", "PATCH"} else None)
        allowed = needed == EVERYBODY or ROLES.index(role) >= ROLES.index(needed)
        assert answer.status_code != 401
        assert (answer.status_code == 403) is not allowed, (role, answer.text)


def test_a_refusal_is_a_problem_that_says_what_to_do(guarded: str, tokens: dict[str, str]) -> None:
    without = httpx.get(f"{guarded}/v1/sessions")
    assert without.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer" in without.json()["detail"]
    below = httpx.delete(f"{guarded}/v1/sessions/demo", headers=bearer(tokens["operator"]))
    assert below.headers["Content-Type"] == "application/problem+json"
    assert "needs the role admin; the token 'operator-1' has the role operator" in below.json()["detail"]
    assert httpx.get(f"{guarded}/v1/sessions/demo", headers=bearer(tokens["viewer"])).is_success


def test_a_body_is_not_read_of_somebody_unknown(guarded: str) -> None:
    host, port = guarded.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        head = f"PUT /v1/sessions/demo/rereference HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(64).startswith(b"HTTP/1.1 401")


def stream_url(address: str) -> str:
    return f"ws{address.removeprefix('http')}/v1/sessions/demo/stream"


def test_a_stream_needs_a_token_in_a_header_or_as_a_subprotocol(guarded: str, tokens: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refusal, connect(stream_url(guarded)):
        pass
    assert refusal.value.response.status_code == 401
    with connect(stream_url(guarded), additional_headers=bearer(tokens["viewer"])) as stream:
        assert json.loads(stream.recv(timeout=10))["type"] == "prediction"
    offered: Any = ["neuroloop", f"bearer.{tokens['viewer']}"]
    with connect(stream_url(guarded), subprotocols=offered) as stream:
        assert stream.subprotocol == "neuroloop"
        assert json.loads(stream.recv(timeout=10))["type"] == "prediction"


def test_a_viewer_may_look_at_a_stream_and_send_no_label(guarded: str, tokens: dict[str, str]) -> None:
    answers = {}
    for role in ("viewer", "operator"):
        with connect(f"{stream_url(guarded)}?topics=events", additional_headers=bearer(tokens[role])) as stream:
            stream.send(json.dumps({"type": "label", "label": "left", "id": 7}))
            messages = (json.loads(stream.recv(timeout=10)) for _ in range(2))
            answers[role] = next(message for message in messages if message["type"] != "event")
    assert (answers["viewer"]["type"], answers["viewer"]["status"], answers["viewer"]["id"]) == ("error", 403, 7)
    assert answers["operator"]["type"] == "label_accepted"


def test_the_client_sends_its_token_with_requests_and_streams(guarded: str, tokens: dict[str, str]) -> None:
    with Client(guarded) as stranger, pytest.raises(NeuroloopClientError, match="needs a token"):
        stranger.sessions()
    with Client(guarded, token=tokens["viewer"]) as client, client.stream("demo") as stream:
        assert [session["name"] for session in client.sessions()] == ["demo"]
        assert next(stream)["type"] == "prediction"


def test_the_first_token_closes_a_running_server_and_revoking_it_opens_nothing(
    running_server: Serve, tmp_path: Path
) -> None:
    file = TokenFile(tmp_path)
    with running_server(folder=str(tmp_path)) as (url, _):
        assert httpx.get(f"{url}/v1/sessions").is_success
        text = file.create("ann", "viewer")
        assert httpx.get(f"{url}/v1/sessions").status_code == 401
        assert httpx.get(f"{url}/v1/sessions", headers=bearer(text)).is_success
        file.revoke("ann")
        assert httpx.get(f"{url}/v1/sessions").status_code == 401
        assert httpx.get(f"{url}/v1/sessions", headers=bearer(text)).status_code == 401


def test_a_spoilt_file_of_tokens_lets_nobody_in(running_server: Serve, tmp_path: Path) -> None:
    TokenFile(tmp_path).create("ann", "viewer")
    with running_server(folder=str(tmp_path)) as (url, _):
        (tmp_path / "tokens.json").write_text("{")
        answer = httpx.get(f"{url}/v1/sessions")
        assert answer.status_code == 503
        assert "no file of tokens" in answer.json()["detail"]
        assert httpx.get(f"{url}/healthz").is_success


def test_beyond_loopback_a_server_without_tokens_does_not_start(running_server: Serve, tmp_path: Path) -> None:
    with running_server(folder=str(tmp_path), host="0.0.0.0") as (url, process):
        assert process.wait(10) != 0
        error = process.stderr.read()
    assert url == ""
    assert error.count("\n") == 1
    assert "neuroloop token create" in error


def test_beyond_loopback_every_request_needs_a_token(running_server: Serve, tmp_path: Path) -> None:
    text = TokenFile(tmp_path).create("ann", "viewer")
    with running_server(folder=str(tmp_path), host="0.0.0.0") as (url, _):
        url = url.replace("0.0.0.0", "127.0.0.1")
        named = {"Host": "lab.example:8765"}
        assert httpx.get(f"{url}/v1/info", headers=named).status_code == 401
        assert httpx.get(f"{url}/v1/info", headers=named | bearer(text)).is_success
        foreign = named | bearer(text) | {"Origin": "http://evil.example"}
        assert httpx.post(f"{url}/v1/sessions", headers=foreign, json={}).status_code == 403


def test_a_name_of_the_configuration_is_taken_as_host_and_as_origin(running_server: Serve, tmp_path: Path) -> None:
    with running_server(folder=str(tmp_path), host_names=["Lab.example"]) as (url, _):
        headers = {"Host": "lab.example", "Origin": "https://lab.example"}
        assert httpx.post(f"{url}/v1/sessions/x/stop", headers=headers).status_code == 404
        assert httpx.get(f"{url}/v1/info", headers={"Host": "evil.example"}).status_code == 403
