"""What a Prometheus server scrapes: of every session, of the fits, of the registry, of the server itself.

The figures are those of each session's last status, once a second, so that a scrape asks no loop anything. Labels are
`session` and such as have a handful of values (`stage`, `queue`, `state`, `role`): never a model, a digest or a client.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse

from neuroloop import __version__
from neuroloop.api.exposition import CONTENT_TYPE, Exposition
from neuroloop.api.fits import Jobs
from neuroloop.api.live import LiveSession, Sessions
from neuroloop.api.models import Models
from neuroloop.registry.registry import Registry
from neuroloop.session.shedding import ORDER
from neuroloop.training.job import State
from neuroloop.training.jobs import FitJobs

router = APIRouter(tags=["server"])

SESSION_STATES = ("starting", "running", "stopped", "failed")

# name after `neuroloop_`, member of the status, what it is
COUNTERS = (
    ("bins", "bins", "bins answered"),
    ("missed_bins", "missed_bins", "bins missed because the session was too slow"),
    ("late_bins", "late_bins", "bins answered later than a bin after their last sample had arrived"),
    ("gaps", "gaps", "gaps in the stream"),
    ("missing_samples", "missing_samples", "samples that never came"),
    ("surplus_samples", "surplus_samples", "samples left out that came twice, or after they were counted as missing"),
    ("nonfinite_samples", "nonfinite_samples", "samples with a value that was not finite"),
    ("swaps", "swaps", "decoders and encoders exchanged"),
)
AGE = "neuroloop_sample_age_seconds"
LATENCY = "neuroloop_latency_seconds"


@router.get("/metrics", response_class=PlainTextResponse)
async def get_metrics(sessions: Sessions, jobs: Jobs, models: Models) -> Response:
    """Prometheus, version 0.0.4 of its text format."""
    page = Exposition()
    page.add("neuroloop_info", "gauge", "the server's version", 1, version=__version__)
    for session in sessions.all():
        _add_session(page, session)
    _add_fits(page, jobs)
    counts = await run_in_threadpool(_registry_counts, models)
    page.add("neuroloop_registry_models", "gauge", "models in the registry", counts[0])
    page.add("neuroloop_registry_versions", "gauge", "versions of models in the registry", counts[1])
    return Response(page.text(), media_type=CONTENT_TYPE)


def _add_session(page: Exposition, session: LiveSession) -> None:
    name, status = session.name, session.hub.status or {}
    for state in SESSION_STATES:
        value = int(session.state == state)
        page.add("neuroloop_session_state", "gauge", "1 for the state that it is in", value, session=name, state=state)
    for metric, member, about in COUNTERS:
        page.add(f"neuroloop_{metric}_total", "counter", about, status.get(member), session=name)
    stream = status.get("stream") or {}
    page.add("neuroloop_samples_total", "counter", "samples received", stream.get("samples"), session=name)
    steps = stream.get("clock_steps")
    page.add("neuroloop_clock_steps_total", "counter", "times the sender's clock was set", steps, session=name)
    about = "seconds since samples came last"
    drift = stream.get("clock_drift_ppm")
    page.add("neuroloop_clock_drift_ppm", "gauge", "timestamps against the clock here", drift, session=name)
    page.add("neuroloop_stream_silence_seconds", "gauge", about, stream.get("age_s"), session=name)
    memory = status.get("memory_bytes")
    page.add("neuroloop_memory_bytes", "gauge", "of a session's arrays", memory, session=name)
    gpu = status.get("gpu_memory_bytes")
    page.add("neuroloop_gpu_memory_bytes", "gauge", "on a GPU, and pinned for it", gpu, session=name)
    stale = (status.get("staleness") or {}).get("bins")
    page.add("neuroloop_stale_bins_total", "counter", "bins answered while the loop was behind", stale, session=name)
    for what in ORDER:
        is_shed = int(what in (status.get("shed") or ()))
        page.add("neuroloop_shed", "gauge", "1 for what gets no bins for overload", is_shed, session=name, what=what)
    _add_histograms(page, name, status.get("histograms"))
    _add_queues(page, session, status.get("queues") or {})
    for role, count in Counter(decoder["role"] for decoder in status.get("decoders") or ()).items():
        page.add("neuroloop_decoders", "gauge", "decoders at work", count, session=name, role=role)
    page.add("neuroloop_subscribers", "gauge", "of its results", len(session.hub.subscribers), session=name)


def _add_histograms(page: Exposition, session: str, histograms: dict[str, Any] | None) -> None:
    if histograms is None:
        return
    edges = [edge / 1000 for edge in histograms["edges_ms"]]
    for stage, seen in histograms["stages"].items():
        counts, total = seen["counts"], seen["sum_ms"] / 1000
        if stage == "age":
            about = "age of a bin's newest sample when its answer was at hand"
            page.add_histogram(AGE, about, edges, counts, total, session=session)
        else:
            about = "stream: until a bin's last sample came; process: then until its answer; predict: of the decoder"
            page.add_histogram(LATENCY, about, edges, counts, total, session=session, stage=stage)


def _add_queues(page: Exposition, session: LiveSession, waiting: dict[str, int]) -> None:
    behind = max((subscriber.behind for subscriber in session.hub.subscribers), default=0)
    ours = {"commands": session.process.waiting, "slowest_subscriber": behind}
    for queue, count in (waiting | ours).items():
        about = "what waits: messages for the loop, samples in the ring, bins, commands, messages"
        page.add("neuroloop_queue", "gauge", about, count, session=session.name, queue=queue)


def _add_fits(page: Exposition, jobs: FitJobs) -> None:
    states = Counter(job.state for job in jobs.all())
    for state in get_args(State):
        page.add("neuroloop_fits", "gauge", "fit jobs that are known", states[state], state=state)


def _registry_counts(registry: Registry) -> tuple[int, int]:
    """Of models, and of their versions."""
    found = registry.models()
    return len(found), sum(len(model.versions) for model in found)
