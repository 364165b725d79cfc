"""All checks of a server, in the order in which a sample would meet them."""

from __future__ import annotations

from collections.abc import Iterator

from neuroloop.doctor.discovery import ask
from neuroloop.doctor.finding import Finding
from neuroloop.doctor.lsl_config import lsl_config
from neuroloop.doctor.machine import check_clock, check_folders, check_gpu, check_kernels, check_real_time
from neuroloop.doctor.network import check_multicast, check_peers, check_ports
from neuroloop.doctor.streams import check_answers, check_stream, selectors
from neuroloop.server_config import ServerSettings
from neuroloop.session.streams import configure_lsl


def examine(settings: ServerSettings, wait_s: float) -> Iterator[Finding]:
    """One finding after the other. wait_s: for the answers of streams. Raises ConfigError for liblsl's file."""
    config = lsl_config(settings.lsl)
    configure_lsl(settings.lsl)
    yield check_multicast(config)
    yield check_ports(config)
    answers = ask(config, "", wait_s)
    yield from check_peers(config, answers)
    yield check_answers(config, answers)
    for session in settings.sessions:
        for check, selector in selectors(session):
            yield check_stream(check, selector, config, answers, wait_s)
    yield check_clock()
    yield check_real_time()
    yield check_kernels()
    yield check_gpu(settings)
    yield from check_folders(settings)
