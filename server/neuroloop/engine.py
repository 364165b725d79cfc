"""What runs fits and sessions: this machine (`engine: local`), or a Ray cluster (`engine: ray`).

Ray is imported only where it is asked for. The server is the cluster's driver: what it started there ends with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from neuroloop.errors import ConfigError, Unavailable
from neuroloop.server_config import RaySettings, ServerSettings
from neuroloop.session.launching import Launcher, LocalLauncher
from neuroloop.training.executor import Executor, LocalExecutor

NAMESPACE = "neuroloop"


def executor_of(settings: ServerSettings) -> Executor:
    """What runs the fits of this server."""
    if settings.engine == "local":
        return LocalExecutor()
    from neuroloop.training.ray_executor import RayExecutor

    return RayExecutor(settings.ray.fit)


def launcher_of(settings: ServerSettings, program: Sequence[str], arguments: Sequence[str]) -> Launcher:
    """What starts the sessions of this server. program: on this machine; arguments: of it, on any."""
    if settings.engine == "local":
        return LocalLauncher((*program, *arguments))
    from neuroloop.session.ray_launcher import RayLauncher

    return RayLauncher(settings.ray.session, arguments)


@contextmanager
def running(settings: ServerSettings) -> Iterator[None]:
    """The engine, for as long as the server runs. Raises ConfigError without Ray, Unavailable without a cluster."""
    if settings.engine == "local":
        yield
        return
    connect(settings.ray)
    import ray

    try:
        yield
    finally:
        ray.shutdown()


def connect(settings: RaySettings) -> None:
    """Become a driver of the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that this server runs
    try:
        import ray
    except ImportError as error:
        raise ConfigError("engine: ray needs a package that is not here: pip install 'neuroloop[ray]'") from error
    new = {"include_dashboard": False} if settings.address == "local" else {}
    try:
        ray.init(settings.address, namespace=NAMESPACE, configure_logging=False, **new)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Unavailable(
            f"ray.address: no Ray cluster answers at {settings.address!r}: {error}; start one: ray start --head"
        ) from error
