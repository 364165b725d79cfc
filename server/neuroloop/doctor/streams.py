"""Why a stream that a session waits for is not seen."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pylsl

from neuroloop.config import SessionSettings, StreamSelector
from neuroloop.doctor.discovery import Answer, ask
from neuroloop.doctor.finding import Finding
from neuroloop.doctor.lsl_config import LslConfig
from neuroloop.doctor.network import KNOWN_PEERS
from neuroloop.errors import StreamError
from neuroloop.session.streams import GONE, find, predicate

CONNECT_S = 3.0
LISTED = 5
SAME_MACHINE_S = 1e-3  # between the clocks of two processes of one machine


def selectors(session: SessionSettings) -> list[tuple[str, StreamSelector]]:
    """Every stream that a session waits for, with what to call it."""
    found: list[tuple[str, StreamSelector]] = [(f"{session.name}: stream", session.stream)]
    if session.stimulus is not None:
        found.append((f"{session.name}: stimulus", session.stimulus))
    return found + [(f"{session.name}: markers {n}", marker.stream) for n, marker in enumerate(session.markers, 1)]


def check_stream(
    check: str, selector: StreamSelector, config: LslConfig, answers: Sequence[Answer], wait_s: float
) -> Finding:
    """Whether liblsl sees the stream, and if not, why. answers: of every stream there is, for comparison."""
    try:
        seen = find(selector, 1, wait_s)
    except StreamError as error:
        return Finding(check, "fault", str(error), "Correct the predicate")
    if seen:
        return _check_connection(check, seen[0])
    return _explain(check, selector, config, ask(config, predicate(selector), wait_s), answers)


def _check_connection(check: str, info: pylsl.StreamInfo) -> Finding:
    who = f"{info.name()!r} (source_id {info.source_id()!r}) on {info.hostname()}"
    inlet = pylsl.StreamInlet(info, max_buflen=1, recover=False)
    try:
        inlet.info(timeout=CONNECT_S)
    except GONE:
        return Finding(
            check,
            "fault",
            f"{who} answers, but its TCP port cannot be reached",
            "Let TCP 16572-16603 through the firewall of its host; where it has several addresses, that which answers "
            "must be reachable from here",
        )
    try:
        offset = inlet.time_correction(timeout=CONNECT_S)
    except GONE:
        return Finding(
            check,
            "fault",
            f"{who}: its clock does not answer, so its timestamps would be taken as they are",
            "Let UDP 16572-16603 through the firewall of its host, both ways",
        )
    found = f"{who}; protocol {_version(info.version())}, its clock is {1e3 * offset:+.3f} ms from this one"
    if info.hostname() == socket.gethostname() and abs(offset) > SAME_MACHINE_S:
        return Finding(check, "warning", found, "It says it is on this machine: give the machines names of their own")
    return Finding(check, "ok", found)


def _explain(
    check: str, selector: StreamSelector, config: LslConfig, matching: Sequence[Answer], others: Sequence[Answer]
) -> Finding:
    for answer in matching:
        who = f"{answer.name!r} on {answer.hostname} ({answer.address})"
        if answer.session_id != config.session_id:
            return Finding(
                check,
                "fault",
                f"{who} is of the LSL session {answer.session_id!r}; this server is of {config.session_id!r}, "
                f"by {config.source}",
                f"Give both the same: `lsl: {{session_id: {answer.session_id}}}` in the server's configuration, or "
                "SessionID in the section [lab] of the sender's lsl_api.cfg",
            )
        if answer.version // 100 != pylsl.protocol_version() // 100:
            ours = _version(pylsl.protocol_version())
            return Finding(
                check,
                "fault",
                f"{who} speaks LSL protocol {_version(answer.version)}; this server speaks {ours}",
                "Update the liblsl of the older one",
            )
    if matching:
        return Finding(
            check,
            "warning",
            f"{matching[0].name!r} answered the doctor, but not liblsl in the same time",
            "Run the doctor again with a longer --timeout",
        )
    wanted = f"no stream with {predicate(selector)} answers"
    if others:
        listed = ", ".join(f"{other.name!r} on {other.hostname}" for other in others[:LISTED])
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        return Finding(check, "fault", f"{wanted}; these do: {listed}{more}", f"Correct the selector. {KNOWN_PEERS}")
    return Finding(check, "fault", f"{wanted}, nor any other", f"Start the sender. {KNOWN_PEERS}")


def check_answers(config: LslConfig, answers: Sequence[Answer]) -> Finding:
    """Which streams there are, and whether any is of another LSL session, and so out of sight."""
    hidden = [answer for answer in answers if answer.session_id != config.session_id]
    seen = len(answers) - len(hidden)
    found = f"{seen} in the LSL session {config.session_id!r} ({config.source})"
    if not hidden:
        return Finding("streams", "ok", found)
    listed = ", ".join(f"{a.name!r} of {a.session_id!r} on {a.hostname}" for a in hidden[:LISTED])
    found = f"{found}; {len(hidden)} out of sight in others: {listed}"
    return Finding("streams", "warning", found, "Where one of these is meant, give both the same session id")


def _version(number: int) -> str:
    return f"{number // 100}.{number % 100}"
