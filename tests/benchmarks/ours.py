"""Our side of the table: the library's own calls, as a session makes them. A worker; see `workers`."""

from functools import partial
from itertools import cycle

import numpy as np
from tests.benchmarks import data
from tests.benchmarks.workers import Work, median_ms, serve

from neuroloop.models.gsnn_graph import graph_of
from neuroloop.models.gsnn_inference import GSNNInference
from neuroloop.models.gsnn_parameters import make_parameters
from neuroloop.models.gsnn_settings import GSNNSettings
from neuroloop.models.lnp import LNP, LNPSettings
from neuroloop.models.maxrate import MaxRate
from neuroloop.signal.covariance import Covariance, CovarianceSnapshot, snapshot_of
from neuroloop.signal.filter_design import design_bandpass
from neuroloop.signal.filters import SosFilter
from neuroloop.signal.regression import solve
from neuroloop.signal.rereference import Rereference
from neuroloop.signal.spike_chain import SpikeChain
from neuroloop.signal.spikes import ThresholdCrossings
from neuroloop.signal.weights import Weights

PACKAGES = ("neuroloop", "numpy", "numba", "scipy", "torch")


def clusters(channels: int, size: int) -> list[list[int]]:
    return [list(range(first, min(first + size, channels))) for first in range(0, channels, size)]


def fit(snapshot: CovarianceSnapshot) -> Weights:
    """Without a ridge and about zero, as the peer; the data are few, and enough for a benchmark."""
    labels = [str(channel) for channel in range(snapshot.channel_count)]
    return solve(snapshot, labels, ridge=0.0, min_samples_per_channel=1, center=False, version=1, source="fit")


def bandpass(channels: int) -> SosFilter:
    return SosFilter(design_bandpass(data.BAND, data.ORDER, data.SRATE), channels)


def chain(channels: int) -> Work:
    """One block through filter, rereference, crossings and covariance, and into its bin of 20 ms."""
    blocks = data.broadband(channels)
    groups = clusters(channels, data.CLUSTER)
    trial = bandpass(channels)
    filtered = np.stack([trial(block).copy() for block in blocks])
    rereference = Rereference(groups, channels)
    rereference.set_weights(fit(snapshot_of(filtered, groups)))
    results = {"filtered": filtered[-1], "rereferenced": rereference(filtered[-1]).copy()}
    crossings = ThresholdCrossings(channels, data.SRATE, data.THRESHOLD, 1000 * data.REFRACTORY_S)
    stages = SpikeChain(bandpass(channels), crossings, rereference, Covariance(groups, channels))
    next_block, ends_bin = data.in_turn(blocks), cycle((False, True))
    counts = np.zeros(channels, np.float32)
    rates = np.zeros(channels, np.float32)

    def step() -> None:
        np.add(counts, stages(next_block()), out=counts)
        if next(ends_bin):
            np.divide(counts, data.BIN_S, out=rates)
            counts[:] = 0
        stages.absorb()

    for _ in range(data.WARM_UP):
        step()
    results["spikes"] = np.sum([stages(next_block()).copy() for _ in range(data.COUNTED)], axis=0)
    return Work(step, results)


def rereference(size: int) -> Work:
    """One block, weights fitted."""
    blocks = data.broadband(1024)
    groups = clusters(1024, size)
    stage = Rereference(groups, 1024)
    stage.set_weights(fit(snapshot_of(blocks, groups)))
    results = {"rereferenced": stage(blocks[-1]).copy()}
    next_block = data.in_turn(blocks)
    return Work(lambda: stage(next_block()), results)


def solving() -> Work:
    """From the covariance to weights that are laid out to be applied; float64."""
    snapshot = snapshot_of(data.broadband(1024), clusters(1024, 1024))
    stage = Rereference(snapshot.clusters, 1024)
    results = {"weights": fit(snapshot).matrix}
    return Work(lambda: stage.prepare(fit(snapshot)), results)


def maxrate() -> Work:
    """Predict one bin, then learn from it: our default, calibration included. Compared in the published form."""
    rates, labels = data.labelled_rates()
    classes = [str(label) for label in range(data.CLASSES)]
    published, decoder = MaxRate.published(classes, data.FEATURES), MaxRate(classes, data.FEATURES)
    bins = list(zip(rates, labels.tolist(), strict=True))
    answers = []
    for sample, label in bins:
        answers.append(published.predict(sample).index)
        published.learn(sample, label)
    results = {"classes": np.array([-1 if answer is None else answer for answer in answers])[data.CLASSES :]}
    next_bin = data.in_turn(bins)

    def step() -> None:
        sample, label = next_bin()
        decoder.predict(sample)
        decoder.learn(sample, label)

    return Work(step, results, lambda: {"predict": median_ms(lambda: decoder.predict(rates[0]))})


def lnp() -> Work:
    """One new frame for all cells."""
    space, time = data.kernels()
    settings = LNPSettings(lags=data.LAGS, rank=data.RANK, nonlinearity="softplus")
    bank = LNP(data.CELLS, (1, *data.FRAME), settings, space=space, time=time)
    frames = data.frames()
    results = {"rates": np.stack([bank.predict(frame).copy() for frame in frames])[data.LAGS - 1 :]}
    next_frame = data.in_turn(frames)
    return Work(lambda: bank.predict(next_frame()), results)


def gsnn() -> Work:
    """One rate vector to logits and probabilities."""
    arrays = data.gsnn()
    source, target = arrays.pop("edges")
    outputs = data.FUNCTIONS + data.INPUTS
    between = (source < data.FUNCTIONS) & (target < data.FUNCTIONS) & (source != target)
    lead_in, lead_out = source >= data.FUNCTIONS, target >= outputs
    graph = graph_of(
        (data.INPUTS, data.FUNCTIONS, data.OUTPUTS),
        np.stack([source[lead_in] - data.FUNCTIONS, target[lead_in]]),
        np.stack([source[between], target[between]]),
        np.stack([source[lead_out], target[lead_out] - outputs]),
    )
    settings = GSNNSettings(channels=data.SITE_CHANNELS, layers=data.LAYERS, norm="layer")
    parameters = make_parameters(settings, graph, arrays)
    network = GSNNInference(graph, settings, parameters, np.zeros(data.INPUTS), np.ones(data.INPUTS))
    values, probability = np.zeros(data.OUTPUTS), np.zeros(data.OUTPUTS)
    inputs, logits = data.gsnn_inputs(), []
    for rates in inputs:
        network.answer(rates, 1.0, values, probability)
        logits.append(values.copy())
    next_input = data.in_turn(inputs)
    return Work(lambda: network.answer(next_input(), 1.0, values, probability), {"logits": np.stack(logits)})


def lfr_epoch() -> Work:
    """All windows once, in batches, as a fit trains on them; a loss that isn't divided by the batch, as the peer's."""
    import torch
    from tests.benchmarks.networks import FIT, make

    from neuroloop.models.lfr_torch import LearnFromRandomness

    torch.set_num_threads(1)
    made = make()
    model = LearnFromRandomness(made.backbone, made.projectors, made.predictors, made.adapter, normalize=False)
    optimizer = torch.optim.AdamW(model.learned_parameters(), FIT.learning_rate, weight_decay=FIT.weight_decay)
    batches = torch.split(made.windows, data.BATCH)

    def step() -> None:
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            model.loss(batch).backward()
            optimizer.step()
            model.after_step()

    with torch.no_grad():
        losses = [model.loss(batch).item() for batch in batches]
    return Work(step, {"losses": losses})


def lnp_fit() -> Work:
    """All cells at once, from counts to kernels; it stops by itself."""
    from neuroloop.models.lnp_fit import fit, score

    frames, counts = data.lnp_recording()
    learned, settings = data.FIT_BINS - data.HELD_OUT, LNPSettings(lags=data.FIT_LAGS, nonlinearity="softplus")

    def step() -> LNP:
        return fit(frames[:learned], counts[:learned], settings).model

    scored = score(step(), frames, counts, np.arange(data.FIT_BINS) >= learned)
    return Work(step, {}, lambda: {"held-out correlation of five": float(scored.correlation[:5].mean())})


WORKS = {
    **{f"chain_{channels}": partial(chain, channels) for channels in (96, 256, 1024, 4096)},
    "lrr_apply_1024_clustered": partial(rereference, data.CLUSTER),
    "lrr_apply_1024_dense": partial(rereference, 1024),
    "lrr_solve_1024_dense": solving,
    "maxrate_step_1024x10": maxrate,
    "lnp_frame_100x3x30x15x15": lnp,
    "gsnn_decision_200x1000x4": gsnn,
    "lfr_epoch": lfr_epoch,
    "lnp_fit_100_cells": lnp_fit,
}

if __name__ == "__main__":
    serve(PACKAGES, WORKS)
