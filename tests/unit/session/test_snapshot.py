"""What a checkpoint has of decoders that are at work when it is taken."""

import threading

from tests.processes import wait_until
from tests.unit.recording.live import BY_COMMAND, Live

from neuroloop.session.shadow import Shadow
from neuroloop.session.snapshot import Known, Snapshot


def learned(tree):
    return {told["place"]: told["learned"] for told in tree["decoders"]}


def test_a_label_that_waits_for_a_shadow_is_in_the_checkpoint_whatever_the_one_before_had(tmp_path, monkeypatch):
    process, works, known = Shadow.process, threading.Event(), Known()
    monkeypatch.setattr(Shadow, "process", lambda *item: works.wait(60) and process(*item))
    works.set()
    live = Live(tmp_path, **BY_COMMAND)
    live.turn()
    live.send(900)
    live.catch_up()
    wait_until(live.shadow_is_idle)
    assert learned(Snapshot(live.loop, known).tree()) == {"active": 0, "shadow": 0}
    works.clear()
    live.ask("label", label="a")
    live.catch_up()
    assert live.replies[-1].result(10)["state"] == "learned"
    snapshot = Snapshot(live.loop, known)
    works.set()
    assert learned(snapshot.tree()) == {"active": 1, "shadow": 1}
    live.loop.close()
