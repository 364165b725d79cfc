"""ezmsg's side of the table: its transformers called one after the other on messages, no graph, no queues.

`ButterworthFilterTransformer` (second-order sections, its direct call of scipy's kernel, no threads: from 1 MiB on it
would take several), `AsArrayTransformer` to float32 (the filter's output is float64; with it the later stages take 30
percent less than without), `LRRTransformer` (block-diagonal product), `ThresholdCrossingTransformer` (sparse, running
z-score with a time constant of 10 s, refractory 1 ms), `Rate` (20 ms). Second-order sections took 2.0 ms at 1024
channels, coefficients as polynomials 3.2; sparse events 0.3 ms less than dense ones.

The chain's figure has no covariance, which favours the peer: its only call for that, `partial_fit`, solves at every
block as well. The part `partial_fit` says what that would add. The solve is `_solve_weights` on a covariance already
there, and `_on_weights_updated`, which lays the weights out: `partial_fit` without its product. Float64, as ours; the
part `float32` is the same on a float32 covariance. Times are of messages made beforehand.
"""

import warnings
from functools import partial

import numpy as np
from ezmsg.event.peak import ThresholdCrossingTransformer, ThresholdSettings
from ezmsg.event.rate import EventRateSettings, Rate
from ezmsg.learn.process.ssr import LRRSettings, LRRTransformer
from ezmsg.sigproc.asarray import AsArraySettings, AsArrayTransformer
from ezmsg.sigproc.butterworthfilter import ButterworthFilterSettings, ButterworthFilterTransformer
from ezmsg.util.messages.axisarray import AxisArray
from tests.benchmarks import data
from tests.benchmarks.workers import Work, median_ms, serve

PACKAGES = ("ezmsg-sigproc", "ezmsg-learn", "ezmsg-event", "ezmsg", "numpy", "scipy")


def messages(blocks: np.ndarray) -> list[AxisArray]:
    """Of blocks that follow each other."""
    channels = AxisArray.CoordinateAxis(data=np.arange(blocks.shape[2]).astype(str), dims=["ch"])
    return [
        AxisArray(
            block,
            dims=["time", "ch"],
            axes={"time": AxisArray.TimeAxis(fs=data.SRATE, offset=number * data.BLOCK / data.SRATE), "ch": channels},
            key="bench",
        )
        for number, block in enumerate(blocks)
    ]


def bandpass() -> ButterworthFilterTransformer:
    low, high = data.BAND
    settings = ButterworthFilterSettings(
        order=data.ORDER, cuton=low, cutoff=high, coef_type="sos", use_fast_sosfilt=True, thread_min_bytes=0
    )
    return ButterworthFilterTransformer(settings)


def fitted(blocks: np.ndarray, size: int | None) -> LRRTransformer:
    """From all blocks at once, in float64."""
    stage = LRRTransformer(LRRSettings(block_size=size))
    stage.partial_fit(messages(blocks.reshape(1, -1, blocks.shape[2]).astype(np.float64))[0])
    return stage


def chain(channels: int) -> Work:
    blocks = data.broadband(channels)
    ring = messages(blocks)
    trial = bandpass()
    filtered = np.stack([trial(message).data for message in ring])
    lrr = fitted(filtered, data.CLUSTER)
    threshold = ThresholdSettings(threshold=-data.THRESHOLD, refrac_dur=data.REFRACTORY_S, auto_scale_tau=10.0)
    stages = {
        "filter": bandpass(),
        "float32": AsArrayTransformer(AsArraySettings(dtype="float32")),
        "rereference": lrr,
        "crossings": ThresholdCrossingTransformer(threshold),
    }
    rate = Rate(EventRateSettings(bin_duration=data.BIN_S))
    next_message = data.in_turn(ring)

    def events() -> AxisArray:
        message = next_message()
        for stage in stages.values():
            message = stage(message)
        return message

    for _ in range(data.WARM_UP):
        rate(events())
    spikes = np.sum([events().data.sum(axis=0).todense() for _ in range(data.COUNTED)], axis=0)
    results = {"filtered": filtered[-1], "spikes": spikes}
    results["rereferenced"] = lrr(messages(filtered[-1:].astype(np.float32))[0]).data

    def parts() -> dict[str, float]:
        told, passed = {}, ring[-1]
        for name, stage in stages.items():
            told[name] = median_ms(partial(stage, passed))
            passed = stage(passed)
        told["rate"] = median_ms(partial(rate, passed))
        learner = LRRTransformer(LRRSettings(block_size=data.CLUSTER))
        told["partial_fit, not included"] = median_ms(partial(learner.partial_fit, stages["float32"](ring[-1])))
        return told

    return Work(lambda: rate(events()), results, parts)


def rereference(size: int | None) -> Work:
    blocks = data.broadband(1024)
    lrr = fitted(blocks, size)
    ring = messages(blocks)
    results = {"rereferenced": lrr(ring[-1]).data}
    next_message = data.in_turn(ring)
    return Work(lambda: lrr(next_message()), results)


def solve(lrr: LRRTransformer, covariance: np.ndarray) -> np.ndarray:
    lrr.state.weights = lrr._solve_weights(covariance)
    lrr._on_weights_updated()
    return lrr.state.weights


def solving() -> Work:
    blocks = data.broadband(1024)
    lrr = fitted(blocks, None)
    lrr(messages(blocks)[0])  # so that there is a transform to lay weights out for
    covariance = lrr.state.cxx
    single = covariance.astype(np.float32)
    results = {"weights": solve(lrr, covariance).copy()}
    return Work(
        lambda: solve(lrr, covariance), results, lambda: {"float32": median_ms(lambda: solve(lrr, single), 1.0)}
    )


WORKS = {
    **{f"chain_{channels}": partial(chain, channels) for channels in (96, 256, 1024, 4096)},
    "lrr_apply_1024_clustered": partial(rereference, data.CLUSTER),
    "lrr_apply_1024_dense": partial(rereference, None),
    "lrr_solve_1024_dense": solving,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(PACKAGES, WORKS)
