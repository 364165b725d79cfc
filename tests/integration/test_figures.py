"""What a running session says of its latencies and queues."""

import numpy as np


def test_every_bin_is_in_each_histogram_once_and_sums_agree_with_its_predictions(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    rng = np.random.default_rng(0)
    source.push(rng.poisson(2.0, (400, 4)).astype(np.float32), chunk=20)
    bins = counts.bins(20)
    status = counts.command("status")
    stages = status["histograms"]["stages"]
    assert [sum(stages[name]["counts"]) for name in ("stream", "process", "age")] == [20, 20, 20]
    assert sum(stages["predict"]["counts"]) == sum(b["reason"] not in ("gap", "settling") for b in bins)
    told = sum(b["age_ms"] for b in bins)
    assert abs(stages["age"]["sum_ms"] - told) < 0.02
    assert status["queues"]["ring"] == status["queues"]["shadows"] == 0
    edges, ages = status["histograms"]["edges_ms"], [b["age_ms"] for b in bins]
    assert sum(stages["age"]["counts"][: edges.index(1.0) + 1]) == sum(age <= 1.0 for age in ages)
