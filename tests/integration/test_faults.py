"""Every fault of the harness against a session with subscribers, a recording and a shadow: everything adds up."""

import pytest
from tests.benchmarks.faults import measure

from neuroloop.recording.verification import verify
from neuroloop_sources.faults.kinds import KINDS


@pytest.mark.slow
def test_after_every_fault_the_session_goes_on_and_every_sample_label_and_version_is_accounted_for(tmp_path):
    outcome = measure(tmp_path, channels=4, rate=1000.0, rounds=1, every_s=0.4)
    assert outcome.sent.faults == dict.fromkeys(KINDS, 1)
    assert outcome.wrong == []
    account = outcome.accounts[0]
    assert min(account.missing, account.surplus, account.nonfinite, account.lost) > 0
    assert min(len(outcome.labels), len(outcome.versions)) > 2
    every_bin = list(range(outcome.status["bins"]))
    assert [witness.shadows for witness in outcome.witnesses] == [{"shadow": every_bin}] * 5
    (recording,) = tmp_path.rglob("*.xdf")
    verdict = verify(recording)
    assert (verdict.first, verdict.is_identical) == (None, True)
