"""A subscriber that keeps what an account needs."""

import pytest

from neuroloop_sources import SourceError
from neuroloop_sources.faults import witness as module
from neuroloop_sources.faults.line import Sent
from neuroloop_sources.faults.witness import Witness, check_fresh, final_status


def prediction(seq, role="active"):
    decoder = {"active": "a", "shadow": "b"}[role]
    return {"type": "prediction", "seq": seq, "samples": [20 * seq, 20 * seq + 19], "role": role, "decoder": decoder}


def having_seen(*messages):
    witness = Witness()
    for message in messages:
        witness.take(message)
    return witness


class FakeClient:
    """Tells each status once, and the last one for ever."""

    def __init__(self, *statuses):
        self._statuses = list(statuses)

    def status(self, session):
        return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]


def status(state, seq):
    return {"bins": seq, "seq": seq, "stream": {"state": state}}


def test_an_account_is_of_the_active_decoder_and_shadows_are_kept_apart():
    witness = having_seen(*(prediction(seq, role) for seq in range(50) for role in ("active", "shadow")))
    account = witness.account(Sent(sent=1000), 1000.0, 1000)
    assert (account.adds_up, account.bins) == (True, 1000)
    assert witness.shadows == {"b": list(range(50))}


@pytest.mark.parametrize("lapse", ["lagged", "new_run"])
def test_a_subscriber_that_was_told_of_a_lapse_has_no_account_that_adds_up(lapse):
    witness = having_seen(*map(prediction, range(50)), {"type": lapse})
    assert witness.account(Sent(sent=1000), 1000.0, None).wrong == [f"the subscriber got {lapse!r}"]


def test_a_session_that_has_had_bins_is_refused():
    check_fresh(FakeClient(status("searching", 0)), "s")
    with pytest.raises(SourceError, match="expected one that has had no bin yet, got 7 bins"):
        check_fresh(FakeClient(status("connected", 7)), "s")


def test_the_final_status_comes_when_the_stream_has_ended_and_its_last_bin_is_there(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.0)
    witness = having_seen(*map(prediction, range(50)))
    client = FakeClient(status("connected", 50), status("lost", 49), status("lost", 50))
    assert final_status(client, "s", witness) == status("lost", 50)


def test_a_stream_that_does_not_end_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(module, "POLL_S", 0.01)
    with pytest.raises(SourceError, match="the last bins of the stream did not come"):
        final_status(FakeClient(status("connected", 50)), "s", having_seen(prediction(49)))
