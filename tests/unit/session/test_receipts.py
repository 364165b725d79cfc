"""A receipt has the bins around a swap, is given when they are done, and never waits for ever."""

from concurrent.futures import Future

import pytest

from neuroloop.session.receipts import BINS, PATIENCE_S, Receipts


@pytest.fixture
def receipts():
    receipts = Receipts()
    for process_ms in (9.0, *[1.0] * BINS):
        receipts.bin(process_ms)
    return receipts


def opened(receipts, now=0.0):
    reply = Future()
    receipts.open({"bin": 6}, reply, now, bin_samples=20)
    return reply


def test_a_receipt_is_given_after_five_bins_and_looks_five_bins_back(receipts):
    reply = opened(receipts)
    for process_ms in (1.0, 1.0, 3.0, 1.0):
        receipts.bin(process_ms)
    assert not reply.done()
    receipts.bin(1.0)
    assert reply.result(0) == {"bin": 6, "missed_bins": 0, "slowest_bin_ms": 3.0, "window_bins": 2 * BINS}


def test_samples_that_were_lost_are_bins_missed(receipts):
    reply = opened(receipts)
    receipts.lost(25)
    for _ in range(BINS):
        receipts.bin(1.0)
    assert reply.result(0)["missed_bins"] == 2


def test_a_receipt_waits_for_no_bins_that_do_not_come(receipts):
    first, second = opened(receipts, now=0.0), opened(receipts, now=1.0)
    receipts.expire(PATIENCE_S)
    assert (first.done(), second.done()) == (True, False)
    receipts.close()
    assert second.result(0)["window_bins"] == BINS
