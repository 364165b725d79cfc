"""Receives one session's results, as any client would."""

from __future__ import annotations

import threading
from typing import Any

from pylsl import local_clock

from neuroloop.demo.score import Account, Score
from neuroloop_client import Client, NeuroloopClientError

FATAL = ("session_failed", "stream_refused")


class Watcher(threading.Thread):
    """Subscribes when made, and receives from then on."""

    def __init__(self, client: Client, session: str, names: dict[str, str], score: Score) -> None:
        """names: decoder -> its name in the score."""
        super().__init__(name=f"watch-{session}", daemon=True)
        self.session = session
        self.account = Account()
        self.failure = ""
        self._names = names
        self._score = score
        self._stream = client.stream(session, ("predictions", "events"))
        self.start()

    def run(self) -> None:
        try:
            for message in self._stream:
                self._receive(message, local_clock())
        except NeuroloopClientError as error:
            self.failure = str(error)

    def _receive(self, message: dict[str, Any], now: float) -> None:
        if message["type"] == "event" and message["event"] in FATAL:
            self.failure = message["detail"]
        if message["type"] != "prediction":
            return
        if message["role"] == "active":
            self.account.take(message, now)
        name = self._names.get(message["model"]["name"])
        if name is not None:
            self._score.take(name, message)

    def end(self) -> None:
        self._stream.close()
