"""Sources to stream from over LSL: a simulator with known truth, a player of recordings.

Usable alone; imports nothing of the server.
"""

from neuroloop_sources.errors import SourceError
from neuroloop_sources.player import play
from neuroloop_sources.recordings import Recording, chain
from neuroloop_sources.settings import SimulatorSettings
from neuroloop_sources.simulator import run
from neuroloop_sources.truth import CLASSES, Truth

__all__ = ["CLASSES", "Recording", "SimulatorSettings", "SourceError", "Truth", "chain", "play", "run"]
