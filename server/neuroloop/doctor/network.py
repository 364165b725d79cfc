"""Whether LSL can find anything from here: multicast, ports, and the hosts that are asked by name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from neuroloop.doctor.discovery import Answer
from neuroloop.doctor.finding import Finding
from neuroloop.doctor.lsl_config import LslConfig

ECHO_S = 0.5
KNOWN_PEERS = (
    "Multicast passes no router, no bridge network of containers and few Wi-Fi networks. Name the sender's host in "
    "`lsl.known_peers` (LSL_KNOWN_PEERS in a container), or give the container the host's network"
)


def check_multicast(config: LslConfig) -> Finding:
    """Whether a packet to LSL's multicast groups comes back to this machine, as it must."""
    groups = [address for address in config.addresses if 224 <= int(address.partition(".")[0]) < 240]
    heard, silent = [], []
    for group in groups:
        why = _echo(group, config.multicast_port)
        if why is None:
            heard.append(group)
        else:
            silent.append(f"{group} ({why})")
    if not heard:
        return Finding("multicast", "fault", f"does not work here: {', '.join(silent) or 'no group is asked'}", ADVICE)
    if silent:
        return Finding("multicast", "warning", f"works for {', '.join(heard)}; not for {', '.join(silent)}", ADVICE)
    return Finding("multicast", "ok", f"{', '.join(heard)}: heard on this machine")


ADVICE = (
    "Bring up a network interface with multicast and a route for it (`ip route add 224.0.0.0/4 dev INTERFACE`), and "
    f"let UDP through the firewall. {KNOWN_PEERS}"
)


def _echo(group: str, port: int) -> str | None:
    """Why a packet to a group does not come back; None where it does."""
    word = b"neuroloop doctor"  # no question: nobody answers it
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((group, port))
            listener.setsockopt(
                socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton("0.0.0.0")
            )
            listener.settimeout(ECHO_S)
            sender.sendto(word, (group, port))
            while listener.recv(65_536) != word:
                pass
    except TimeoutError:
        return "not heard"
    except OSError as error:
        return error.strerror or str(error)
    return None


def check_ports(config: LslConfig) -> Finding:
    """Whether outlets of this machine get ports that others look at."""
    free = sum(_is_free(port) for port in config.ports)
    span = f"{config.ports.start}-{config.ports.stop - 1}"
    if free >= 2:  # an outlet takes two
        return Finding("ports", "ok", f"{free} of {len(config.ports)} ports {span} are free")
    advice = f"End programs with outlets, or set PortRange in the section [ports] of lsl_api.cfg to more than {span}"
    if config.random_ports:
        return Finding("ports", "warning", f"all of {span} are taken: peers do not find new outlets", advice)
    return Finding("ports", "fault", f"all of {span} are taken: no outlet can be opened", advice)


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True


def check_peers(
    config: LslConfig, answers: Sequence[Answer], resolve: Callable[[str], str] = socket.gethostbyname
) -> list[Finding]:
    """Of each known peer: whether it has an address, and whether any of its streams answers."""
    return [_check_peer(config, peer, answers, resolve) for peer in config.peers]


def _check_peer(config: LslConfig, peer: str, answers: Sequence[Answer], resolve: Callable[[str], str]) -> Finding:
    check, span = f"peer {peer}", f"{config.ports.start}-{config.ports.stop - 1}"
    try:
        address = resolve(peer)
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(check, "fault", f"has no address: {why}", "Correct the name, or use the address")
    count = sum(peer in answer.ways for answer in answers)
    if count == 0:
        return Finding(
            check,
            "warning",
            f"no stream of {address} answers at the UDP ports {span}",
            f"Start the sender there, let UDP and TCP {span} through its firewall, and see that its lsl_api.cfg sets "
            "no other BasePort",
        )
    return Finding(check, "ok", f"{count} streams of {address} answer")
