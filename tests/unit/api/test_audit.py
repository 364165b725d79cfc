import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.processes import wait_until
from websockets.sync.client import connect

from neuroloop.api import audit
from neuroloop.api.audit import AuditLog
from neuroloop.tokens import TokenFile

Serve = Callable[..., Any]


@pytest.fixture
def entries(running_server: Serve, session_settings: Serve, tmp_path: Path) -> list[dict[str, Any]]:
    """What is left of a few requests by three people."""
    tokens = TokenFile(tmp_path)
    admin, viewer = ({"Authorization": f"Bearer {tokens.create(role, role)}"} for role in ("admin", "viewer"))
    with running_server(session_settings("b"), folder=str(tmp_path)) as (url, _), httpx.Client(base_url=url) as http:
        wait_until(lambda: http.get("/readyz").is_success)
        settings = {"name": "a", "stream": {"name": "s"}, "classes": ["l", "r"]}
        http.get("/v1/sessions", headers=admin)
        http.post("/v1/sessions", json=settings, headers=admin | {"X-Request-Id": "experiment-7"})
        http.delete("/v1/sessions/a", headers=viewer)
        http.post("/v1/sessions/a/stop")
        for who in (viewer, admin):
            with connect(f"ws{url.removeprefix('http')}/v1/sessions/b/stream", additional_headers=who) as stream:
                for message in ("ping", "label"):
                    stream.send(json.dumps({"type": message, "label": "left", "id": message}))
                    while json.loads(stream.recv(timeout=10)).get("id") != message:
                        continue
        http.post("/v1/sessions/nobody/stop", headers=admin)
        answer = http.get("/v1/audit", headers=admin)
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


def test_what_changed_something_or_was_refused_is_in_the_log_with_who_did_it(entries: list[dict[str, Any]]) -> None:
    assert [(e["user"], e["role"], e["method"], e["path"], e["status"]) for e in entries] == [
        ("admin", "admin", "POST", "/v1/sessions", 201),
        ("viewer", "viewer", "DELETE", "/v1/sessions/a", 403),
        (None, None, "POST", "/v1/sessions/a/stop", 401),
        ("viewer", "viewer", "WS", "/v1/sessions/b/stream", 101),
        ("viewer", "viewer", "WS", "/v1/sessions/b/stream", 403),
        ("admin", "admin", "WS", "/v1/sessions/b/stream", 101),
        ("admin", "admin", "WS", "/v1/sessions/b/stream", 200),
        ("admin", "admin", "POST", "/v1/sessions/nobody/stop", 404),
    ]
    assert entries[0]["request_id"] == "experiment-7"
    assert len({entry["request_id"] for entry in entries}) == 6
    assert [entry["label"] for entry in entries if entry.get("reply") == "label_accepted"] == ["left"]
    assert {entry["client"] for entry in entries} == {"127.0.0.1"}
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "{}"])
def test_every_answer_carries_a_request_id_and_no_nonsense_of_the_caller(http: httpx.Client, given: str) -> None:
    found = http.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert len(found) == 32
    assert http.get("/healthz", headers={"X-Request-Id": "a-1"}).headers["X-Request-Id"] == "a-1"
    assert http.get("/nowhere", headers={"Host": "evil.example"}).headers["X-Request-Id"]


def test_the_log_is_bounded_on_disk_and_the_newest_entries_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "FILE_BYTES", 2000)
    log = AuditLog(tmp_path)
    log.start()
    for number in range(500):
        log.record(number=number)
    log.close()
    kept = [entry["number"] for entry in log.last(20)]
    assert kept == list(range(480, 500))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3 * 2000


def test_a_disk_that_takes_nothing_is_not_waited_for_and_what_is_missing_is_said(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.start()
    log.path.mkdir()
    log.record(number=1)
    log.record(number=2)
    while log._missing < 2:
        pass
    log.path.rmdir()
    log.record(number=3)
    log.close()
    assert [json.loads(line) | {"time": 0} for line in log.path.read_text().splitlines()] == [
        {"time": 0, "number": 3, "missing_before": 2}
    ]


def test_the_id_of_a_request_or_a_stream_goes_with_its_commands_to_the_session(
    http: httpx.Client, new_session: str, server_url: str
) -> None:
    http.post(f"/v1/sessions/{new_session}/labels", json={"label": "left"}, headers={"X-Request-Id": "trial-12"})
    url = f"ws{server_url.removeprefix('http')}/v1/sessions/{new_session}/stream?topics=events"
    with connect(url, additional_headers={"X-Request-Id": "game-3"}) as stream:
        stream.send(json.dumps({"type": "label", "label": "right"}))

        def learned() -> list[tuple[str, str]]:
            events = http.get(f"/v1/sessions/{new_session}/events").json()["events"]
            return [(e["label"], e["request_id"]) for e in events if e["event"] == "label_learned"]

        wait_until(lambda: len(learned()) == 2)
    assert learned() == [("left", "trial-12"), ("right", "game-3")]
