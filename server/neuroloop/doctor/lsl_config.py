"""What liblsl is told on this machine: by the server's configuration, or by the file that liblsl finds itself."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neuroloop.config import LslSettings
from neuroloop.errors import ConfigError

DEFAULT_SESSION = "default"
SCOPES = ("machine", "link", "site", "organization", "global")
ADDRESSES = {  # liblsl's own, IPv4
    "machine": ("127.0.0.1",),
    "link": ("255.255.255.255", "224.0.0.1", "224.0.0.183"),
    "site": ("239.255.172.215",),
}


@dataclass(frozen=True)
class LslConfig:
    """addresses: that are asked for streams, at multicast_port. peers: hosts that are asked at each of `ports`, the UDP
    and TCP ports of outlets. source: where this is said.
    """

    source: str = "liblsl's defaults"
    session_id: str = DEFAULT_SESSION
    peers: tuple[str, ...] = ()
    multicast_port: int = 16571
    ports: range = range(16572, 16572 + 32)
    random_ports: bool = True
    addresses: tuple[str, ...] = tuple(address for scope in SCOPES for address in ADDRESSES.get(scope, ()))


def lsl_config(settings: LslSettings, environment: Mapping[str, str] = os.environ) -> LslConfig:
    """What holds for a server with these settings, where it is started in this folder. Raises ConfigError."""
    if settings.session_id is not None or settings.known_peers or settings.log_level is not None:
        session = settings.session_id or DEFAULT_SESSION
        return LslConfig("`lsl` of the server's configuration", session, tuple(settings.known_peers))
    home = Path(environment.get("HOME", "/"))
    places = [Path("lsl_api.cfg"), home / "lsl_api" / "lsl_api.cfg", Path("/etc/lsl_api/lsl_api.cfg")]
    if named := environment.get("LSLAPICFG"):
        places.insert(0, Path(named))
    for place in places:
        if place.is_file():
            return _read(place)
    return LslConfig()


def _read(file: Path) -> LslConfig:
    parser = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    default = LslConfig()
    try:
        parser.read_string(file.read_text())
        base = parser.getint("ports", "BasePort", fallback=default.ports.start)
        count = parser.getint("ports", "PortRange", fallback=len(default.ports))
        scope = parser.get("multicast", "ResolveScope", fallback="site").lower()
        wide = SCOPES[: SCOPES.index(scope) + 1]
        override = _list(parser.get("multicast", "AddressesOverride", fallback=""))
        return LslConfig(
            source=str(file),
            session_id=parser.get("lab", "SessionID", fallback=DEFAULT_SESSION),
            peers=_list(parser.get("lab", "KnownPeers", fallback="")),
            multicast_port=parser.getint("ports", "MulticastPort", fallback=default.multicast_port),
            ports=range(base, base + count),
            random_ports=parser.getboolean("ports", "AllowRandomPorts", fallback=True),
            addresses=override or tuple(a for name in wide for a in _of_scope(parser, name)),
        )
    except (OSError, UnicodeDecodeError, ValueError, configparser.Error) as error:
        raise ConfigError(f"{file}: liblsl's configuration cannot be read: {error}") from error


def _of_scope(parser: configparser.ConfigParser, scope: str) -> tuple[str, ...]:
    given = parser.get("multicast", f"{scope.capitalize()}Addresses", fallback=None)
    return ADDRESSES.get(scope, ()) if given is None else tuple(a for a in _list(given) if ":" not in a)


def _list(text: str) -> tuple[str, ...]:
    """Of `{a, b}`."""
    return tuple(part.strip() for part in text.strip().strip("{}").split(",") if part.strip())
