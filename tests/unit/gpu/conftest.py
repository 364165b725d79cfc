import pytest
import torch


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")],
        ),
    ]
)
def device(request):
    """PyTorch's CPU backend, which has to give the same, and a GPU where there is one."""
    return request.param
