"""A subscriber of a session that keeps what an account needs, and the account at the stream's end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from neuroloop_client import Client, NeuroloopClientError
from neuroloop_sources.errors import SourceError
from neuroloop_sources.faults.account import Account, settle
from neuroloop_sources.faults.line import Sent

POLL_S = 0.1
PATIENCE_S = 30.0
TURN_S = 0.2


@dataclass
class Witness:
    """predictions: of the active decoder, as far as they matter. shadows: `seq` of the answers of each.

    lapses: types of messages that say that something was missed.
    """

    predictions: list[dict[str, Any]] = field(default_factory=list)
    shadows: dict[str, list[int]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    lapses: list[str] = field(default_factory=list)

    def take(self, message: Any) -> None:
        match message["type"]:
            case "prediction" if message["role"] == "active":
                self.predictions.append({"seq": message["seq"], "samples": message["samples"]})
            case "prediction":
                self.shadows.setdefault(message["decoder"], []).append(message["seq"])
            case "event":
                self.events.append(message)
            case lapse:
                self.lapses.append(lapse)

    def account(self, sent: Sent, nominal_srate: float, received: int | None) -> Account:
        """See `settle`; a lapse is wrong, too."""
        account = settle(sent, nominal_srate, self.predictions, self.events, received)
        account.wrong += [f"the subscriber got {lapse!r}" for lapse in self.lapses]
        return account


@contextmanager
def witnessing(client: Client, session: str) -> Iterator[Witness]:
    """Follows a session in a thread, while the block runs."""
    witness, stop = Witness(), threading.Event()

    def follow() -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                if (message := live.receive(TURN_S)) is None:
                    return
                witness.take(message)

    with client.live(session, ("predictions", "events")) as live:
        thread = threading.Thread(target=follow, name=f"{session}-witness")
        thread.start()
        try:
            yield witness
        finally:
            stop.set()
            thread.join()


def check_fresh(client: Client, session: str) -> None:
    """Raises SourceError for a session that an account cannot be made of: it has had samples before."""
    try:
        bins = client.status(session)["bins"]
    except NeuroloopClientError as error:
        raise SourceError(f"session {session!r}: {error}") from error
    if bins:
        raise SourceError(
            f"session {session!r}: expected one that has had no bin yet, got {bins} bins; delete it and create it anew"
        )


def final_status(client: Client, session: str, *witnesses: Witness) -> dict[str, Any]:
    """The session's status when the stream has ended and all its bins have come. Raises SourceError."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        status = client.status(session)
        if status["stream"]["state"] not in ("connected", "stalled") and all(
            witness.predictions and witness.predictions[-1]["seq"] == status["seq"] - 1 for witness in witnesses
        ):
            return status
        time.sleep(POLL_S)
    raise SourceError(f"session {session!r}: the last bins of the stream did not come within {PATIENCE_S:g} s")
