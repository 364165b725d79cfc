"""Puts a session process together: threads, sockets, and an orderly end."""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pylsl
import structlog
import zmq

from neuroloop.config import LslSettings, SessionSettings
from neuroloop.logs import configure_log
from neuroloop.session.adoption import outlive
from neuroloop.session.commands import HANDLERS, CommandThread
from neuroloop.session.curve import Keys
from neuroloop.session.inbox import Crash, End, Inbox
from neuroloop.session.loop import Loop
from neuroloop.session.priority import Level, run_at
from neuroloop.session.publish import Publisher
from neuroloop.session.streams import configure_lsl

log = structlog.get_logger(__name__)

# How long an acquire thread, or the loop, waits for the interpreter's lock while another thread computes in Python.
# Beside a shadow that never lets go by itself, bins of 96 channels at 30 kHz took up to 1.8 ms in the median at 0.5 ms,
# 0.7 at this; 90 percent of the bins up to 26 ms and 2.2 ms.
SWITCH_INTERVAL_S = 0.00005


def _end_with_server(inbox: Inbox, lock: str | None, outlive_s: float) -> None:
    """Whoever started this process holds its standard input open; after that, a server may find it by the lock."""
    while sys.stdin.readline():
        continue
    if lock is not None:
        outlive(Path(lock), outlive_s)
    inbox.put(End())


def _crash_with_threads(inbox: Inbox) -> None:
    """A thread that dies takes the session with it, loudly: a loop without its inlet would only seem to run."""

    def tell(arguments: threading.ExceptHookArgs) -> None:
        kind, value, trace = arguments.exc_type, arguments.exc_value, arguments.exc_traceback
        inbox.put(Crash("".join(traceback.format_exception(kind, value, trace))))

    threading.excepthook = tell


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m neuroloop.session", description=__doc__)
    parser.add_argument("--commands", required=True, help="ZeroMQ endpoint to bind for commands")
    parser.add_argument("--results", required=True, help="ZeroMQ endpoint to bind for results")
    parser.add_argument("--log-level", default="info", help="debug, info, warning or error")
    options = parser.parse_args(arguments)
    given = json.loads(sys.stdin.readline())
    session = SessionSettings.model_validate(given["session"])
    configure_lsl(LslSettings.model_validate(given["lsl"]))
    pylsl.local_clock()  # loads liblsl now
    configure_log(options.log_level)
    inbox = Inbox()
    _crash_with_threads(inbox)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this process
    signal.signal(signal.SIGTERM, lambda *_: inbox.put(End()))
    if not run_at(Level.SESSION):  # before there are other threads, which inherit it
        log.warning(
            "session_not_in_real_time",
            session=session.name,
            advice="allow it SCHED_RR (CAP_SYS_NICE, or RLIMIT_RTPRIO of 2)",
        )
    context: zmq.Context[Any] = zmq.Context(io_threads=1)
    keys = Keys(*given["keys"]) if given.get("keys") else None
    publisher = Publisher(context, options.results, keys)
    folder = given.get("recordings")
    recordings = None if folder is None else Path(folder)
    loop = Loop(session, publisher, inbox, given.get("seq", 0), recordings=recordings)
    commands = CommandThread(context, options.commands, loop, keys)
    print(json.dumps({"commands": commands.endpoint, "results": publisher.endpoint}), flush=True)
    keeper = (inbox, given.get("lock"), given.get("outlive_s", 0.0))
    threading.Thread(target=_end_with_server, args=keeper, name="server", daemon=True).start()
    commands.start()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    run_at(Level.LOOP)
    gc.disable()  # collected by the loop, between bins
    try:
        if given.get("checkpoint"):
            loop.checkpoints.begin(Path(given["checkpoint"]), given.get("goes_on", False))
        loop.run(HANDLERS)
    finally:
        commands.end()
        publisher.close()
        context.term()
