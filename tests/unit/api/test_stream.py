import json
import socket
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.processes import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

Open = Callable[..., ClientConnection]
Map = dict[str, Any]


def receive(connection: ClientConnection) -> Map:
    message = connection.recv(timeout=10)
    content: Map = json.loads(message) if isinstance(message, str) else msgpack.unpackb(message)
    return content


def until(connection: ClientConnection, kind: str) -> Map:
    while (message := receive(connection))["type"] != kind:
        continue
    return message


def test_predictions_come_as_json_unless_asked_otherwise(open_stream: Open) -> None:
    message = json.loads(open_stream("demo").recv(timeout=10))
    assert message["type"] == "prediction"
    assert message["scores"] == [1.0, None]


def test_every_bin_comes_once_for_each_decoder_in_messagepack(open_stream: Open) -> None:
    stream = open_stream("demo", "format=msgpack")
    messages = [msgpack.unpackb(stream.recv(timeout=10)) for _ in range(40)]
    seqs = [message["seq"] for message in messages if message["role"] == "active"]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert len(seqs) == 20


def test_a_stream_has_the_topics_that_were_asked_for(open_stream: Open, http: httpx.Client, new_session: str) -> None:
    stream = open_stream(new_session, "topics=rates,events,status")
    kinds = {receive(stream)["type"] for _ in range(15)}
    http.post(f"/v1/sessions/{new_session}/stop")
    assert until(stream, "event")["event"] == "session_stopped"
    assert kinds == {"rates", "status"}


@pytest.mark.parametrize(
    ("session", "query", "status", "words"),
    [
        ("nobody", "", 404, "nobody"),
        ("demo", "topics=predictions,moods", 400, "unknown topic 'moods'"),
        ("demo", "topics=", 400, "unknown topic ''"),
        ("demo", "format=xml", 400, "unknown format 'xml'"),
        ("demo", "policy=some", 400, "unknown policy 'some'"),
        ("demo", "policy=every", 400, "policy every: expected a whole number of at least 1, got ''"),
        ("demo", "policy=every=0", 400, "at least 1, got '0'"),
        ("demo", "resume_from=-1", 400, "resume_from: expected a whole number of at least 0, got '-1'"),
        ("demo", "resume_from=1e3", 400, "got '1e3'"),
        ("demo", "resume_from=999999999", 409, "bin 999999999 is in the future, the next one is"),
        ("demo", "resume_from=0&run=abc", 409, "run 'abc' of session 'demo' has ended"),
    ],
)
def test_what_cannot_be_streamed_is_refused_with_a_problem(
    open_stream: Open, session: str, query: str, status: int, words: str
) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        open_stream(session, query)
    assert refusal.value.response.status_code == status
    assert words in json.loads(refusal.value.response.body or b"")["detail"]


def test_a_page_of_another_site_gets_no_stream(open_stream: Open) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        open_stream("demo", origin="http://evil.example")
    assert refusal.value.response.status_code == 403


@pytest.mark.parametrize("format", ["json", "msgpack"])
@pytest.mark.parametrize("pack", [json.dumps, msgpack.packb])
def test_a_label_is_answered_in_the_format_of_the_stream(
    open_stream: Open, format: str, pack: Callable[[Map], Any]
) -> None:
    stream = open_stream("demo", f"topics=events&format={format}")
    stream.send(pack({"type": "label", "label": "right", "start": 1.0, "end": 2.0, "id": 7}))
    expected = {"label": "right", "start": 1.0, "end": 2.0, "state": "learned", "bins": 3}
    answer = next(m for m in iter(lambda: receive(stream), None) if m["type"] != "event")
    assert answer == {"type": "label_accepted", **expected, "id": 7}


def test_a_ping_tells_the_lsl_time(open_stream: Open, http: httpx.Client) -> None:
    stream = open_stream("demo", "topics=events")
    before = http.get("/v1/info").json()["clock"]
    stream.send(json.dumps({"type": "ping", "id": "a"}))
    answer = receive(stream)
    assert answer.keys() == {"type", "time", "id"}
    assert before < answer["time"] < http.get("/v1/info").json()["clock"]


@pytest.mark.parametrize(
    ("message", "status", "words"),
    [
        ("{", 400, "not JSON"),
        ("[" * 5000, 400, "not JSON"),
        (b"\xc1", 400, "not MessagePack"),
        (b"\x82\xa4type", 400, "not MessagePack"),
        ("[1]", 400, "expected a map"),
        ("{}", 422, "type"),
        ('{"type": "reward"}', 422, "reward"),
        ('{"type": "label"}', 422, "label"),
        ('{"type": "label", "label": "up", "id": 3}', 422, "no class"),
        ('{"type": "label", "label": "left", "start": "now"}', 422, "start"),
        ('{"type": "label", "label": "left", "start": NaN}', 400, "not JSON"),
        (msgpack.packb({"type": "label", "label": "left", "start": float("inf")}), 422, "finite"),
    ],
)
def test_a_message_that_is_wrong_is_answered_and_the_stream_goes_on(
    open_stream: Open, message: str | bytes, status: int, words: str
) -> None:
    stream = open_stream("demo")
    stream.send(message)
    error = until(stream, "error")
    assert error["status"] == status
    assert words in error["detail"]
    assert error.get("id") == (3 if "id" in str(message) else None)
    assert until(stream, "prediction")["seq"] >= 0


@pytest.mark.parametrize("number", [10**30, 2**63, -(2**63) - 1])
def test_an_id_that_messagepack_cannot_carry_is_refused_without_it(open_stream: Open, number: int) -> None:
    stream = open_stream("demo", "topics=events")
    stream.send(json.dumps({"type": "ping", "id": number}))
    error = receive(stream)
    assert (error["type"], error["status"], "id" in error) == ("error", 422, False)
    stream.send('{"type": "ping", "id": 1}')
    assert receive(stream)["id"] == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=st.binary(max_size=80) | st.text(max_size=80))
def test_no_message_ends_the_stream(open_stream: Open, message: str | bytes) -> None:
    stream = open_stream("demo", "topics=events")
    stream.send(message)
    assert receive(stream)["type"] == "error"
    stream.close()


def test_a_message_without_end_closes_only_its_own_stream(open_stream: Open) -> None:
    stream, other = open_stream("demo"), open_stream("demo")
    stream.send("x" * 70_000)
    with pytest.raises(ConnectionClosed) as closed:
        until(stream, "never")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    assert until(other, "prediction")["seq"] >= 0


def test_a_subscriber_that_stalls_is_told_and_harms_nobody(
    open_stream: Open,
    http: httpx.Client,
    unique_name: str,
    session_settings: Callable[..., Map],
) -> None:
    classes = [f"{number:02000d}" for number in range(2)]
    decoders = [{"name": f"d{n}", "role": "shadow" if n else "active"} for n in range(3)]
    http.post("/v1/sessions", json=session_settings(unique_name, bin_ms=4, classes=classes, decoders=decoders))
    wait_until(lambda: http.get(f"/v1/sessions/{unique_name}").json()["state"] == "running")
    small_buffer = socket.socket()
    small_buffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small_buffer.connect((http.base_url.host, http.base_url.port or 80))
    stalled = open_stream(unique_name, sock=small_buffer, max_queue=1)
    quick = open_stream(unique_name)
    seqs = [receive(quick)["seq"] for _ in range(2_000)]
    assert seqs == sorted(seqs)
    assert set(range(seqs[0], seqs[-1] + 1)) == set(seqs)
    latest = http.get(f"/v1/sessions/{unique_name}/predictions/latest").json()["seq"]
    assert until(stalled, "lagged")["missed"] > 0
    assert receive(stalled)["seq"] >= latest - 50
    http.delete(f"/v1/sessions/{unique_name}")


def test_the_stream_of_a_deleted_session_is_closed_with_the_reason(
    open_stream: Open, http: httpx.Client, new_session: str
) -> None:
    stream = open_stream(new_session)
    http.delete(f"/v1/sessions/{new_session}")
    with pytest.raises(ConnectionClosed, match="deleted"):
        until(stream, "never")


def test_subscribers_see_a_session_process_die(open_stream: Open, http: httpx.Client, new_session: str) -> None:
    stream = open_stream(new_session, "topics=events,status")
    http.post(f"/v1/sessions/{new_session}/labels", json={"label": "die"})
    event = until(stream, "event")
    assert (event["event"], event["exit_code"]) == ("session_failed", 3)
    assert event["stderr"][-1] == "fatal: no more samples"
    assert until(stream, "status")["state"] == "failed"


def run_of(connection: ClientConnection) -> str:
    assert connection.response is not None
    return connection.response.headers["Neuroloop-Run"]


def of_bins(connection: ClientConnection, count: int) -> list[Map]:
    return [receive(connection) for _ in range(count)]


def test_a_client_that_comes_back_gets_what_it_missed_and_nothing_twice(open_stream: Open, http: httpx.Client) -> None:
    first = open_stream("demo", "topics=predictions,rates")
    before = of_bins(first, 31)
    first.close()
    missed = receive(open_stream("demo"))["seq"]
    while receive(open_stream("demo"))["seq"] < missed + 20:
        pass
    last = before[-1]["seq"]
    run = http.get("/v1/sessions/demo").json()["run"]
    assert run == run_of(first)
    second = open_stream("demo", f"topics=predictions,rates&resume_from={last}&run={run}")
    assert run_of(second) == run
    after = of_bins(second, 150)
    assert after[0]["seq"] == last
    seen = [message for message in before if message["seq"] == last]
    assert after[: len(seen)] == seen
    whole = before + after[len(seen) :]
    bins = [(m["seq"], m["type"], m.get("role")) for m in whole]
    start = next(n for n, bin in enumerate(bins) if bin[1:] == ("prediction", "active"))
    expected = [
        (bins[start][0] + n // 3, *[("prediction", "active"), ("prediction", "shadow"), ("rates", None)][n % 3])
        for n in range(len(bins) - start)
    ]
    assert bins[start:] == expected


def test_a_session_made_anew_is_another_run(open_stream: Open, http: httpx.Client, new_session: str) -> None:
    run = run_of(open_stream(new_session))
    settings = http.get(f"/v1/sessions/{new_session}").json()["settings"]
    http.delete(f"/v1/sessions/{new_session}")
    http.post("/v1/sessions", json=settings)
    with pytest.raises(InvalidStatus) as refusal:
        open_stream(new_session, f"resume_from=0&run={run}")
    assert refusal.value.response.status_code == 409
    assert run_of(open_stream(new_session)) != run


def test_every_fourth_bin_is_sent_to_whom_that_is_enough(open_stream: Open) -> None:
    seqs = [message["seq"] for message in of_bins(open_stream("demo", "policy=every=4"), 9)]
    whole = 0 if seqs[0] == seqs[1] else 1  # it may have begun between the two messages of a bin
    seqs = seqs[whole : whole + 8]
    assert seqs == [seqs[0] + 4 * (n // 2) for n in range(8)]
    assert seqs[0] % 4 == 0


def test_a_client_that_wants_the_latest_alone_skips_what_is_old(
    open_stream: Open,
    http: httpx.Client,
    unique_name: str,
    session_settings: Callable[..., Map],
) -> None:
    classes = [f"{number:0200d}" for number in range(2)]
    http.post("/v1/sessions", json=session_settings(unique_name, bin_ms=2, classes=classes))
    wait_until(lambda: http.get(f"/v1/sessions/{unique_name}").json()["state"] == "running")
    small_buffer = socket.socket()
    small_buffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small_buffer.connect((http.base_url.host, http.base_url.port or 80))
    stalled = open_stream(unique_name, "policy=latest", sock=small_buffer, max_queue=1)
    first = receive(stalled)["seq"]
    wait_until(lambda: http.get(f"/v1/sessions/{unique_name}/predictions/latest").json()["seq"] > first + 1000)
    messages = of_bins(stalled, 200)
    assert {message["type"] for message in messages} == {"prediction"}
    seqs = [message["seq"] for message in messages if message["role"] == "active"]
    assert seqs == sorted(set(seqs))
    assert max(b - a for a, b in pairwise(seqs)) > 500
    http.delete(f"/v1/sessions/{unique_name}")
