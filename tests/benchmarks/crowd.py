"""Many WebSocket subscribers in one process, and some that never read: notes how old each message is when it comes.

It prints a line when all are connected, and at the end one line of JSON: ages in milliseconds, what was missed.
"""

import argparse
import asyncio
import base64
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgpack
import numpy as np
import uvloop
from pylsl import local_clock

NICENESS = 10


def handshake(path: str, host: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]).encode()


class Reader(asyncio.Protocol):
    """Reads whole unmasked frames; a full client library would take a core for hundreds of connections."""

    def __init__(self, request: bytes, joined: asyncio.Event) -> None:
        self.request = request
        self.joined = joined
        self.buffer = b""
        self.ages: list[float] = []
        self.seqs: list[int] = []
        self.lagged = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = local_clock()
        data = self.buffer + data if self.buffer else data
        start = 0
        if not self.joined.is_set():
            head = data.find(b"\r\n\r\n")
            if head < 0:
                self.buffer = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                raise SystemExit(data.decode(errors="replace"))
            start = head + 4
            self.joined.set()
        while len(data) - start >= 4:
            size, begin = data[start + 1], start + 2
            if size == 126:
                size, begin = int.from_bytes(data[begin : begin + 2], "big"), begin + 2
            if len(data) < begin + size:
                break
            if data[start] == 0x82:
                self.take(msgpack.unpackb(data[begin : begin + size]), now)
            start = begin + size
        self.buffer = data[start:]

    def take(self, message: dict, now: float) -> None:
        if message["type"] == "lagged":
            self.lagged += message["missed"]
        else:
            self.ages.append(now - message["time"])
            self.seqs.append(message["seq"])


async def listen(options: argparse.Namespace) -> None:
    address = urlsplit(options.url)
    path = f"/v1/sessions/bench/stream?topics=predictions&format=msgpack&policy={options.policy}"
    loop = asyncio.get_running_loop()
    readers = []
    for _ in range(options.readers):
        reader = Reader(handshake(path, address.netloc), asyncio.Event())
        await loop.create_connection(lambda reader=reader: reader, address.hostname, address.port)
        await asyncio.wait_for(reader.joined.wait(), 30)
        readers.append(reader)
    silent = []
    for _ in range(options.silent):
        silent.append(socket.create_connection((address.hostname, address.port)))
        silent[-1].sendall(handshake(path, address.netloc))
    print("{}", flush=True)
    await asyncio.sleep(options.settle)
    for reader in readers:
        reader.ages.clear()
        reader.seqs.clear()
    await asyncio.sleep(options.seconds)
    for one in silent:
        one.close()
    ages = 1000 * np.concatenate([reader.ages for reader in readers])
    every = [np.array(reader.seqs) for reader in readers]
    told = {name: round(float(np.percentile(ages, q)), 2) for name, q in (("p50", 50), ("p99", 99), ("max", 100))}
    told |= {"messages": len(ages), "lagged": sum(reader.lagged for reader in readers)}
    told["skipped"] = sum(int(seqs[-1] - seqs[0] + 1 - len(seqs)) for seqs in every if len(seqs))
    print(json.dumps(told), flush=True)


def step_back() -> None:
    """These stand for clients on other machines: take no processor from the server's processes.

    Of processes in different sessions, the kernel weighs the sessions where `autogroup` is on, and not their niceness.
    """
    with suppress(PermissionError):
        os.setsid()  # this process leads one already
    os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def main() -> None:
    step_back()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--readers", type=int, required=True)
    parser.add_argument("--silent", type=int, default=0)
    parser.add_argument("--policy", default="all")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds that don't count, when all are connected")
    parser.add_argument("--seconds", type=float, required=True)
    uvloop.run(listen(parser.parse_args()))


if __name__ == "__main__":
    main()
