import numpy as np

from neuroloop.models import spike_triggered


def windows(stimulus, counts, lags):
    """The average of stimulus windows, one by one: the definition."""
    starts = range(len(stimulus) - lags + 1)
    every = np.array([stimulus[start : start + lags] for start in starts])
    weights = counts[lags - 1 :]
    return (weights[:, None, None] * every).sum(axis=0) / weights.sum() - every.mean(axis=0)


def test_the_average_is_that_of_the_windows_before_the_spikes():
    generator = np.random.default_rng(0)
    stimulus, counts = generator.standard_normal((50, 4)), generator.poisson(0.5, (50, 2))
    average = spike_triggered.average(stimulus, counts, 3)
    for cell in range(2):
        np.testing.assert_allclose(average[cell], windows(stimulus, counts[:, cell], 3), atol=1e-12)


def test_spikes_that_are_not_used_have_no_say():
    generator = np.random.default_rng(0)
    stimulus, counts, use = generator.standard_normal((50, 4)), generator.poisson(0.5, (50, 1)), np.arange(50) < 40
    np.testing.assert_allclose(
        spike_triggered.average(stimulus, counts, 3, use), spike_triggered.average(stimulus[:40], counts[:40], 3)
    )


def test_a_silent_cell_has_an_average_of_zeros():
    stimulus = np.random.default_rng(0).standard_normal((50, 4))
    assert not spike_triggered.average(stimulus, np.zeros((50, 1)), 3).any()


def test_a_filter_of_rank_two_is_two_products():
    generator = np.random.default_rng(0)
    filters = np.einsum("crt,crhw->cthw", generator.standard_normal((3, 2, 6)), generator.standard_normal((3, 2, 4, 5)))
    space, time = spike_triggered.separate(filters, 2)
    np.testing.assert_allclose(np.einsum("crt,crhw->cthw", time, space), filters, atol=1e-12)
    np.testing.assert_allclose(np.square(space).sum(axis=(2, 3)), 1.0)


def test_a_cell_is_where_its_filter_is_largest_over_time_and_channels():
    filters = np.zeros((2, 3, 2, 4, 5))
    filters[0, 1, 1, 3, 2], filters[1, 0, 0, 0, 4] = -2.0, 1.0
    assert spike_triggered.locate(filters).tolist() == [[3, 2], [0, 4]]
