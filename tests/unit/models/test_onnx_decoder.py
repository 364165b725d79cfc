"""ONNX models as decoders, made with the package `onnx` and run by onnxruntime; skipped by name without either."""

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.onnx_decoder import ONNXDecoder, pack

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CLASSES = ["left", "right", "up"]
WEIGHTS = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def linear(shape=("batch", 4), outputs=("batch", 3), kind=onnx.TensorProto.FLOAT, weights=WEIGHTS):
    """The bytes of a model that multiplies by the weights; of a window, the sum over its bins."""
    helper = onnx.helper
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if len(shape) == 3:
        nodes = [
            helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=0),
            helper.make_node("MatMul", ["s", "w"], ["y"]),
        ]
    constants = [onnx.numpy_helper.from_array(weights.astype(dtype), "w")]
    if len(shape) == 3:
        constants.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, outputs)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def decoder(model, classes=CLASSES, features=4, **settings):
    file = decoder_files.read(pack(model, classes, features, settings))
    made = ONNXDecoder(classes, features, ONNXDecoder.settings_model.model_validate(file.about.settings))
    made.load_state_dict({"kind": "onnx", "classes": classes} | file.tensors)
    return made


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE])
def test_it_answers_what_the_model_gives(kind):
    rates = np.array([1.0, 2.0, 0.0, 3.0])
    answer = decoder(linear(kind=kind)).predict(rates)
    expected = rates @ WEIGHTS.astype(float)
    np.testing.assert_allclose(answer.values, expected, rtol=1e-6)
    np.testing.assert_allclose(answer.probability, np.exp(expected) / np.exp(expected).sum(), rtol=1e-5)
    assert answer.index == expected.argmax()


def test_a_model_of_a_window_sees_the_last_rate_vectors_and_abstains_until_there_are_so_many():
    model = decoder(linear(shape=(1, "bins", 4)), window=3)
    rates = np.random.default_rng(1).standard_normal((5, 4))
    answers = [model.predict(row) for row in rates]
    assert [answer.reason for answer in answers[:2]] == [f"filling: {n} of the window's 3 bins" for n in (1, 2)]
    np.testing.assert_allclose(answers[4].values, rates[2:].sum(axis=0) @ WEIGHTS, rtol=1e-5)
    model.reset()
    assert model.predict(rates[0]).reason.startswith("filling: 1")
    assert model.predict(np.full(4, np.nan)).reason == "missing: 4 of 4 features"


def test_probabilities_are_taken_as_they_are_and_may_be_below_the_threshold():
    uniform = np.full((4, 3), 0.1, np.float32)
    model = decoder(linear(weights=uniform), output="probabilities", threshold=0.5)
    answer = model.predict(np.array([1, 2, 3, 4]))
    np.testing.assert_allclose(answer.probability, 1 / 3, rtol=1e-6)
    assert (answer.index, answer.reason) == (None, "below threshold: left at 0.33, 0.5 is asked")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (b"no model", "onnx: the model cannot be read: "),
        (linear(shape=("batch", 5), weights=np.ones((5, 3), np.float32)), r"\(1, 4\) or \(1, window, 4\), got .*5"),
        (linear(outputs=("batch", 2), weights=WEIGHTS[:, :2]), r"an output \(1, 3\), for the classes; got y .*2"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_by_name_and_changes_nothing(model, words):
    good = decoder(linear())
    state = good.state_dict()
    with pytest.raises(ModelError, match=words):
        good.load_state_dict(state | {"model": np.frombuffer(model, np.uint8)})
    assert good.predict(np.ones(4)).index is not None


def test_before_a_model_is_loaded_it_abstains_and_no_label_teaches_it():
    fresh = ONNXDecoder(CLASSES, 4)
    assert fresh.predict(np.ones(4)).reason.startswith("untrained: ")
    with pytest.raises(ModelError, match="upload a new version"):
        fresh.learn(np.ones(4), 0)


@pytest.mark.parametrize("seen", [0, 2, 7])
def test_with_its_memory_another_one_goes_on_to_the_bit(seen):
    one, other = (decoder(linear(shape=(1, "bins", 4)), window=3) for _ in range(2))
    rates = np.random.default_rng(1).standard_normal((12, 4))
    for row in rates[:seen]:
        one.predict(row)
    other.recall(one.memory())
    for row in rates[seen:]:
        mine, yours = one.predict(row), other.predict(row)
        assert (mine.reason, mine.values.tobytes()) == (yours.reason, yours.values.tobytes())
