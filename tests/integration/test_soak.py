"""The benchmark's hour, in seconds: what labels and swaps leave behind, and what they cost."""

import pytest
from tests.benchmarks.soak import measure

MINUTES = 0.1


@pytest.mark.slow
def test_labels_and_swaps_leave_no_descriptor_and_no_thread_behind_and_cost_no_bin():
    seen = measure(MINUTES, every_s=0.1, warm_bins=100)
    assert seen["swaps"] >= 9
    assert (seen["seq_skipped"], seen["missed_bins"], seen["gaps"]) == (0, 0, 0)
    grown = {name: seen[name]["per_hour"] * MINUTES / 60 for name in seen if name.endswith(("descriptors", "threads"))}
    assert len(grown) == 4
    assert max(grown.values()) < seen["swaps"] / 4, grown  # a pool may still take a thread, or a client a connection
