"""The peer of `peers`, a program of its own for an interpreter that has ezmsg: LSL in, event rates noted at the end.

`LSLInletUnit`, then the stages: `ButterworthFilter` (300-6000 Hz, order 4, second-order sections), `LRRUnit` (clusters
of 32), `ThresholdCrossing` (-4.5 of a running z-score, 1 ms refractory), `EventRate` (20 ms); then a sink that notes
when each bin came. All units are in one process, as `ezmsg.core.run` puts them. By default the stages are one unit, a
`CompositeProcessor`, and the rereference applies its cold-start weights (leave-one-out mean), which cost as much as
fitted ones. With `--learn` each is a unit, and a `Window` of 20 ms beside them keeps fitting the rereference.

The inlet pulls as soon as one sample is there, so that a chunk of 30 comes as several messages, and every unit pays for
every message: hence one unit, and hence, with `--learn`, a `Window` of 2 ms behind the inlet. Both favour the peer.
"""

import argparse
import asyncio
import json
import socket
import warnings
from importlib.metadata import version
from itertools import pairwise

import ezmsg.core as ez
import numpy as np
import pylsl
from ezmsg.baseproc import BaseProcessor, BaseTransformerUnit, CompositeProcessor
from ezmsg.event.peak import OutputFormat, ThresholdCrossing, ThresholdCrossingTransformer, ThresholdSettings
from ezmsg.event.rate import EventRate, EventRateSettings, Rate
from ezmsg.learn.process.ssr import LRRSettings, LRRTransformer, LRRUnit
from ezmsg.lsl.inlet import LSLInfo, LSLInletSettings, LSLInletUnit
from ezmsg.sigproc.butterworthfilter import (
    ButterworthFilter,
    ButterworthFilterSettings,
    ButterworthFilterTransformer,
)
from ezmsg.sigproc.util.rereference import RereferenceKind
from ezmsg.sigproc.window import Window, WindowSettings
from ezmsg.util.messages.axisarray import AxisArray

PACKAGES = ("ezmsg", "ezmsg-lsl", "ezmsg-sigproc", "ezmsg-event", "ezmsg-learn", "pylsl", "numpy", "scipy")
BIN_S = 0.02
BLOCK_S = 0.002  # as neuroloop's default; 5 ms, and messages as they come, gave higher medians
STAGES = {
    "bandpass": (
        ButterworthFilter,
        ButterworthFilterTransformer,
        ButterworthFilterSettings(order=4, cuton=300.0, cutoff=6000.0, coef_type="sos"),
    ),
    "rereference": (
        LRRUnit,
        LRRTransformer,
        LRRSettings(block_size=32, ridge_lambda=1e-3, init_default=RereferenceKind.CAR),
    ),
    "crossings": (
        ThresholdCrossing,
        ThresholdCrossingTransformer,
        ThresholdSettings(threshold=-4.5, refrac_dur=0.001, auto_scale_tau=10.0, output_format=OutputFormat.DENSE),
    ),
    "rate": (EventRate, Rate, EventRateSettings(bin_duration=BIN_S)),
}


class ChainSettings(ez.Settings):
    """None: STAGES holds them."""


class Chain(CompositeProcessor[ChainSettings, AxisArray, AxisArray]):
    """The stages, called one after the other."""

    @staticmethod
    def _initialize_processors(settings: ChainSettings) -> dict[str, BaseProcessor]:
        return {name: processor(stage) for name, (_, processor, stage) in STAGES.items()}


class ChainUnit(BaseTransformerUnit[ChainSettings, AxisArray, AxisArray, Chain]):
    SETTINGS = ChainSettings


class SinkSettings(ez.Settings):
    received: str
    idle: float


class SinkState(ez.State):
    times: list[float]
    arrivals: list[float]


class Sink(ez.Unit):
    """Notes every bin's end and its arrival; ends the graph when none came for `idle` seconds."""

    SETTINGS = SinkSettings
    STATE = SinkState
    INPUT = ez.InputStream(AxisArray)

    async def initialize(self) -> None:
        self.STATE.times, self.STATE.arrivals = [], []

    @ez.subscriber(INPUT)
    async def note(self, message: AxisArray) -> None:
        now = pylsl.local_clock()
        time = message.axes["time"]
        for number in range(message.data.shape[0]):
            self.STATE.times.append(time.offset + (number + 1) * time.gain)
            self.STATE.arrivals.append(now)

    @ez.task
    async def finish(self) -> None:
        while not self.STATE.arrivals or pylsl.local_clock() - self.STATE.arrivals[-1] < self.SETTINGS.idle:
            await asyncio.sleep(0.5)
        np.savez(self.SETTINGS.received, times=self.STATE.times, arrivals=self.STATE.arrivals)
        raise ez.NormalTermination


def tiled(seconds: float, **settings: bool) -> Window:
    """Windows that follow each other without overlap."""
    return Window(WindowSettings(window_dur=seconds, window_shift=seconds, zero_pad_until="none", **settings))


def graph(options: argparse.Namespace) -> tuple[dict[str, ez.Unit], list[tuple[ez.OutputStream, ez.InputStream]]]:
    """Units by name, and their connections."""
    inlet = LSLInletUnit(
        LSLInletSettings(
            info=LSLInfo(name=options.name, type="Ephys"),
            use_lsl_clock=True,
            processing_flags=pylsl.proc_clocksync,  # by default it dejitters too, at a cost for every sample
        )
    )
    units: dict[str, ez.Unit] = {"inlet": inlet}
    if options.learn:
        units["blocks"] = tiled(BLOCK_S, batch_windows=True)
        units |= {name: unit(settings) for name, (unit, _, settings) in STAGES.items()}
    else:
        units["chain"] = ChainUnit(ChainSettings())
    wires = [(a.OUTPUT_SIGNAL, b.INPUT_SIGNAL) for a, b in pairwise(units.values())]
    sink = Sink(SinkSettings(received=options.received, idle=options.idle))
    wires.append((units[list(units)[-1]].OUTPUT_SIGNAL, sink.INPUT))
    units["sink"] = sink
    if options.learn:
        units["training"] = training = tiled(BIN_S)
        wires.append((units["bandpass"].OUTPUT_SIGNAL, training.INPUT_SIGNAL))
        wires.append((training.OUTPUT_SIGNAL, units["rereference"].INPUT_SAMPLE))
    return units, wires


def free_address() -> tuple[str, int]:
    """For the graph server, whose own default is one port for the whole machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", action="store_true", help="only print those of the packages")
    parser.add_argument("--name", help="of the stream")
    parser.add_argument("--received", help="file for the times")
    parser.add_argument("--learn", action="store_true", help="keep fitting the rereference")
    parser.add_argument("--idle", type=float, default=3.0, help="seconds without a bin until the end")
    options = parser.parse_args()
    if options.versions:
        print(json.dumps({package: version(package) for package in PACKAGES}))
        return
    warnings.simplefilter("ignore")
    units, wires = graph(options)
    print("{}", flush=True)
    ez.run(units, connections=wires, graph_address=free_address(), auto_start=True)


if __name__ == "__main__":
    main()
