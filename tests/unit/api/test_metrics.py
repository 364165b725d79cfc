"""What Prometheus finds at a server whose sessions are fake ones."""

import re
from collections.abc import Callable
from typing import Any

import httpx
from tests.processes import wait_until
from websockets.sync.client import ClientConnection

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="[^"\\]*",?)+)\})? ([-+0-9.eE]+|NaN|[+-]Inf)')


def metrics(http: httpx.Client) -> dict[tuple[str, str], float]:
    """(name, labels as they stand) -> value; every line of the page is one of these, or about them."""
    found = http.get("/metrics")
    assert found.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {}
    for line in found.text.splitlines():
        if not re.match(r"# (HELP|TYPE) [a-z_]+ .", line):
            matched = LINE.fullmatch(line)
            assert matched is not None, line
            key = (matched[1], matched[2] or "")
            assert key not in samples, line
            samples[key] = float(matched[3])
    return samples


def test_what_a_session_says_of_itself_is_there_with_its_name(http: httpx.Client) -> None:
    def bins() -> float:
        return metrics(http).get(("neuroloop_bins_total", 'session="demo"'), 0.0)

    first = wait_until(bins)
    wait_until(lambda: bins() > first)
    found = metrics(http)
    assert found["neuroloop_session_state", 'session="demo",state="running"'] == 1
    assert found["neuroloop_session_state", 'session="demo",state="failed"'] == 0
    assert found["neuroloop_samples_total", 'session="demo"'] > 0
    assert found["neuroloop_decoders", 'session="demo",role="shadow"'] == 1


def test_latencies_are_histograms_in_seconds(http: httpx.Client) -> None:
    def count() -> float:
        return metrics(http).get(("neuroloop_latency_seconds_count", 'session="demo",stage="stream"'), 0.0)

    wait_until(count)
    found = metrics(http)
    buckets = [value for (name, labels), value in found.items() if name == "neuroloop_sample_age_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found["neuroloop_sample_age_seconds_count", 'session="demo"']
    assert found["neuroloop_sample_age_seconds_bucket", 'session="demo",le="0.001"'] == buckets[-1]  # all took 0.9 ms
    assert found["neuroloop_sample_age_seconds_bucket", 'session="demo",le="0.0005"'] == 0
    mean = found["neuroloop_sample_age_seconds_sum", 'session="demo"'] / buckets[-1]
    assert abs(mean - 0.0009) < 1e-6


def test_subscribers_are_counted_once_each_whatever_their_topics(
    http: httpx.Client, open_stream: Callable[..., ClientConnection], new_session: str
) -> None:
    def subscribers() -> float:
        return metrics(http)["neuroloop_subscribers", f'session="{new_session}"']

    before = subscribers()
    for topics in ("predictions", "predictions,rates,events"):
        open_stream(new_session, f"topics={topics}")
    wait_until(lambda: subscribers() == before + 2)


def test_labels_have_bounded_values_and_a_deleted_session_leaves_none(http: httpx.Client, new_session: str) -> None:
    allowed = {"what", "session", "state", "stage", "queue", "role", "le", "version"}
    labels = {name for _, text in metrics(http) for name in re.findall(r'([a-z]+)="', text)}
    assert labels <= allowed
    assert http.delete(f"/v1/sessions/{new_session}").is_success
    assert not any(new_session in text for _, text in metrics(http))


def test_the_registry_and_the_fits_are_counted(http: httpx.Client) -> None:
    found: dict[Any, float] = metrics(http)
    assert found["neuroloop_registry_models", ""] == 0
    assert found["neuroloop_fits", 'state="running"'] == 0
