"""What can be asked of a session, and the thread that listens for it.

One request, one reply: `[number, MessagePack {"command": name, ...}]` over a ZeroMQ ROUTER socket, answered by
`{"ok": true, "result": ...}` or `{"ok": false, "error": class, "detail": text}`.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import structlog
import zmq

from neuroloop.errors import Conflict, ModelError, NeuroloopError, NotFound, Unavailable
from neuroloop.logs import REQUEST_ID
from neuroloop.session import decoder_commands, encoder_commands, recording_commands
from neuroloop.session.curve import Keys, guard
from neuroloop.session.inbox import Command, End, Reply, request_behind
from neuroloop.session.loop import Loop
from neuroloop.session.rereferencing import Rereferencing
from neuroloop.session.training_data import page
from neuroloop.signal.weights import Weights

log = structlog.get_logger(__name__)

ANSWER_S = 10.0
PATIENCE_S = {
    "decoder_load": 60.0,
    "encoder_load": 60.0,
    "recording_stop": 30.0,
}  # of a kind that compiles for the first time
WAITING_LIMIT = 256
MODES = ("frozen", "incremental", "forgetting")


def _rereferencing(loop: Loop) -> Rereferencing:
    name = loop.session.name
    if loop.chain is None:
        raise Conflict(f"session {name!r}: the stream has not been found yet, so there is nothing to rereference")
    if loop.chain.rereferencing is None:
        kind = loop.session.front_end.kind
        why = f"its front end is {kind}" if kind in ("counts", "covariance") else "rereference.enabled is false"
        raise Conflict(f"session {name!r} has no rereference: {why}")
    return loop.chain.rereferencing


def _number(
    arguments: dict[str, Any], key: str, *, above: float | None = None, least: float | None = None
) -> float | None:
    value = arguments.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelError(f"{key}: expected a finite number, got {value!r}")
    if above is not None and not value > above:
        raise ModelError(f"{key}: expected more than {above:g}, got {value!r}")
    if least is not None and not value >= least:
        raise ModelError(f"{key}: expected at least {least:g}, got {value!r}")
    return float(value)


def _status(loop: Loop, command: Command) -> dict[str, Any]:
    return loop.telling.status()


def _start(loop: Loop, command: Command) -> dict[str, Any]:
    loop.start()
    return {"state": loop.health.state}


def _stop(loop: Loop, command: Command) -> dict[str, Any]:
    loop.stop()
    return {"state": loop.health.state}


def _label(loop: Loop, command: Command) -> None:
    arguments = command.arguments
    told = loop.teaching.take(arguments.get("label"), _number(arguments, "start"), _number(arguments, "end"))
    loop.checkpoints.answer_label(command.reply, told)


def _rereference(loop: Loop, command: Command) -> dict[str, Any]:
    return _rereferencing(loop).describe()


def _rereference_weights(loop: Loop, command: Command) -> dict[str, Any]:
    weights = _rereferencing(loop).recent(command.arguments.get("version"))
    return {
        "version": weights.version,
        "channels": list(weights.channels),
        "shape": list(weights.matrix.shape),
        "weights": weights.matrix,
    }


def _rereference_load(loop: Loop, command: Command) -> None:
    arguments = command.arguments
    try:
        matrix = np.frombuffer(arguments["weights"], np.float64).reshape(arguments["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"rereference weights: expected the bytes of float64 and their shape; {error}") from error
    rereferencing = _rereferencing(loop)

    def done(outcome: Weights | NeuroloopError) -> None:
        if isinstance(outcome, NeuroloopError):
            command.reply.set_exception(outcome)
        else:
            loop.checkpoints.answer(command.reply, {"version": outcome.version, "bin": rereferencing.bin})

    rereferencing.load(matrix, arguments.get("channels"), done)


def _rereference_mode(loop: Loop, command: Command) -> None:
    rereferencing, arguments = _rereferencing(loop), command.arguments
    mode = arguments.get("mode")
    if mode is not None and mode not in MODES:
        raise ModelError(f"mode: expected one of {', '.join(MODES)}; got {mode!r}")
    half_life_s, ridge = _number(arguments, "half_life_s", above=0), _number(arguments, "ridge", least=0)
    rereferencing.set_mode(mode, half_life_s, ridge)
    loop.checkpoints.answer(command.reply, rereferencing.describe())


def _rereference_fit(loop: Loop, command: Command) -> dict[str, Any]:
    rereferencing, arguments = _rereferencing(loop), command.arguments
    seconds, ridge = _number(arguments, "seconds", above=0), _number(arguments, "ridge", least=0)
    if seconds is None:
        raise ModelError("seconds: expected a number above 0, got nothing")
    request_id = request_behind(command.reply)

    def done(outcome: Weights | NeuroloopError) -> None:
        if isinstance(outcome, NeuroloopError):
            loop.event("fit_failed", str(outcome), request_id, fit=identifier)
        else:
            detail = f"version {outcome.version} from bin {rereferencing.bin} on"
            loop.event("fit_done", detail, request_id, fit=identifier, version=outcome.version, bin=rereferencing.bin)

    identifier = rereferencing.start_fit(seconds, ridge, done)
    return {"fit": identifier}


def _training_data(loop: Loop, command: Command) -> dict[str, Any]:
    return page(loop, _first(command), _number(command.arguments, "seconds", above=0))


def _encoder_data(loop: Loop, command: Command) -> None:
    loop.encoders.data(_first(command), _number(command.arguments, "seconds", above=0), command.reply)


def _first(command: Command) -> int | None:
    first = command.arguments.get("first")
    if first is not None and (isinstance(first, bool) or not isinstance(first, int)):
        raise ModelError(f"first: expected the number of a bin, got {first!r}")
    return first


def _shutdown(loop: Loop, command: Command) -> dict[str, Any]:
    loop.inbox.put(End())
    return {}


HANDLERS: dict[str, Callable[[Loop, Command], dict[str, Any] | None]] = {
    "status": _status,
    "start": _start,
    "stop": _stop,
    "label": _label,
    "rereference": _rereference,
    "rereference_weights": _rereference_weights,
    "rereference_load": _rereference_load,
    "rereference_mode": _rereference_mode,
    "rereference_fit": _rereference_fit,
    "training_data": _training_data,
    "decoder_load": decoder_commands.load,
    "decoder_rollback": decoder_commands.rollback,
    "decoder_promote": decoder_commands.promote,
    "decoder_remove": decoder_commands.remove,
    "encoder_data": _encoder_data,
    "encoder_load": encoder_commands.load,
    "encoder_rollback": encoder_commands.rollback,
    "encoder_promote": encoder_commands.promote,
    "encoder_remove": encoder_commands.remove,
    "recording_start": recording_commands.start,
    "recording_stop": recording_commands.stop,
    "recording_annotate": recording_commands.annotate,
    "shutdown": _shutdown,
}


def _plain(value: Any) -> bytes:
    """Arrays travel as the bytes of float64, C order; copied here and not in the loop."""
    return np.ascontiguousarray(value, dtype=np.float64).tobytes()


def _refusal(error: NeuroloopError) -> dict[str, Any]:
    return {"ok": False, "error": type(error).__name__, "detail": str(error)}


@dataclass(frozen=True)
class _Request:
    """One that waits for its answer."""

    frames: tuple[bytes, bytes]  # who asked, and the request's id
    name: str
    reply: Future[Any]
    until: float


class CommandThread(threading.Thread):
    """Takes requests, has the loop answer, replies: one after the other, but for answers that take their time.

    A request that waits, as for the bins after a swap, holds no other up. The loop rings a bell, a pair of sockets,
    when it has an answer. At most `WAITING_LIMIT` wait; one more is refused.
    """

    def __init__(self, context: zmq.Context[Any], endpoint: str, loop: Loop, keys: Keys | None = None) -> None:
        super().__init__(name="commands", daemon=True)
        self._loop = loop
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 200)
        guard(self._socket, keys)
        self._socket.bind(endpoint)
        self.endpoint = self._socket.last_endpoint.decode()
        self._heard, self._bell = socket.socketpair()
        self._heard.setblocking(False)
        self._bell.setblocking(False)
        self._waiting: list[_Request] = []
        self._ended = threading.Event()

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._heard.fileno(), zmq.POLLIN)
        try:
            while not self._ended.is_set():
                ready = dict(poller.poll(200))
                if self._heard.fileno() in ready:
                    self._heard.recv(4096)
                if self._socket in ready:
                    self._take()
                self._answer_done()
            self._answer_done()
        finally:
            self._socket.close()  # the context cannot end before
            self._heard.close()
            self._bell.close()

    def _ring(self, _reply: Future[Any]) -> None:
        """In the thread that answers."""
        with suppress(OSError):  # it is ringing already, or this thread has ended
            self._bell.send(b"\0")

    def _take(self) -> None:
        identity, *frames = self._socket.recv_multipart()
        request, body = frames if len(frames) == 2 else (b"", b"")
        reply = Reply()
        name = ""
        try:
            name, arguments, reply.request_id = _parse(body)
            if len(self._waiting) >= WAITING_LIMIT:
                raise Unavailable(f"{WAITING_LIMIT} commands wait for their answers; try again later")
            self._loop.inbox.put(Command(name, arguments, reply))
        except NeuroloopError as error:
            reply.set_exception(error)
        until = time.monotonic() + PATIENCE_S.get(name, ANSWER_S)
        self._waiting.append(_Request((identity, request), name, reply, until))
        reply.add_done_callback(self._ring)

    def _answer_done(self) -> None:
        now = time.monotonic()
        for request in [r for r in self._waiting if r.reply.done() or now >= r.until]:
            self._waiting.remove(request)
            reply = msgpack.packb(_answer(request), default=_plain)
            self._socket.send_multipart((*request.frames, reply))

    def end(self) -> None:
        """Answer no more; returns when the last reply is out."""
        self._ended.set()
        self.join(2.0)


def _parse(body: bytes) -> tuple[str, dict[str, Any], str | None]:
    """Name, arguments, and the id of the request behind it."""
    try:
        arguments = msgpack.unpackb(body)
        name, request_id = arguments.pop("command"), arguments.pop(REQUEST_ID, None)
    except (ValueError, msgpack.UnpackException, AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"expected a MessagePack map with 'command': {error!r}") from error
    if name not in HANDLERS:
        raise NotFound(f"command {name!r} is not known; there are {', '.join(HANDLERS)}")
    return name, arguments, request_id


def _answer(request: _Request) -> dict[str, Any]:
    try:
        return {"ok": True, "result": request.reply.result(0)}
    except TimeoutError:
        patience = PATIENCE_S.get(request.name, ANSWER_S)
        return _refusal(Unavailable(f"the loop did not answer {request.name!r} within {patience:g} s"))
    except NeuroloopError as error:
        return _refusal(error)
