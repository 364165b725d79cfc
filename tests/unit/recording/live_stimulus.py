"""As `live`, with a stimulus whose frames are the test's, too."""

from types import SimpleNamespace

import numpy as np
from tests.processes import wait_until
from tests.unit.recording.live import Live

from neuroloop.recording.writer import stream_header
from neuroloop.session.inlet import Receiving
from neuroloop.session.stimulus import Stimulus
from neuroloop.session.streams import StreamDescription

PIXELS = ("p1", "p2", "p3", "p4")
COUNTS = {
    "front_end": {"kind": "counts"},
    "bin_ms": 20.0,
    "encoder": {"online": True},
}


class StimulusByHand(Stimulus):
    """Frames come when the test says so."""

    def start(self):
        self.inlet = SimpleNamespace(clock_offset=0.0, receiving=None, measured=[], state="connected", last_arrival=0)

    def stop(self):
        return


class LiveWithStimulus(Live):
    make_stimulus = StimulusByHand

    def __init__(self, folder, srate, recording=True, **stimulus):
        self.srate, self.frames = srate, 0.0  # seconds of frames that were sent
        changes = COUNTS | {"recording": {"automatic": recording, "least_free_mb": 0}}
        super().__init__(folder, **changes, stimulus={"name": "movie", "patience_ms": 1.0, **stimulus})
        self.stimulus = self.loop.encoders.stimulus
        self.turn()
        self.find()

    def find(self, source_id="movie"):
        """A stream of frames: another one, or one that was lost and is back."""
        header = {"name": "movie", "type": "V", "channels": PIXELS, "format": "float32", "nominal_srate": self.srate}
        places = ("",) * 4, (None,) * 4
        stream = StreamDescription("movie", "V", source_id, "h", 4, self.srate, "float32", PIXELS, *places)
        ring = self.stimulus._prepare(self.stimulus.inlet, stream, np.dtype(np.float32))
        self.stimulus.inlet.receiving = Receiving(stream_header(**header), ring, ring.written)

    def show(self, seconds, jitter):
        """So much of the stimulus comes."""
        ring, period = self.stimulus.source.ring, 1 / (self.srate or 70.0)
        for number in range(round(seconds / period)):
            if number % 16 == 0:
                self.be_shown(ring)
            slot, room = ring.room()
            self.frames += period
            if room == 0:
                ring.overrun(0.0)
                continue
            ring.samples[slot] = self.random.normal(0, 1, 4)
            ring.times[slot] = self.frames + (self.random.normal(0, jitter) if jitter else 0.0)
            ring.commit(1, self.loop.clock())
        self.stimulus._bell.set()
        self.be_shown(ring)

    def be_shown(self, ring):
        """As `be_recorded`, for frames."""
        if (recorder := self.loop.recordings._recorder) is None:
            return
        wait_until(lambda: any(s.ring is ring and s.at == ring.written for s in recorder._sources))

    def answered(self):
        """The encoders have come to the newest bin."""
        wait_until(lambda: self.loop.encoders.waiting == 0)
