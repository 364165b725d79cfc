"""Any ONNX model as a decoder, run by onnxruntime (extra `onnx`) on one thread.

Input: (1, features), or (1, window, features), the last rate vectors, oldest first, of which the decoder keeps the
window itself and abstains until it is full. Output: (1, classes). The model's file lies in the decoder's, as the bytes
of the tensor `model`; `pack` puts it there. It does not learn in a session.

onnxruntime is imported when such a model is loaded, beside the loop; it does not hold the interpreter while it runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.base import Scores, check_same, check_settings
from neuroloop.models.online import check_sample
from neuroloop.models.onnx_settings import ONNXSettings

F64 = NDArray[np.float64]

TYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(double)": np.float64}


def pack(
    model: bytes,
    classes: Sequence[str],
    features: int,
    settings: Mapping[str, Any] | None = None,
    channels: Sequence[str] | None = None,
) -> bytes:
    """A file for the registry out of an .onnx file. Whether the model can be run shows when it is loaded."""
    about = decoder_files.About(
        kind="onnx",
        settings=check_settings("onnx", ONNXSettings, settings or {}).model_dump(mode="json"),
        classes=list(classes),
        features=features,
        channels=None if channels is None else list(channels),
    )
    return decoder_files.write(decoder_files.DecoderFile(about, {"model": np.frombuffer(model, np.uint8)}))


class ONNXDecoder:
    """Answers with what an ONNX model gives. features: how many, or their shape."""

    kind = "onnx"
    online = False
    settings_model = ONNXSettings

    def __init__(
        self, classes: Sequence[str], features: int | Sequence[int], settings: ONNXSettings | None = None
    ) -> None:
        self.classes = tuple(classes)
        self.shape = tuple(int(size) for size in np.atleast_1d(features))
        self.features = math.prod(self.shape)
        self.settings = settings or ONNXSettings()
        self._model: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._opened: _Opened | None = None
        self._window = np.zeros((1, self.features))
        self._filled = 0

    def predict(self, rates: NDArray[Any]) -> Scores:
        """The scores for the window that ends with this rate vector, (features,) of any real type."""
        sample = check_sample(rates, self.shape)
        if self._opened is None:
            return self._abstain("untrained: load a version with an ONNX model")
        missing = int(np.count_nonzero(~np.isfinite(sample)))
        if missing:
            self.reset()
            return self._abstain(f"missing: {missing} of {self.features} features")
        self._window[:-1] = self._window[1:]
        self._window[-1] = sample
        self._filled = min(self._filled + 1, len(self._window))
        if self._filled < len(self._window):
            return self._abstain(f"filling: {self._filled} of the window's {len(self._window)} bins")
        return self._answer(self._opened.run(self._window, len(self.classes)))

    def _answer(self, values: F64) -> Scores:
        if not np.isfinite(values).all():
            return self._abstain("out of range: the model gives values that are not finite")
        index = int(values.argmax())
        if self.settings.output == "probabilities":
            probability = np.clip(values, 0.0, None)
        else:
            probability = np.exp((values - values[index]) / self.settings.temperature)
        total = probability.sum()
        probability = probability / total if total > 0 else np.full(len(values), 1 / len(values))
        reason = None
        if probability[index] < (self.settings.threshold or 0.0):
            asked = f"{self.settings.threshold:g} is asked"
            reason = f"below threshold: {self.classes[index]} at {probability[index]:.2f}, {asked}"
        return Scores(values, index if reason is None else None, reason, probability)

    def _abstain(self, reason: str) -> Scores:
        return Scores(np.zeros(len(self.classes)), None, reason, np.zeros(len(self.classes)))

    def learn(self, rates: NDArray[Any], label: int | str, duration_s: float = 1.0) -> None:
        """Raises ModelError: it was trained elsewhere."""
        raise ModelError("onnx does not learn in a session: train it elsewhere and upload a new version")

    def reset(self) -> None:
        """Start an empty window."""
        self._filled = 0

    def memory(self) -> dict[str, Any]:
        """A copy of the window."""
        return {"window": self._window.copy(), "filled": self._filled}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on with that window."""
        self._window[:], self._filled = memory["window"], int(memory["filled"])

    def learned(self) -> dict[str, int]:
        """Not known."""
        return dict.fromkeys(self.classes, 0)

    def state_dict(self) -> dict[str, Any]:
        about = {"kind": self.kind, "classes": list(self.classes), "settings": self.settings.model_dump(mode="json")}
        return about | {"model": self._model.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a model over, and run it once.

        Raises ModelError, and changes nothing, where it is of other classes or features, cannot be read, or onnxruntime
        is not installed.
        """
        check_same(state, self.kind, classes=self.classes)
        model = np.asarray(state.get("model"))
        if model.dtype != np.uint8 or model.ndim != 1:
            raise ModelError(f"decoder state: expected model as the bytes of a file, got {model.dtype} {model.shape}")
        opened = None
        if model.size:
            opened = _open(model.tobytes(), self.features, len(self.classes), self.settings.window)
        self._model, self._opened = model.copy(), opened
        self._window = np.zeros((1 if opened is None else opened.window, self.features))
        self.reset()


@dataclass(frozen=True, eq=False, slots=True)
class _Opened:
    """A model at work. shape: of its input; window: rate vectors in it."""

    session: Any
    input: str
    output: str
    dtype: type[np.floating[Any]]
    shape: tuple[int, ...]
    window: int

    def run(self, window: F64, classes: int) -> F64:
        """window: (window, features). Returns (classes,). Raises ModelError for an output of another shape."""
        (found,) = self.session.run([self.output], {self.input: window.astype(self.dtype).reshape(self.shape)})
        values: F64 = np.asarray(found, np.float64)
        if values.shape != (1, classes):
            raise ModelError(f"onnx: output {self.output!r}: expected (1, {classes}), got {values.shape}")
        return values.reshape(classes)


def _open(model: bytes, features: int, classes: int, window: int) -> _Opened:
    """The model, run once. window: where the model leaves that open. Raises ModelError."""
    session = _inference(model)
    (given, *others), outputs = session.get_inputs(), session.get_outputs()
    if others:
        raise ModelError(f"onnx: expected one input, got {', '.join(one.name for one in (given, *others))}")
    if given.type not in TYPES:
        raise ModelError(f"onnx: input {given.name!r}: expected floats or doubles, got {given.type}")
    axes = given.shape
    if len(axes) not in (2, 3) or not (_fits(axes[0], 1) and _fits(axes[-1], features)):
        wanted = f"(1, {features}) or (1, window, {features})"
        raise ModelError(f"onnx: input {given.name!r}: expected {wanted}, got {axes}")
    fitting = [one.name for one in outputs if len(one.shape) == 2 and _fits(one.shape[1], classes)]
    if not fitting:
        came = "; ".join(f"{one.name} {one.shape}" for one in outputs)
        raise ModelError(f"onnx: expected an output (1, {classes}), for the classes; got {came}")
    if len(axes) == 2:
        shape: tuple[int, ...] = (1, features)
        window = 1
    else:
        window = axes[1] if isinstance(axes[1], int) else window
        shape = (1, window, features)
    opened = _Opened(session, given.name, fitting[-1], TYPES[given.type], shape, window)
    opened.run(np.zeros((window, features)), classes)
    return opened


def _inference(model: bytes) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModelError("decoder kind 'onnx' needs onnxruntime: pip install 'neuroloop[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"onnx: the model cannot be read: {error}") from error


def _fits(size: Any, expected: int) -> bool:
    """Whether an axis, a number or a name where the model leaves it open, can have this size."""
    return not isinstance(size, int) or size == expected
