"""A session process without a stream: it speaks the protocol, predicts on a timer, and misbehaves when told to.

Labels that make it misbehave: `die` ends it, `hang` is never answered. One named `deaf` never hears the first command.
"""

import argparse
import json
import math
import os
import sys
import threading
import time
from pathlib import Path

import msgpack
import zmq

from neuroloop.session.adoption import outlive


class Refusal(Exception):
    """An error of a class of neuroloop.errors, by its name."""


class FakeSession:
    def __init__(self, settings: dict, results: zmq.Socket) -> None:
        self.settings = settings
        self.results = results
        self.state = "running" if settings["autostart"] else "stopped"
        self.seq = -1
        self.ticks = 0
        self.request_id = None
        self.weights = bytes(8 * 4)
        self.version = 0
        self.mode = {"mode": "incremental", "half_life_s": 30.0, "ridge": 1e-3}

    def publish(self, topic: str, message: dict) -> None:
        self.results.send_multipart([topic.encode(), msgpack.packb({"session": self.settings["name"], **message})])

    def event(self, name: str, **more: object) -> None:
        self.publish("events", {"type": "event", "time": time.monotonic(), "seq": self.seq, "event": name, **more})

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks % 10 == 0:
            self.publish("status", self.status())
        if self.state != "running":
            return
        self.seq += 1
        now = time.monotonic()
        for decoder in self.settings["decoders"]:
            prediction = {
                "type": "prediction",
                "seq": self.seq,
                "time": now,
                "label": self.settings["classes"][0],
                "scores": [1.0, math.nan],
                "decoder": decoder["name"],
                "model": {"name": decoder["name"], "version": 1, "digest": None},
                "role": decoder["role"],
            }
            self.publish("predictions", prediction)
        self.publish("rates", {"type": "rates", "seq": self.seq, "time": now, "rates": [1.0, 2.0], "gap": False})

    def status(self, **_: object) -> dict:
        name, stream = self.settings["name"], self.settings["stream"]
        return {
            "type": "status",
            "session": name,
            "state": self.state,
            "seq": self.seq + 1,
            "time": time.monotonic(),
            "stream": {"state": "searching", "name": stream["name"], "samples": 100 * self.ticks},
            "bins": self.seq + 1,
            "decoders": [{"name": d["name"], "role": d["role"]} for d in self.settings["decoders"]],
            "histograms": self.histograms(),
        }

    def histograms(self) -> dict:
        """Every bin took 0.9 ms in each stage."""
        bins = self.seq + 1
        seen = {"counts": [0, bins, 0], "sum_ms": 0.9 * bins}
        return {"edges_ms": [0.5, 1.0], "stages": dict.fromkeys(("stream", "process", "age"), seen)}

    def start(self) -> dict:
        return self.switch("running")

    def stop(self) -> dict:
        return self.switch("stopped")

    def switch(self, state: str) -> dict:
        if self.state == state:
            raise Refusal("Conflict", f"session is {state} already")
        self.state = state
        self.event(f"session_{state}")
        return {"state": state}

    def label(self, label: str, start: float | None = None, end: float | None = None) -> dict:
        if label == "die":
            print("the loop has failed\nfatal: no more samples", file=sys.stderr, flush=True)
            os._exit(3)
        if label not in self.settings["classes"]:
            raise Refusal("ModelError", f"label {label!r} is no class; there are {self.settings['classes']}")
        self.event("label_learned", label=label, request_id=self.request_id)
        return {"label": label, "start": start, "end": end, "state": "learned", "bins": 3}

    def rereference(self) -> dict:
        return {"enabled": True, **self.mode, "version": self.version, "condition": math.inf}

    def rereference_mode(self, **changes: object) -> dict:
        self.mode |= changes
        return self.rereference()

    def rereference_load(self, weights: bytes, shape: list[int], channels: list[str] | None) -> dict:
        if shape != [2, 2]:
            raise Refusal("ModelError", f"rereference weights: expected (2, 2), got {tuple(shape)}; upload W")
        self.weights = weights
        self.version += 1
        return {"version": self.version, "bin": self.seq + 1, "channels": channels}

    def rereference_weights(self, version: int | None = None) -> dict:
        if version not in (None, self.version):
            raise Refusal("NotFound", f"rereference weights: version {version} is not kept")
        return {"version": self.version, "channels": ["a", "b"], "shape": [2, 2], "weights": self.weights}

    def rereference_fit(self, seconds: float, ridge: float | None = None) -> dict:
        fit = f"fit-{self.version + 1}"
        if seconds > 1000:
            self.event("fit_failed", fit=fit, detail="the stream ended")
        elif seconds < 1000:
            self.version += 1
            self.event("fit_done", fit=fit, version=self.version, bin=self.seq + 1)
        return {"fit": fit}


def end_with_server(lock: str | None, outlive_s: float) -> None:
    while sys.stdin.readline():
        continue
    if lock is not None:
        outlive(Path(lock), outlive_s)
    os._exit(0)


def answer(session: FakeSession, command: str, arguments: dict) -> dict:
    try:
        return {"ok": True, "result": getattr(session, command)(**arguments)}
    except Refusal as refusal:
        return {"ok": False, "error": refusal.args[0], "detail": refusal.args[1]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--commands")
    parser.add_argument("--results")
    parser.add_argument("--log-level")
    options = parser.parse_args()
    given = json.loads(sys.stdin.readline())
    settings = given["session"]
    threading.Thread(target=end_with_server, args=(given["lock"], given["outlive_s"]), daemon=True).start()
    context = zmq.Context()
    commands, results = context.socket(zmq.ROUTER), context.socket(zmq.PUB)
    commands.bind(options.commands)
    results.bind(options.results)
    session = FakeSession(settings, results)
    next_tick = time.monotonic()
    if settings["name"] == "deaf":
        commands.recv_multipart()
    while True:
        if commands.poll(max(0, 1000 * (next_tick - time.monotonic()))):
            identity, request_id, payload = commands.recv_multipart()
            arguments = msgpack.unpackb(payload)
            command, session.request_id = arguments.pop("command"), arguments.pop("request_id", None)
            if command == "shutdown":
                return
            if arguments.get("label") != "hang":
                commands.send_multipart([identity, request_id, msgpack.packb(answer(session, command, arguments))])
        elif time.monotonic() >= next_tick:
            session.tick()
            next_tick += settings["bin_ms"] / 1000


if __name__ == "__main__":
    main()
