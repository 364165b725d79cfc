"""Real servers, for tests and benchmarks, and the wait for what they do."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 90.0
PAUSE_S = 0.02  # at first: a wait without one takes the processor from what it waits for
LONGER = 4  # times as long in the end


def wait_until(condition: Callable[[], Any], what: str = "what the test waits for") -> Any:
    """What the condition gives, as soon as that is true."""
    end, pause_s = time.monotonic() + PATIENCE_S, PAUSE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come within {PATIENCE_S:g} s"
        time.sleep(pause_s)
        pause_s = min(1.2 * pause_s, LONGER * PAUSE_S)
    return found


def write_config(folder: Path, **settings: Any) -> Path:
    """The configuration of a server on a free port, whose files are kept below this folder."""
    config = folder / "server.yaml"
    plain = {"port": 0, "folder": str(folder / "data")}
    config.write_text(json.dumps(plain | settings))
    return config


@contextmanager
def serving(config: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server: its address and its process, which has ended after the block."""
    command = [sys.executable, "-m", "neuroloop", "serve", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().rpartition(" ")[2].strip(), process
        finally:
            process.terminate()


@contextmanager
def streaming(source: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a source in a thread; it gets an event, and ends when that is set, with the block."""
    stop = threading.Event()
    thread = threading.Thread(target=source, args=(stop,), name="source")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
