"""The marker streams of a session, whose markers become labels."""

from __future__ import annotations

from neuroloop.config import SessionSettings
from neuroloop.session.inbox import Inbox, MarkerLabel, Notice
from neuroloop.session.inlet import MarkerInlet


def marker_inlets(session: SessionSettings, inbox: Inbox) -> list[MarkerInlet]:
    """A thread for each; they tell the loop through its inbox."""
    return [
        MarkerInlet(
            f"{session.name}-{number}",
            settings,
            submit=lambda label, start, end: inbox.put(MarkerLabel(label, start, end)),
            notify=lambda event: inbox.put(Notice(None, event)),
        )
        for number, settings in enumerate(session.markers)
    ]
