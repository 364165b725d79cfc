"""What an LSL stream says of itself, and how streams are found."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pylsl
from pylsl.lib import lib
from pylsl.util import InternalError, InvalidArgumentError, LostError, TimeoutError, handle_error

from neuroloop.config import LslSettings, StreamSelector
from neuroloop.errors import StreamError

# A stream that cannot be talked to any more. pylsl's TimeoutError is one of its own, not the built-in.
GONE = (LostError, TimeoutError, InternalError)
MOST_FOUND = 1024
PEERS_AFTER_S = "0.05"  # known peers are asked so long after it was asked by multicast; by default half a second
OF_THEIR_OWN = ("label", "unit", "location")  # elements that have a field of the description
DEEPEST = 3  # elements within elements of a channel's description that are looked at
FORMATS = {1: "float32", 2: "double64", 3: "string", 4: "int32", 5: "int16", 6: "int8", 7: "int64"}


@dataclass(frozen=True)
class StreamDescription:
    """The parts of an LSL stream's description that a session uses.

    metadata: of each channel, the text of every other element of its description, `a/b` for an element b within a.
    """

    name: str
    type: str
    source_id: str
    hostname: str
    channel_count: int
    nominal_srate: float
    format: str
    channels: tuple[str, ...]
    units: tuple[str, ...]
    positions: tuple[tuple[float, float, float] | None, ...]
    metadata: tuple[dict[str, str], ...] = ()

    def is_same_source(self, other: StreamDescription) -> bool:
        """Whether what was learned from one holds for the other: source, channels, rate and format are the same."""
        return (self.source_id, self.name if not self.source_id else None) == (
            other.source_id,
            other.name if not other.source_id else None,
        ) and (self.channels, self.nominal_srate, self.format) == (other.channels, other.nominal_srate, other.format)

    @property
    def is_local(self) -> bool:
        """Whether the sender says it is on this machine."""
        return self.hostname == socket.gethostname()


def from_plain(plain: dict[str, Any]) -> StreamDescription:
    """A description that was written as JSON, which has lists where it has tuples."""
    made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    made["positions"] = tuple(None if one is None else tuple(one) for one in plain["positions"])
    return StreamDescription(**made)


def _channel_elements(info: pylsl.StreamInfo) -> list[pylsl.XMLElement]:
    elements = []
    element = info.desc().child("channels").child("channel")
    while not element.empty():
        elements.append(element)
        element = element.next_sibling("channel")
    return elements


def _position(element: pylsl.XMLElement) -> tuple[float, float, float] | None:
    location = element.child("location")
    try:
        x, y, z = (float(location.child_value(axis)) for axis in ("X", "Y", "Z"))
    except ValueError:
        return None
    return x, y, z


def _texts(element: pylsl.XMLElement, within: str = "") -> Iterator[tuple[str, str]]:
    if within.count("/") == DEEPEST:
        return
    child = element.first_child()
    while not child.empty():
        if child.is_text():
            text = child.value().strip()
            if text and within:
                yield within, text
        elif within or child.name() not in OF_THEIR_OWN:
            yield from _texts(child, f"{within}/{child.name()}" if within else child.name())
        child = child.next_sibling()


def describe(info: pylsl.StreamInfo) -> StreamDescription:
    """The description in a full `StreamInfo`; channels without a label are called by their number, from 1."""
    count = info.channel_count()
    elements = _channel_elements(info)[:count]
    labels = [element.child_value("label") for element in elements] + [""] * (count - len(elements))
    labels = [label or str(number) for number, label in enumerate(labels, 1)]
    if len(set(labels)) != count:  # labels that are not unique cannot name a channel
        labels = [f"{label}#{number}" for number, label in enumerate(labels, 1)]
    missing = count - len(elements)
    return StreamDescription(
        name=info.name(),
        type=info.type(),
        source_id=info.source_id(),
        hostname=info.hostname(),
        channel_count=count,
        nominal_srate=info.nominal_srate(),
        format=FORMATS.get(info.channel_format(), "undefined"),
        channels=tuple(labels),
        units=tuple(element.child_value("unit") for element in elements) + ("",) * missing,
        positions=tuple(_position(element) for element in elements) + (None,) * missing,
        metadata=tuple(dict(_texts(element)) for element in elements) + ({},) * missing,
    )


def _quote(value: str) -> str:
    """An XPath string literal; one with both kinds of quotes is put together by concat()."""
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    return "concat(" + ', "\'", '.join(f"'{part}'" for part in value.split("'")) + ")"


def predicate(selector: StreamSelector) -> str:
    """The XPath predicate that a selector stands for."""
    parts = [
        f"{key}={_quote(value)}"
        for key in ("name", "type", "source_id")
        if (value := getattr(selector, key)) is not None
    ]
    if selector.predicate:
        parts.append(f"({selector.predicate})")
    return " and ".join(parts)


def find(selector: StreamSelector, minimum: int, timeout: float) -> list[pylsl.StreamInfo]:
    """The streams that match, as soon as `minimum` have answered or after `timeout` seconds; one for each outlet.

    Raises StreamError for a predicate that is no XPath: `pylsl.resolve_bypred` finds nothing, without waiting.
    """
    query = predicate(selector)
    handles = (ctypes.c_void_p * MOST_FOUND)()
    count = lib.lsl_resolve_bypred(
        ctypes.byref(handles), MOST_FOUND, ctypes.c_char_p(query.encode()), minimum, ctypes.c_double(timeout)
    )
    try:
        handle_error(count)
    except InvalidArgumentError as error:
        raise StreamError(f"stream.predicate: expected an XPath 1.0 predicate, got {selector.predicate!r}") from error
    infos = [pylsl.StreamInfo(handle=handle) for handle in handles[: max(0, count)]]
    return list({info.uid(): info for info in infos}.values())


def find_all(timeout: float) -> list[StreamDescription]:
    """Every stream that answers within `timeout` seconds and then describes itself within as many, by name."""
    infos = {info.uid(): info for info in pylsl.resolve_streams(timeout)}.values()

    def ask(info: pylsl.StreamInfo) -> StreamDescription | None:
        try:
            return describe(pylsl.StreamInlet(info, max_buflen=1, recover=False).info(timeout=max(timeout, 0.5)))
        except GONE:
            return None  # since it answered

    with ThreadPoolExecutor(16, thread_name_prefix="describe") as askers:
        described = [stream for stream in askers.map(ask, infos) if stream is not None]
    return sorted(described, key=lambda stream: (stream.name, stream.source_id))


def configure_lsl(settings: LslSettings) -> None:
    """Tell liblsl what the configuration says; must come before any other call into it."""
    sections: dict[str, dict[str, str]] = {}
    if settings.log_level is not None:
        sections["log"] = {"level": str(settings.log_level)}
    lab: dict[str, str] = {}
    if settings.session_id is not None:
        lab["SessionID"] = settings.session_id
    if settings.known_peers:
        lab["KnownPeers"] = "{" + ", ".join(settings.known_peers) + "}"
        sections["tuning"] = {"MulticastMinRTT": PEERS_AFTER_S}
    if lab:
        sections["lab"] = lab
    if not sections:
        return  # liblsl's own configuration file, where there is one, holds
    lines = [f"[{name}]\n" + "\n".join(f"{k} = {v}" for k, v in keys.items()) for name, keys in sections.items()]
    pylsl.set_config_content("\n".join(lines) + "\n")
