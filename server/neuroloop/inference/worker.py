"""What runs in the inference process: models in memory, each answering a batch of inputs.

The functions are called by name through the pool of `inference.process`; the models are this process's only state.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import Conflict, ModelError
from neuroloop.inference.signature import Signature, Tensor
from neuroloop.models import decoder_files
from neuroloop.models.lnp import LNP

NICENESS = 5  # sessions come first

Arrays = dict[str, NDArray[Any]]


class Served(Protocol):
    """A model that answers requests, each by itself."""

    signature: Signature

    def infer(self, inputs: NDArray[Any]) -> Arrays: ...


class ServedDecoder:
    """A decoder. Input: rates, (batch, features), hertz; NaN where one is missing.

    index is -1 and label empty where the decoder abstains; reason then says why. A decoder of continuous targets gives
    those, of the rows as bins one after the other.
    """

    def __init__(self, weights: bytes) -> None:
        file = decoder_files.read(weights)
        self._decoder = decoder_files.load(file)
        self._targets = len(file.about.targets)
        if self._targets:
            self.signature = Signature(
                input=Tensor("rates", "FP64", (-1, file.about.features)),
                outputs=(Tensor("targets", "FP64", (-1, self._targets)), Tensor("reason", "BYTES", (-1,))),
            )
            self._decoder.predict(np.ones(file.about.features))
            return
        classes = len(self._decoder.classes)
        self.signature = Signature(
            input=Tensor("rates", "FP64", (-1, file.about.features)),
            outputs=(
                Tensor("scores", "FP64", (-1, classes)),
                Tensor("probability", "FP64", (-1, classes)),
                Tensor("index", "INT64", (-1,)),
                Tensor("label", "BYTES", (-1,)),
                Tensor("reason", "BYTES", (-1,)),
            ),
        )
        self._decoder.predict(np.ones(file.about.features))  # compiles

    def infer(self, inputs: NDArray[Any]) -> Arrays:
        if self._targets:
            return self._infer_targets(inputs)
        answers = []
        for rates in inputs:
            self._decoder.reset()  # every row is a question of its own
            answers.append(self._decoder.predict(rates))
        shape = (len(answers), len(self._decoder.classes))
        labels = ["" if answer.index is None else self._decoder.classes[answer.index] for answer in answers]
        return {
            "scores": np.array([answer.values for answer in answers], np.float64).reshape(shape),
            "probability": np.array([answer.probability for answer in answers], np.float64).reshape(shape),
            "index": np.array([-1 if answer.index is None else answer.index for answer in answers], np.int64),
            "label": np.array(labels, np.str_),
            "reason": np.array([answer.reason or "" for answer in answers], np.str_),
        }

    def _infer_targets(self, inputs: NDArray[Any]) -> Arrays:
        """Of bins one after the other, as a filter has to see them."""
        self._decoder.reset()
        answers = [self._decoder.predict(rates) for rates in inputs]
        values = np.array([answer.values for answer in answers], np.float64).reshape(len(answers), self._targets)
        return {"targets": values, "reason": np.array([answer.reason or "" for answer in answers], np.str_)}


class ServedEncoder:
    """An LNP encoder. Input: stimulus, (frames, channels, rows, columns); output: expected spikes, (frames, cells).

    Before the first frame there was the mean stimulus; no spikes are known.
    """

    def __init__(self, weights: bytes) -> None:
        self._bank = LNP.load(weights)
        self.signature = Signature(
            input=Tensor("stimulus", "FP64", (-1, *self._bank.frame)),
            outputs=(Tensor("rates", "FP32", (-1, len(self._bank.cells))),),
        )
        self._bank.predict(np.zeros(self._bank.frame))

    def infer(self, inputs: NDArray[Any]) -> Arrays:
        self._bank.reset()
        rates = np.array([self._bank.predict(frame).copy() for frame in inputs], np.float32)
        return {"rates": rates.reshape(len(inputs), len(self._bank.cells))}


_models: dict[str, Served] = {}


def begin() -> None:
    """At the start of the process: step back behind the sessions, and end with the process that started this one."""
    os.nice(NICENESS)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def load(key: str, kind: str, weights: bytes) -> Signature:
    """Make a model of its file, and let it answer once, so that everything is compiled. Raises ModelError."""
    if kind == "lrr":
        raise ModelError(f"model {key}: rereferencing weights (kind lrr) answer nothing; load a decoder or an encoder")
    model: Served = ServedEncoder(weights) if kind == "lnp" else ServedDecoder(weights)
    _models[key] = model
    return model.signature


def unload(key: str) -> None:
    _models.pop(key, None)


def infer(key: str, inputs: NDArray[Any]) -> Arrays:
    """The outputs for a batch. Raises ModelError for another shape, or outputs that are not finite."""
    model = _models.get(key)
    if model is None:
        raise Conflict(f"model {key} has been unloaded")
    expected = model.signature.input
    if inputs.shape[1:] != expected.shape[1:] or inputs.ndim != len(expected.shape):
        raise ModelError(f"{expected.name}: expected shape {list(expected.shape)}, got {list(inputs.shape)}")
    outputs = model.infer(inputs.astype(np.float64, copy=False))
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(f"model {key}: {name} are not finite for this input")
    return outputs
