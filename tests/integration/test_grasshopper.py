"""A grasshopper's auditory receptor, live: an encoder fitted from the running session predicts as well as one offline.

The sound's level in dB and the spikes, in 1 ms bins, are two LSL streams. The encoder is fitted from the first 4 s that
the session saw, put in, and scored by the session on the next 1 s; offline, the same from the file.
"""

import threading

import httpx
import numpy as np
import pytest
from tests.integration.conftest import Source
from tests.processes import serving, wait_until, write_config

from neuroloop.models.lnp_fit import LNPSettings, fit, score

SRATE = 1000.0
LEARNED, PLAYED, CHUNK = 4000, 5000, 100  # bins

pytestmark = [pytest.mark.realdata, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def recording(recordings):
    """The sound's level, dB, and the spikes in each millisecond."""
    with np.load(recordings / "grasshopper_auditory_lnp.npz") as data:
        amplitude = data["stim1"].reshape(-1, 20).mean(axis=1)
        counts = np.histogram(data["spike_times_s1"], np.arange(len(amplitude) + 1) / 1000)[0]
    return 20 * np.log10(amplitude[:PLAYED] / 2e-5), counts[:PLAYED]


class Rig:
    """A session of a server, and the two streams that it hears, in real time at most."""

    def __init__(self, http, name, recording):
        self.http, self.path = http, f"/v1/sessions/{name}"
        self.level, self.counts = recording
        self.sound = Source(f"{name}-sound", 1, SRATE, labels=["level"])
        self.spikes = Source(name, 1, SRATE, labels=["receptor"])
        self.sent = 0

    def status(self):
        return self.http.get(f"{self.path}/status").json()

    def is_ready(self):
        status = self.status()
        states = [(status.get(stream) or {}).get("state") for stream in ("stream", "stimulus")]
        return all(state in ("connected", "stalled") for state in states)  # stalled: nothing is sent before both are

    def play(self, until):
        """Up to a bin; the sound a chunk ahead of the spikes, so that no bin waits for it."""
        pause = threading.Event()
        for first in range(self.sent, until, CHUNK):
            if self.sound.sent < len(self.level):
                self._push(self.sound, self.level, self.sound.sent, first + 2 * CHUNK)
            self._push(self.spikes, self.counts, first, first + CHUNK)
            pause.wait(CHUNK / SRATE)
            wait_until(lambda end=first + CHUNK: self.status()["bins"] >= end, "the bins")
        self.sent = until
        wait_until(lambda: self.status()["stimulus"]["kept_bins"] >= until, "their frames")

    def _push(self, source, values, first, stop):
        source.push(values[first:stop, None].astype(np.float32))
        self.sound.start = self.spikes.start = source.start


@pytest.fixture
def rig(tmp_path, recording, unique_name):
    session = {
        "name": unique_name,
        "stream": {"source_id": unique_name},
        "stimulus": {"source_id": f"{unique_name}-sound"},
        "encoder": {"score_half_life_s": 36_000},  # of this 1 s, nothing is forgotten
        "front_end": {"kind": "counts"},
        "bin_ms": 1,
        "block_ms": 1,
        "classes": ["a", "b"],
        "outlets": {"enabled": False},
    }
    with (
        serving(write_config(tmp_path, sessions=[session])) as (url, _),
        httpx.Client(base_url=url, timeout=70) as http,
    ):
        rig = Rig(http, unique_name, recording)
        wait_until(rig.is_ready, "both streams")
        yield rig
        rig.sound.close()
        rig.spikes.close()


def test_a_live_fit_scores_on_held_out_bins_what_the_offline_fit_does(rig, recording, record_property):
    given = {"lags": 20, "nonlinearity": "parametrized_softplus", "history": 10}
    level, counts = recording
    bank = fit(level[:LEARNED], counts[:LEARNED], LNPSettings(**given)).model
    held_out = np.arange(len(level)) >= LEARNED
    offline = score(bank, level, counts, held_out)

    rig.play(LEARNED)
    live = {"session": rig.path.rpartition("/")[2], "seconds": LEARNED / SRATE, "from": "last"}
    asked = {"name": "receptor", "kind": "lnp", "settings": given, "held_out": 0, "source": {"live": live}}
    fits = rig.http.post("/v1/fits?activate=active", json=asked)
    assert fits.status_code == 202, fits.text
    path = fits.headers["Location"]
    job = wait_until(lambda: (j := rig.http.get(path).json())["state"] in ("done", "failed") and j, "the fit")
    assert job["state"] == "done", job["detail"]
    assert job["activation"].startswith("active in session"), job["activation"]
    assert job["result"]["training"]["training_samples"] == LEARNED - 19
    rig.play(len(level))

    status = rig.status()
    (encoder,) = status["encoders"]
    assert encoder["scored_bins"] == held_out.sum()
    scores = {name: encoder["scores"][name][0] for name in ("bits_per_spike", "correlation")}
    record_property("bits_per_spike", (scores["bits_per_spike"], float(offline.bits_per_spike[0])))
    assert scores["bits_per_spike"] == pytest.approx(offline.bits_per_spike[0], abs=0.05)
    assert scores["correlation"] == pytest.approx(offline.correlation[0], abs=0.02)
    assert (status["missed_bins"], status["stimulus"]["skipped"], status["stimulus"]["late_frames"]) == (0, 0, 0)
