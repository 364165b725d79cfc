"""The encoders of a session, as its loop sees them."""

from tests.integration.models import encoder_loading
from tests.processes import wait_until
from tests.unit.recording.live_stimulus import LiveWithStimulus


def test_a_session_with_a_stimulus_has_an_encoder_once_one_was_loaded(tmp_path):
    live = LiveWithStimulus(tmp_path, 100.0, recording=False)
    assert not live.loop.encoders.has_any
    live.ask("encoder_load", **encoder_loading(1))
    wait_until(lambda: live.turn() or live.loop.encoders.has_any)
    assert live.loop.encoders._thread.encoding.view.active is not None
    live.loop.close()
