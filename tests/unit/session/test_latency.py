"""Percentiles of the last bins."""

from neuroloop.session.latency import EDGES_MS, KEPT, Histogram, Latency


def test_before_the_first_bin_nothing_is_known():
    assert Latency(["age"]).summary() == {"age": {"p50": None, "p99": None, "max": None}}


def test_the_percentiles_are_those_of_the_last_bins():
    latency = Latency(["stream", "age"])
    for _ in range(10):
        latency.add(500.0, 500.0)
    for number in range(KEPT):
        latency.add(1.0, float(number % 100))
    assert latency.summary()["stream"] == {"p50": 1.0, "p99": 1.0, "max": 1.0}
    assert latency.summary()["age"] == {"p50": 49.5, "p99": 98.01, "max": 99.0}


def test_a_histogram_counts_each_latency_in_the_first_range_that_holds_it():
    histogram = Histogram()
    for milliseconds in (-1.0, EDGES_MS[0], EDGES_MS[0] + 1e-9, EDGES_MS[-1], 1e9):
        histogram.add(milliseconds)
    counts = histogram.describe()["counts"]
    assert {k: n for k, n in enumerate(counts) if n} == {0: 2, 1: 1, len(EDGES_MS) - 1: 1, len(EDGES_MS): 1}
    assert histogram.describe()["sum_ms"] == round(-1.0 + 2 * EDGES_MS[0] + EDGES_MS[-1] + 1e9, 3)
