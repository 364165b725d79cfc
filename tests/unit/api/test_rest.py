import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
from tests.processes import wait_until

JSON = {"Content-Type": "application/json"}
W = np.array([[0.0, 0.5], [-0.25, 0.0]])


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, W=W, channels=np.array(["a", "b"]))
    return buffer.getvalue()


def assert_problem(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "instance"}
    assert problem["status"] == status
    assert problem["instance"] == response.request.url.path
    for word in words:
        assert word in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/nowhere", "", 404, ["/nowhere"]),
        ("DELETE", "/v1/info", "", 405, ["DELETE"]),
        ("GET", "/v1/sessions/nobody", "", 404, ["nobody", "demo"]),
        ("GET", "/v1/sessions/nobody/status", "", 404, ["nobody"]),
        ("GET", "/v1/streams?timeout=99", "", 422, ["timeout", "99"]),
        ("GET", "/v1/sessions/demo/predictions?limit=no", "", 422, ["limit", "'no'"]),
        ("GET", "/v1/sessions/demo/predictions/latest?model=nobody", "", 404, ["nobody"]),
        ("GET", "/v1/sessions/demo/rereference/weights?format=pickle", "", 422, ["format", "pickle"]),
        ("GET", "/v1/sessions/demo/rereference/weights?version=99", "", 404, ["99"]),
        ("GET", f"/v1/sessions/demo/rereference/weights?version={2**64}", "", 422, ["version"]),
        ("GET", "/v1/sessions/demo/rereference/fits/nothing", "", 404, ["nothing"]),
        ("POST", "/v1/sessions", '{"name": "x', 400, ["not JSON"]),
        ("POST", "/v1/sessions", "[1, 2]", 422, ["valid dictionary"]),
        ("POST", "/v1/sessions", "[" * 100_000, 400, []),
        ("POST", "/v1/sessions", '{"name": "a", "stream": {"name": "s"}, "classes": ["l", "l"]}', 422, ["classes"]),
        (
            "POST",
            "/v1/sessions",
            '{"name": "a b", "stream": {"name": "s", "nam": 1}, "classes": ["l", "r"], "front_end": {"kind": "eeg"}}',
            422,
            ["name:", "stream.nam: unknown key", "front_end:"],
        ),
        ("POST", "/v1/sessions/demo/labels", "{}", 422, ["label"]),
        ("POST", "/v1/sessions/demo/labels", '{"label": "up"}', 422, ["'up' is no class"]),
        ("POST", "/v1/sessions/demo/labels", '{"label": "left", "start": NaN}', 422, ["start", "finite"]),
        ("POST", "/v1/sessions/demo/labels", '{"label": "left", "begin": 1}', 422, ["begin", "unknown key"]),
        ("POST", "/v1/sessions/demo/start", "", 409, ["running already"]),
        ("PATCH", "/v1/sessions/demo/rereference", "{}", 422, ["at least one"]),
        ("PATCH", "/v1/sessions/demo/rereference", '{"mode": "thawed"}', 422, ["mode", "thawed"]),
        ("PATCH", "/v1/sessions/demo/rereference", '{"half_life_s": -1}', 422, ["half_life_s"]),
        ("POST", "/v1/sessions/demo/rereference/fit", '{"seconds": 0}', 422, ["seconds"]),
        ("PUT", "/v1/sessions/demo/rereference", "0,1\n1,0\n1,1\n", 422, ["(2, 2)", "(3, 2)"]),
        ("PUT", "/v1/sessions/demo/rereference", "0,one\n1,0\n", 422, ["row 1"]),
    ],
)
def test_every_refusal_is_a_problem_document_that_names_the_fault(
    http: httpx.Client, method: str, path: str, body: str, status: int, words: list[str]
) -> None:
    assert_problem(http.request(method, path, content=body, headers=JSON if body else {}), status, *words)


def test_a_method_that_is_not_for_a_path_is_told_which_are(http: httpx.Client) -> None:
    answer = http.put("/v1/sessions")
    assert_problem(answer, 405, "GET, POST")
    assert answer.headers["Allow"] == "GET, POST"


def test_the_server_says_that_it_lives_is_ready_and_what_it_is(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}
    first, second = (http.get("/v1/info").json() for _ in range(2))
    assert first["engine"] == "local"
    assert first["clock"] < second["clock"]
    label = http.get("/openapi.json").json()["paths"]["/v1/sessions/{session}/labels"]["post"]
    assert "application/problem+json" in label["responses"]["default"]["content"]


def test_a_session_is_created_found_and_deleted(
    http: httpx.Client, unique_name: str, session_settings: Callable[..., dict[str, Any]]
) -> None:
    created = http.post("/v1/sessions", json=session_settings(unique_name))
    assert created.status_code == 201
    assert created.json()["settings"]["stream"]["name"] == f"{unique_name}-stream"
    assert created.headers["Location"] == f"/v1/sessions/{unique_name}"
    assert unique_name in [session["name"] for session in http.get("/v1/sessions").json()]
    assert http.delete(created.headers["Location"]).status_code == 204
    assert_problem(http.get(created.headers["Location"]), 404, unique_name)


def test_a_name_belongs_to_one_session_and_is_free_after_its_end(
    http: httpx.Client, new_session: str, session_settings: Callable[..., dict[str, Any]]
) -> None:
    again = session_settings(new_session)
    assert_problem(http.post("/v1/sessions", json=again), 409, new_session, "exists already")
    assert http.delete(f"/v1/sessions/{new_session}").status_code == 204
    assert http.post("/v1/sessions", json=again).status_code == 201


def test_a_session_that_is_stopped_says_so_at_once_and_starts_again(http: httpx.Client, new_session: str) -> None:
    path = f"/v1/sessions/{new_session}"
    assert http.post(f"{path}/stop").json() == {"state": "stopped"}
    assert http.get(path).json()["state"] == "stopped"
    assert_problem(http.post(f"{path}/stop"), 409, "stopped already")
    assert http.post(f"{path}/start").json() == {"state": "running"}
    assert [event["event"] for event in http.get(f"{path}/events").json()["events"]][-1] == "session_running"


def test_a_label_is_passed_on_with_its_times(http: httpx.Client) -> None:
    label = {"label": "left", "start": 10.25, "end": 11.0}
    assert http.post("/v1/sessions/demo/labels", json=label).json() == label | {"state": "learned", "bins": 3}


def test_predictions_are_there_for_those_who_ask_later(http: httpx.Client) -> None:
    path = "/v1/sessions/demo/predictions"
    wait_until(lambda: len(http.get(path).json()["predictions"]) > 10)
    oldest = http.get(path).json()["oldest_seq"]
    latest = http.get(f"{path}/latest").json()
    assert latest["role"] == "active"
    assert latest["scores"] == [1.0, None]
    body = http.get(path, params={"since": oldest, "limit": 3}).json()
    assert [(p["seq"], p["role"]) for p in body["predictions"]] == [
        (oldest + bins, role) for bins in (1, 2, 3) for role in ("active", "shadow")
    ]
    assert body["newest_seq"] >= latest["seq"]


@pytest.mark.parametrize("data", [npz(), b"0,0.5\n-0.25,0\n", safetensors.numpy.save({"W": W})])
def test_uploaded_weights_come_back_in_every_format(http: httpx.Client, new_session: str, data: bytes) -> None:
    path = f"/v1/sessions/{new_session}/rereference"
    loaded = http.put(path, content=data).json()
    assert loaded["version"] == 1
    as_csv = http.get(f"{path}/weights", params={"version": 1})
    assert np.array_equal(np.loadtxt(io.BytesIO(as_csv.content), delimiter=","), W)
    assert f"{new_session}-rereference-1.csv" in as_csv.headers["Content-Disposition"]
    archive = np.load(io.BytesIO(http.get(f"{path}/weights", params={"format": "npz"}).content))
    assert np.array_equal(archive["W"], W)
    assert archive["channels"].tolist() == ["a", "b"]
    tensors = safetensors.numpy.load(http.get(f"{path}/weights", params={"format": "safetensors"}).content)
    assert np.array_equal(tensors["W"], W)


def test_weights_come_in_a_form_too_and_a_form_without_a_file_is_refused(http: httpx.Client, new_session: str) -> None:
    path = f"/v1/sessions/{new_session}/rereference"
    assert http.put(path, files={"file": ("w.npz", npz())}).json()["channels"] == ["a", "b"]
    assert_problem(http.put(path, files={"file": (None, "text")}), 400, "no file")


def test_a_refused_upload_changes_nothing(http: httpx.Client, new_session: str) -> None:
    path = f"/v1/sessions/{new_session}/rereference"
    before = http.get(path).json()
    assert_problem(http.put(path, content=b"0,1,2\n"), 422, "expected (2, 2)")
    assert http.get(path).json() == before


def test_the_mode_changes_and_a_number_that_is_not_finite_is_null(http: httpx.Client, new_session: str) -> None:
    path = f"/v1/sessions/{new_session}/rereference"
    changed = http.patch(path, json={"mode": "forgetting", "half_life_s": 5}).json()
    assert (changed["mode"], changed["half_life_s"], changed["ridge"]) == ("forgetting", 5, 1e-3)
    assert changed["condition"] is None


@pytest.mark.parametrize(("seconds", "state"), [(5, "done"), (1000, "running"), (2000, "failed")])
def test_a_fit_has_a_page_that_says_how_it_goes(
    http: httpx.Client,
    new_session: str,
    seconds: float,
    state: str,
) -> None:
    begun = http.post(f"/v1/sessions/{new_session}/rereference/fit", json={"seconds": seconds})
    assert begun.status_code == 202
    wait_until(lambda: http.get(begun.headers["Location"]).json()["state"] == state)
    assert http.get(begun.headers["Location"]).json()["fit"] == "fit-1"


def test_a_session_process_that_dies_is_seen_everywhere(http: httpx.Client, new_session: str) -> None:
    path = f"/v1/sessions/{new_session}"
    assert_problem(http.post(f"{path}/labels", json={"label": "die"}), 503, "exit code 3", "no more samples")
    status = http.get(f"{path}/status").json()
    assert (status["state"], status["session"]) == ("failed", new_session)
    assert "exit code 3" in status["detail"]
    event = http.get(f"{path}/events").json()["events"][-1]
    assert (event["event"], event["exit_code"]) == ("session_failed", 3)
    assert http.get(path).json()["state"] == "failed"
    assert_problem(http.get("/readyz"), 503, f"session '{new_session}' is failed")
    assert http.get("/v1/sessions/demo/status").json()["state"] == "running"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "[::2]:80"])
def test_another_host_name_is_refused(http: httpx.Client, host: str) -> None:
    assert_problem(http.get("/healthz", headers={"Host": host}), 403, "Host")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_site_may_look_but_change_nothing(http: httpx.Client, origin: str) -> None:
    assert http.get("/healthz", headers={"Origin": origin}).is_success
    assert_problem(http.post("/v1/sessions/demo/stop", headers={"Origin": origin}), 403, origin)
    own = str(http.base_url).rstrip("/")
    assert http.post("/v1/sessions/demo/labels", json={"label": "left"}, headers={"Origin": own}).is_success


def test_a_body_without_end_is_refused(http: httpx.Client) -> None:
    endless = (bytes(2**20) for _ in range(65))
    assert_problem(http.put("/v1/sessions/demo/rereference", content=endless), 413, "64 MiB")
