import numpy as np
import pytest
import torch
from scipy import signal

from neuroloop.gpu.filter import MAX_SEGMENT, BlockFilter, block_matrix
from neuroloop.gpu.torch_device import TorchDevice
from neuroloop.signal.filter_design import design_bandpass

torch.set_num_threads(1)

SOS = design_bandpass((300.0, 6000.0), 4, 30_000.0, notch=[50.0])


def run(stage, data, n):
    output = []
    for block in data.reshape(-1, n, data.shape[1]):
        stage.step(torch.from_numpy(block))
        output.append(stage.out.numpy().copy())
    return np.concatenate(output)


def test_the_matrix_of_a_block_is_the_cascade():
    rng = np.random.default_rng(0)
    samples, state = rng.standard_normal((40, 3)), rng.standard_normal((len(SOS), 2, 3))
    output, after = signal.sosfilt(SOS, samples, axis=0, zi=state)
    product = block_matrix(SOS, 40) @ np.concatenate((samples, state.reshape(-1, 3)))
    np.testing.assert_allclose(product, np.concatenate((output, after.reshape(-1, 3))), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [1, 30, 300, MAX_SEGMENT, 1500])
@pytest.mark.parametrize(("band", "order"), [((300.0, 6000.0), 4), ((250.0, 5000.0), 2), ((1.0, 100.0), 2)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_blocks_are_filtered_within_a_ten_thousandth_of_the_output(n, band, order, offset):
    sos = design_bandpass(band, order, 30_000.0)
    count = 40 if n == 1 else -(-6000 // n)
    data = (8 * np.random.default_rng(0).standard_normal((n * count, 2)) + offset).astype(np.float32)
    stage = BlockFilter(TorchDevice("cpu"), sos, n, 2)
    stage.prime(data[0])
    steady = signal.sosfilt_zi(sos)[:, :, None] * data[0].astype(np.float64)
    exact, _ = signal.sosfilt(sos, data.astype(np.float64), axis=0, zi=steady)
    assert np.abs(run(stage, data, n) - exact).max() < 1e-4 * exact.std()


def test_a_long_block_is_cut_in_equal_segments():
    data = np.random.default_rng(0).standard_normal((3002, 2)).astype(np.float32)
    stage = BlockFilter(TorchDevice("cpu"), SOS, 1501, 2)
    np.testing.assert_allclose(run(stage, data, 1501), signal.sosfilt(SOS, data, axis=0), atol=1e-4)
    lengths = [segment.stop - segment.start for segment in stage._segments]
    assert sum(lengths) == 1501
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= MAX_SEGMENT


def test_float32_products_stay_float32_whatever_the_process_has_chosen():
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with TorchDevice("cpu").queue():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(chosen)
