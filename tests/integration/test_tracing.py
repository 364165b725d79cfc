"""Traces, as a collector of OpenTelemetry gets them from a real server."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from fastapi import FastAPI
from tests.integration.test_api import BANDPOWER
from tests.processes import serving, wait_until, write_config

from neuroloop import tracing
from neuroloop.errors import ConfigError
from neuroloop_client import Client

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


@pytest.fixture
def collector(monkeypatch):
    """Every span that was sent to it, with the attributes of its service and its own."""
    spans = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self):
            request = trace_service.ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request.resource_spans:
                service = {one.key: one.value.string_value for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    spans.extend((service, span) for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collect)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield spans
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_and_the_command_it_becomes_are_one_trace_with_the_request_id(tmp_path, collector, unique_name):
    with serving(write_config(tmp_path)) as (url, process), Client(url) as client:
        client.create(BANDPOWER | {"name": unique_name, "stream": {"name": unique_name}, "autostart": False})
        wait_until(lambda: client.session(unique_name)["state"] == "stopped", "the session")
        answer = httpx.post(f"{url}/v1/sessions/{unique_name}/start", headers={"X-Request-Id": "trial-7"})
        assert answer.status_code == 200
        httpx.get(f"{url}/metrics")
    assert process.returncode == 0
    assert {service["service.name"] for service, _ in collector} == {"neuroloop"}
    assert not [span for _, span in collector if "metrics" in span.name]
    (command,) = (span for _, span in collector if span.name == "command start")
    about = {one.key: one.value.string_value for one in command.attributes}
    assert about == {
        "neuroloop.session": unique_name, "neuroloop.command": "start", "neuroloop.request_id": "trial-7",
    }  # fmt: skip
    (request,) = (span for _, span in collector if span.span_id == command.parent_span_id)
    assert (request.name, request.trace_id) == ("POST /v1/sessions/{session}/start", command.trace_id)
    assert request.start_time_unix_nano <= command.start_time_unix_nano
    assert command.end_time_unix_nano <= request.end_time_unix_nano


def test_an_endpoint_without_the_extra_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set.*neuroloop\[tracing\]"):
        tracing.install(FastAPI())
