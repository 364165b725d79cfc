"""The server: a listening socket, uvicorn, and a clean end."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from types import FrameType

import uvicorn

from neuroloop import notify
from neuroloop.api.app import create_app
from neuroloop.api.frames import FrameProtocol
from neuroloop.engine import running
from neuroloop.errors import ConfigError, Conflict
from neuroloop.logs import configure_log
from neuroloop.registry.registry import LEASE_S, Registry
from neuroloop.server_config import ServerSettings, is_loopback
from neuroloop.session.adoption import RunFolder
from neuroloop.session.launching import SESSION_PROGRAM
from neuroloop.tokens import TokenFile

MESSAGE_LIMIT = 64 * 1024  # bytes of a message from a client
SEND_BUFFER = 64 * 1024  # bytes per connection: a client that stalls is noticed soon, not after megabytes of old data
SHUTDOWN_S = 3  # for requests under way


class _Server(uvicorn.Server):
    """uvicorn, which says when it listens and takes a signal as a clean end."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what was imported need not be looked at in every collection to come
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def serve(
    settings: ServerSettings,
    on_started: Callable[[int], None] | None = None,
    session_program: Sequence[str] = SESSION_PROGRAM,
) -> None:
    """Serve until SIGINT or SIGTERM; then end every session and return.

    on_started: called with the port when the server listens. Raises Conflict if the port is in use, ConfigError if it
    can't be had, would let strangers in, or there can be no registry, Unavailable if its database or its Ray cluster
    does not answer.
    """
    configure_log(settings.log_level)
    if not is_loopback(settings.host) and not TokenFile(settings.folder).all():
        raise ConfigError(
            f"host: got {settings.host!r}, but there are no access tokens in {settings.folder}; without any, "
            "the server listens on loopback only (127.0.0.1, localhost or ::1). "
            "Make one: neuroloop token create NAME --role admin"
        )
    listener = _listen(settings.host, settings.port)
    port: int = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host

    def announce() -> None:
        notify.tell(notify.READY)
        print(f"neuroloop listening on http://{host}:{port}", flush=True)
        if on_started is not None:
            on_started(port)

    run_folder = RunFolder(settings.folder / "servers" / f"{settings.host}-{port}")
    server = f"{socket.gethostname()}:{host}:{port}"
    lease_s = LEASE_S + settings.outlive_s  # sessions may go on so long without this process
    registry = Registry(settings.folder / "registry", settings.registry.url, server, lease_s)
    app = create_app(settings, session_program, run_folder)
    app.state.registry = registry
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws=FrameProtocol,
        ws_max_size=MESSAGE_LIMIT,
        ws_per_message_deflate=False,
        ws_ping_timeout=60.0,  # a client that stalls for less is told what it missed
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    with listener, closing(run_folder), closing(registry), running(settings):
        _Server(config, announce).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # accepted connections inherit it
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"port {port} of {host} is in use; end the other program or choose another port") from error
        raise ConfigError(f"host, port: cannot listen on port {port} of {host}: {error.strerror}") from error
    return listener
