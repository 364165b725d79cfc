"""Real outlets of any LSL session, and peers that answer what no outlet of today's liblsl does."""

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from neuroloop.config import LslSettings
from neuroloop.doctor.lsl_config import lsl_config

OUTLET = """
import sys, pylsl
outlet = pylsl.StreamOutlet(pylsl.StreamInfo(sys.argv[1], "Test", 2, 100.0, "float32", sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def config():
    """Of the LSL session of the tests, as this process and those that it starts have it."""
    return lsl_config(LslSettings())


@pytest.fixture
def open_outlet(tmp_path):
    """A function that opens an outlet of this name in a process of its own; all end with the test."""
    processes = []

    def start(name, environment=None):
        process = subprocess.Popen(
            [sys.executable, "-c", OUTLET, name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "open\n"

    yield start
    for process in processes:
        process.communicate()


def described(name, session_id, version, data_port):
    facts = {
        "name": name,
        "type": "Test",
        "channel_count": 2,
        "channel_format": "float32",
        "source_id": name,
        "nominal_srate": 100,
        "version": version,
        "created_at": 1,
        "uid": f"uid-of-{name}",
        "session_id": session_id,
        "hostname": "elsewhere",
        "v4data_port": data_port,
        "v4address": "",
        "v4service_port": data_port,
        "v6address": "",
        "v6data_port": 0,
        "v6service_port": 0,
    }
    elements = "".join(f"<{key}>{value}</{key}>" for key, value in facts.items())
    return f'<?xml version="1.0"?><info>{elements}<desc /></info>'


@contextmanager
def answering(listener, name, session_id, version="1.1", data_port=1, before=None):
    """A peer at this socket that answers every question for a stream of this name, after a packet `before`."""

    def answer():
        while (data := listener.recv(65_536)) != b"end":
            lines = data.decode().split("\r\n")
            if lines[0] == "LSL:shortinfo" and name in lines[1]:
                port, word = lines[2].split()
                if before is not None:
                    listener.sendto(before, ("127.0.0.1", int(port)))
                reply = f"{word}\r\n{described(name, session_id, version, data_port)}"
                listener.sendto(reply.encode(), ("127.0.0.1", int(port)))

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", listener.getsockname())
        thread.join()


@pytest.fixture
def listener():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener
