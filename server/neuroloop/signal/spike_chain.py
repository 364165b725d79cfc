"""Raw electrode voltage to spikes: band-pass, rereference, threshold crossings, in one pass over tiles of channels.

The stages are those of `filters`, `rereference`, `covariance` and `spikes`. Where the weights stay
within clusters that have tiles, and thresholds are known, a block goes through all of them tile by tile: a tile's
samples stay in the caches from the first section of the filter to the last comparison. Otherwise the stages run one
after the other over the whole block. Both give the same bits: they call the same functions on the same tiles.

Per sample and channel, with clusters of 32 and 4 sections: 20 multiply-adds of the filter, 32 of the rereference,
24 of the covariance (half of its square matters), some 15 other operations. 1024 channels x 300 samples: 0.31 million
samples, 23 million multiply-adds and 5 million others; 0.3 ms at the 84 billion multiply-adds per second that one core
does. Measured 0.5 to 0.6 ms; 16 ms with ezmsg (see `tests/benchmarks/RESULTS.md`).

Samples that are NaN, infinite or beyond 1e15 are taken as missing: the channel's last usable value stands in, so
that nothing leaks to other channels, and the block teaches nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel
from neuroloop.memory import array_bytes
from neuroloop.signal.covariance import BlockStatistics, Covariance, statistics_tile
from neuroloop.signal.filters import SosFilter
from neuroloop.signal.lanes import DETECT_ROWS, flush_denormals, restore_denormals
from neuroloop.signal.rereference import Rereference
from neuroloop.signal.spikes import ThresholdCrossings, detect_tile
from neuroloop.signal.tiles import filter_tile, load_tile, multiply_tile, store_tile, tile_buffer

F32 = NDArray[np.float32]

LARGEST = 1e15  # of a usable sample: its square, summed over a block, stays far from the end of float32


@kernel
def _count_unusable(block: Any, unusable: Any) -> int:
    """block: (n, channels); unusable: (channels,) float32, samples of each that cannot be used. Returns their sum."""
    zero, one, largest = np.float32(0), np.float32(1), np.float32(LARGEST)
    for c in range(block.shape[1]):
        unusable[c] = zero
    for t in range(block.shape[0]):
        for c in range(block.shape[1]):
            unusable[c] += zero if abs(block[t, c]) <= largest else one
    total = 0
    for c in range(block.shape[1]):
        total += int(unusable[c])
    return total


@kernel
def _hold(block: Any, held: Any, out: Any) -> None:
    """The block with the channel's last usable value in place of those that are not; held: (channels,), updated."""
    largest = np.float32(LARGEST)
    for t in range(block.shape[0]):
        for c in range(block.shape[1]):
            if abs(block[t, c]) <= largest:
                held[c] = block[t, c]
            out[t, c] = held[c]


@kernel
def _run(
    block: Any, order: Any, first: Any, runs: Any, at: Any,
    sos: Any, filter_state: Any, matrices: Any, learns: bool, means: Any, products: Any,
    refractory: float, period: int, phase: int, follow: Any, spike_state: Any, sigma: Any,
    tile: Any, clean: Any, centered: Any, offset: Any, filter_local: Any, spike_local: Any, sigma_local: Any,
) -> int:  # fmt: skip
    """All stages, tile by tile. The names are those of the stages' kernels; returns the new phase of the spikes."""
    control = flush_denormals()
    samples, after = block.shape[0], phase
    for number in range(len(runs)):
        start, stop = first[number], first[number + 1]
        channels, run, width = order[start:stop], runs[number], stop - start
        load_tile(block, channels, run, tile)
        load_tile(filter_state, channels, run, filter_local)
        filter_tile(tile, samples, sos, filter_local[:, :width])
        store_tile(filter_local, channels, run, filter_state)
        if learns:
            product = products[at[number] : at[number + 1]].reshape(width, width)
            statistics_tile(tile, samples, means[start:stop], product, centered, offset[:, :width])
        matrix = matrices[at[number] : at[number + 1]].reshape(width, width)
        multiply_tile(tile, samples, matrix, clean)
        load_tile(spike_state, channels, run, spike_local)
        load_tile(sigma, channels, run, sigma_local)
        after = detect_tile(
            clean, 0, samples, refractory, period, phase, follow, spike_local[:, :width], sigma_local[:, :width]
        )
        store_tile(spike_local, channels, run, spike_state)
        store_tile(sigma_local, channels, run, sigma)
    restore_denormals(control)
    return after


class SpikeChain:
    """Counts the spikes of each channel in each block, and gathers the statistics that weights are solved from.

    The stages are the caller's, for the same channels, and may be read and set between two blocks. rereference and
    covariance have the same clusters; without them every channel stays as it is.
    """

    def __init__(
        self,
        filter: SosFilter,
        crossings: ThresholdCrossings,
        rereference: Rereference | None = None,
        covariance: Covariance | None = None,
    ) -> None:
        self.channels = channels = filter.channels
        self.filter = filter
        self.crossings = crossings
        self.rereference = rereference or Rereference([], channels)
        self.covariance = covariance or Covariance(self.rereference.clusters, channels)
        if self.covariance.clusters != self.rereference.clusters:
            raise ValueError("the rereference and the covariance have different clusters; give both the same")
        self.nonfinite = 0
        self._held: F32 = np.zeros(channels, np.float32)
        self._unusable: F32 = np.zeros(channels, np.float32)
        self._clean_block: F32 = np.zeros((0, channels), np.float32)
        self._filtered: F32 | None = None
        self._statistics: BlockStatistics | None = None
        self._has_tiles = not self.rereference.tiles.large and self.filter.precision == "single"
        self._allocate(0)
        self._compile()

    def _allocate(self, samples: int) -> None:
        widest, dtype = self.rereference.tiles.widest, self.covariance.dtype
        self._buffers = (
            tile_buffer(samples, widest, np.float32),
            tile_buffer(samples, widest, np.float32),
            tile_buffer(samples, widest, dtype),
            np.zeros((1, widest), dtype),
            np.zeros((len(self.filter.state), widest), np.float32),
            np.zeros((DETECT_ROWS, widest), np.float32),
            np.zeros((1, widest)),
        )
        self._rows = samples

    def _compile(self) -> None:
        """Compile what the stages have not, now and not at the first block; every state stays as it was."""
        nothing = np.zeros((1, self.channels), np.float32)
        self._usable(nothing)
        _hold(nothing[:0], self._held, nothing[:0])
        if self._has_tiles:
            self._in_tiles(nothing[:0], False)

    def __call__(self, block: F32, learn: bool = True) -> F32:
        """Spikes of each channel in a block, (n, channels) float32 -> (channels,) float32, valid until the next call.

        learn: whether the block counts for the covariance, once `absorb` is called.
        """
        block, usable = self._usable(np.ascontiguousarray(block))
        learn = learn and usable
        self._statistics = self._filtered = None
        crossings = self.crossings
        crossings.conclude_calibration()
        has_tiles = self._has_tiles and crossings.fits_tiles and self.rereference.prepared.dense is None
        if has_tiles and crossings.calibrated:
            return self._in_tiles(block, learn)
        filtered = self.filter(block)
        if learn:
            self._filtered = filtered
        return crossings(self.rereference(filtered))

    def _usable(self, block: F32) -> tuple[F32, bool]:
        """The block with samples that cannot be used held at the last value, and whether there was none."""
        unusable = _count_unusable(block, self._unusable)
        if unusable == 0:
            if len(block):
                self._held[:] = block[-1]
            return block, True
        self.nonfinite += unusable
        if len(self._clean_block) != len(block):
            self._clean_block = np.zeros_like(block)
        _hold(block, self._held, self._clean_block)
        return self._clean_block, False

    def _in_tiles(self, block: F32, learn: bool) -> F32:
        if self._rows < len(block):
            self._allocate(len(block))
        tiles, covariance, crossings = self.rereference.tiles, self.covariance, self.crossings
        crossings.counts[:] = 0
        crossings.phase = _run(
            block, tiles.order, tiles.first, tiles.runs, tiles.at,
            self.filter.coefficients, self.filter.state, self.rereference.prepared.matrices,
            learn, covariance.block_mean, covariance.products,
            crossings.refractory, crossings.period, crossings.phase, crossings.follow, crossings.state,
            crossings.sigma_row, *self._buffers,
        )  # fmt: skip
        if learn:
            self._statistics = covariance.written(len(block))
        return crossings.counts

    def statistics(self) -> BlockStatistics | None:
        """Of the last block, for the covariance; None where it does not count. Valid until the next block."""
        if self._statistics is None and self._filtered is not None:
            self._statistics = self.covariance.statistics(self._filtered)
        return self._statistics

    def absorb(self) -> None:
        """Take the last block into the covariance: not needed for its answer, so it may come after."""
        statistics = self.statistics()
        if statistics is not None:
            self.covariance.absorb(statistics)

    @property
    def memory_bytes(self) -> int:
        """Of all arrays that live as long as the chain: state, statistics, weights, buffers."""
        return array_bytes(self)

    def prime(self, sample: F32) -> None:
        """Start as if the channels had stood at these values for ever; see `SosFilter.prime`. sample: (channels,)."""
        usable = np.abs(sample) <= LARGEST
        self.filter.prime(np.where(usable, sample, np.float32(0)))
        self._held[:] = np.where(usable, sample, np.float32(0))

    def interrupt(self) -> None:
        """The next sample does not follow the last one; see `ThresholdCrossings.interrupt`."""
        self.crossings.interrupt()

    def reset(self) -> None:
        """Back to the beginning, but for the weights."""
        self.filter.reset()
        self.covariance.reset()
        self.crossings.reset()
        self._held[:] = 0
        self.nonfinite = 0

    def state_dict(self) -> dict[str, Any]:
        learned = {"rereference": self.rereference.state_dict(), "covariance": self.covariance.state_dict()}
        return self.stream_state() | learned

    def stream_state(self) -> dict[str, Any]:
        """The state but for the weights and their statistics, which take the most room."""
        return {
            "filter": self.filter.state_dict(),
            "crossings": self.crossings.state_dict(),
            "held": self._held.copy(),
            "nonfinite": self.nonfinite,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("filter", "rereference", "covariance", "crossings"):
            if name in state:  # not those of a `stream_state`
                getattr(self, name).load_state_dict(state[name])
        self._held[:] = state["held"]
        self.nonfinite = int(state["nonfinite"])
