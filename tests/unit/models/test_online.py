import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.models.online import check_label, check_sample


@pytest.mark.parametrize("label", [-1, 2, 99, 1.0, "up", None])
def test_a_label_that_is_no_class_names_the_classes(label):
    with pytest.raises(ModelError, match=f"label: {label} is no class; there are: 0 left, 1 right"):
        check_label(label, ("left", "right"))


def test_a_label_is_an_index_of_any_integer_type_or_a_name():
    assert [check_label(label, ("left", "right")) for label in (1, np.int8(1), np.uint64(1), "right")] == [1] * 4


@pytest.mark.parametrize("dtype", [bool, np.int16, np.uint8, np.float16, np.float64])
def test_any_real_type_but_float32_is_cast_to_float64(dtype):
    sample = check_sample(np.array([0, 1, 1], dtype), (3,))
    assert sample.dtype == np.float64
    assert sample.tolist() == [0.0, 1.0, 1.0]


def test_what_a_kernel_would_have_to_be_compiled_for_is_copied():
    fixed = np.ones(6, np.float32)
    fixed.flags.writeable = False
    for rates in (fixed, np.ones(12, np.float32)[::2], np.ones(6, ">f4"), np.ones((2, 3), np.float32).T.reshape(2, 3)):
        sample = check_sample(rates, (2, 3) if rates.ndim == 2 else (6,))
        assert sample.flags.carray
        assert sample.dtype.isnative


@pytest.mark.parametrize(
    ("rates", "shape", "message"),
    [
        (np.zeros(4), (3,), "expected 3 features, got 4"),
        (np.zeros((3, 2)), (2, 3), r"expected shape \(2, 3\), got \(3, 2\)"),
        (np.zeros((1, 3)), (3,), r"expected shape \(3,\), got \(1, 3\)"),
        (np.zeros(3, complex), (3,), "expected real numbers, got complex128"),
        (["a", "b", "c"], (3,), "expected real numbers"),
    ],
)
def test_what_is_not_a_rate_vector_is_refused_with_what_was_expected(rates, shape, message):
    with pytest.raises(ModelError, match=message):
        check_sample(rates, shape)
