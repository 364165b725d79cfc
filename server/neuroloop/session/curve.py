"""Keys between a session and its server where a network lies between them: ZeroMQ's CURVE (RFC 26).

Everything is encrypted, and only who knows the session's public key is let in: it is told to its server alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import zmq


class Keys(NamedTuple):
    """Of a session process, as Z85 text."""

    public: str
    secret: str


def new_keys() -> Keys:
    public, secret = zmq.curve_keypair()
    return Keys(public.decode(), secret.decode())


def guard(socket: zmq.Socket[Any], keys: Keys | None) -> None:
    """Let nobody in without the public key; before the socket is bound. None: a socket of this machine alone."""
    if keys is not None:
        socket.curve_server = True
        socket.curve_secretkey = keys.secret.encode()


def identify(socket: zmq.Socket[Any], server_key: str | None) -> None:
    """Be let in; before the socket is connected."""
    if server_key is not None:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = server_key.encode()
