"""Asks the network for streams as liblsl does, but of every session id, and tells which way each answer came.

LSL's discovery is one UDP packet, `LSL:shortinfo`, with an XPath predicate, the port that answers go to and a word that
they begin with. liblsl adds the session id to the predicate; an outlet of another never answers it. Here the predicate
goes out without, over IPv4, and the word is the way that the packet took.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from xml.etree import ElementTree

from neuroloop.doctor.lsl_config import LslConfig

LARGEST = 65_536


@dataclass(frozen=True)
class Answer:
    """An outlet that answered. version: of its protocol, 110 for 1.10. data_port: of TCP, at `address`. ways: the
    addresses that were asked and brought the answer.
    """

    uid: str
    name: str
    session_id: str
    version: int
    hostname: str
    address: str
    data_port: int
    ways: frozenset[str]


def ask(config: LslConfig, predicate: str, wait_s: float) -> list[Answer]:
    """Every outlet that matches and answers within `wait_s` seconds, by name."""
    found: dict[str, Answer] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        asker.bind(("", 0))
        for way, address in _targets(config):
            packet = f"LSL:shortinfo\r\n{predicate}\r\n{asker.getsockname()[1]} {way}\r\n"
            with suppress(OSError):  # no route there; other ways may bring an answer
                asker.sendto(packet.encode(), address)
        end = time.monotonic() + wait_s
        while (left := end - time.monotonic()) > 0:
            asker.settimeout(left)
            try:
                data, (address_of, _) = asker.recvfrom(LARGEST)
            except TimeoutError:
                break
            except OSError:
                continue  # a host that says that nobody is at one of the ports
            answer = _parse(data, address_of)
            if answer is not None:
                before = found.get(answer.uid)
                ways = answer.ways if before is None else answer.ways | before.ways
                found[answer.uid] = replace(answer, ways=ways)
    return sorted(found.values(), key=lambda answer: (answer.name, answer.uid))


def _targets(config: LslConfig) -> Iterator[tuple[str, tuple[str, int]]]:
    for address in config.addresses:
        yield address, (address, config.multicast_port)
    for peer in config.peers:
        with suppress(OSError):
            address = socket.gethostbyname(peer)
            for port in config.ports:
                yield peer, (address, port)


def _parse(data: bytes, address: str) -> Answer | None:
    """None for what no outlet sends."""
    way, _, document = data.partition(b"\r\n")
    try:
        info = ElementTree.fromstring(document)
        return Answer(
            uid=info.findtext("uid", ""),
            name=info.findtext("name", ""),
            session_id=info.findtext("session_id", ""),
            version=round(100 * float(info.findtext("version", "0"))),
            hostname=info.findtext("hostname", ""),
            address=address,
            data_port=int(info.findtext("v4data_port", "0")),
            ways=frozenset({way.decode()}),
        )
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError):
        return None
