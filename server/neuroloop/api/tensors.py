"""Requests and answers of the Open Inference Protocol v2, as JSON alone or as JSON followed by binary tensors.

With binary tensors the header `Inference-Header-Content-Length` says where the JSON ends; each tensor follows in the
order in which the JSON names it, little-endian, row by row, `BYTES` as strings with a 4-byte length before each.
Source: the KServe v2 REST specification and its binary tensor data extension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from neuroloop.api.errors import Malformed

Array = NDArray[Any]

NUMBERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
DATATYPES = {dtype: name for name, dtype in NUMBERS.items()}


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")  # extensions of the protocol that we don't know

    parameters: dict[str, Any] = Field(default_factory=dict)


class InputTensor(_Model):
    name: str
    shape: list[Annotated[int, Field(ge=0)]] = Field(max_length=8)
    datatype: str
    data: list[Any] | None = None


class RequestedOutput(_Model):
    name: str


class InferRequest(_Model):
    """The JSON part of a request."""

    id: str | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=16)
    outputs: list[RequestedOutput] = Field(default_factory=list, max_length=16)


@dataclass(frozen=True)
class Encoded:
    """An answer: its bytes, and how many of them are JSON where tensors follow."""

    body: bytes
    json_length: int | None


def decode(body: bytes, json_length: int | None) -> tuple[InferRequest, dict[str, Array]]:
    """A request and its input tensors by name. Raises Malformed, saying which tensor and what is wrong with it."""
    length = len(body) if json_length is None else json_length
    if not 0 <= length <= len(body):
        raise Malformed(f"Inference-Header-Content-Length: got {length}, but the body has {len(body)} bytes")
    try:
        request = InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"]) or "request"
        raise Malformed(f"{key}: {fault['msg']}") from error
    tensors: dict[str, Array] = {}
    for tensor in request.inputs:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            tensors[tensor.name] = _from_list(tensor)
            continue
        if not isinstance(size, int) or not 0 <= size <= len(body) - length:
            left = len(body) - length
            raise Malformed(f"{tensor.name}: binary_data_size: expected at most the {left} bytes left, got {size!r}")
        tensors[tensor.name] = _from_bytes(tensor, body[length : length + size])
        length += size
    if length < len(body):
        raise Malformed(f"{len(body) - length} bytes follow the last tensor")
    return request, tensors


def _dtype(tensor: InputTensor) -> np.dtype[Any]:
    if tensor.datatype not in NUMBERS:
        raise Malformed(
            f"{tensor.name}: datatype: expected a number ({', '.join(NUMBERS)}), got {tensor.datatype[:32]!r}"
        )
    return NUMBERS[tensor.datatype]


def _from_list(tensor: InputTensor) -> Array:
    if tensor.data is None:
        raise Malformed(f"{tensor.name}: has neither data nor binary_data_size")
    try:
        flat = np.asarray(tensor.data, dtype=_dtype(tensor)).reshape(-1)
    except (ValueError, TypeError, OverflowError) as error:
        raise Malformed(f"{tensor.name}: data: {error}") from error
    return _shaped(tensor, flat)


def _from_bytes(tensor: InputTensor, data: bytes) -> Array:
    dtype = _dtype(tensor)
    if len(data) % dtype.itemsize:
        raise Malformed(f"{tensor.name}: {len(data)} bytes are no whole number of {tensor.datatype}")
    return _shaped(tensor, np.frombuffer(data, dtype))


def _shaped(tensor: InputTensor, flat: Array) -> Array:
    if flat.size != math.prod(tensor.shape):
        raise Malformed(
            f"{tensor.name}: expected {math.prod(tensor.shape)} values for shape {tensor.shape}, got {flat.size}"
        )
    return flat.reshape(tensor.shape)


def encode(model: str, version: str, request: InferRequest, outputs: Mapping[str, Array]) -> Encoded:
    """The answer with the outputs that the request names, all where it names none; arrays of text are BYTES.

    Binary where the request asks for it. Raises Malformed for an output that is not there.
    """
    for output in request.outputs:
        if output.name not in outputs:
            raise Malformed(f"outputs: there is no {output.name[:64]!r}; there are: {', '.join(outputs)}")
    wanted = [output.name for output in request.outputs] or list(outputs)
    asked = {output.name: output.parameters.get("binary_data") for output in request.outputs}
    by_default = bool(request.parameters.get("binary_data_output", False))
    parts: list[bytes] = []
    described: list[dict[str, Any]] = []
    for name in wanted:
        array = outputs[name]
        about: dict[str, Any] = {"name": name, "datatype": _datatype(array), "shape": list(array.shape)}
        binary = asked.get(name)
        if by_default if binary is None else binary:
            parts.append(_bytes(array))
            about["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            about["data"] = array.reshape(-1).tolist()
        described.append(about)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    head = to_json(answer, inf_nan_mode="null")
    return Encoded(b"".join((head, *parts)), len(head) if parts else None)


def _datatype(array: Array) -> str:
    return "BYTES" if array.dtype.kind == "U" else DATATYPES[array.dtype]


def _bytes(array: Array) -> bytes:
    if array.dtype.kind != "U":
        return np.ascontiguousarray(array).tobytes()
    texts = [str(text).encode() for text in array.reshape(-1)]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
