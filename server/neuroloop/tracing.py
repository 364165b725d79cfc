"""Traces of requests, and of the commands to sessions that they become, for whatever understands OpenTelemetry.

They are made where OpenTelemetry's own environment says where to send them (`OTEL_EXPORTER_OTLP_ENDPOINT`, or the
same for traces alone), by the extra `tracing`. Without that nothing is imported, and nothing is done. A command's span
ends with the loop's answer; the loop itself makes none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from neuroloop import __version__
from neuroloop.errors import ConfigError
from neuroloop.logs import current_request

if TYPE_CHECKING:
    from fastapi import FastAPI

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
NOT_TRACED = "/stream$,/metrics$,/healthz$,/readyz$"  # a stream lasts for days; the others come every few seconds

_tracers: list[Any] = []  # the one that is in use, if any


def install(app: FastAPI) -> Callable[[], None]:
    """Trace this application from now on, if somebody wants to know; returns what sends the rest at the end.

    Raises ConfigError without the extra.
    """
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None:
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(f"{endpoint} is set, and traces need: pip install 'neuroloop[tracing]' ({error})") from error
    service = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "neuroloop"}
    provider = TracerProvider(resource=Resource.create(service | {"service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=NOT_TRACED,
        exclude_spans=["receive", "send"],
        http_capture_headers_server_response=["X-Request-Id"],
    )
    _tracers[:] = [provider.get_tracer("neuroloop", __version__)]

    def end() -> None:
        _tracers.clear()
        provider.shutdown()

    return end


def command(session: str, name: str) -> AbstractContextManager[Any]:
    """A span while a session answers a command."""
    if not _tracers:
        return nullcontext()
    about = {"session": session, "command": name, **current_request()}
    attributes = {f"neuroloop.{key}": value for key, value in about.items()}
    span: AbstractContextManager[Any] = _tracers[0].start_as_current_span(f"command {name}", attributes=attributes)
    return span
