"""What a container of the image is, and that its server does what it does outside."""

import json
import subprocess
import time

import pytest

from neuroloop.demo.plan import simulated
from neuroloop.demo.processes import PYTHON, Process
from neuroloop.demo.run import REFRESH_S, Demo

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

SECONDS = 60.0
INSIDE = "/etc/neuroloop/server.yaml"
SYS_NICE = 1 << 23  # real time, as `--ulimit rtprio` gives it
FACTS = """
import json, os, shutil, tempfile
try:
    open("/opt/written", "w")
    written = "yes"
except OSError as error:
    written = os.strerror(error.errno)
compilers = [name for name in ("gcc", "cc", "g++", "clang", "ld", "as", "make", "pip") if shutil.which(name)]
rights = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff"))
print(json.dumps({"user": os.getuid(), "rights": int(rights, 16), "root": written, "compilers": compilers}))
"""
COMPILED = """
import sys
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher
from neuroloop.session.compile_ahead import compile_ahead
list(compile_ahead())
modules = [module for name, module in sys.modules.items() if name.startswith("neuroloop.")]
found = {id(one): one for module in modules for one in vars(module).values() if isinstance(one, Dispatcher)}
kernels = [one for one in found.values() if type(one._cache) is not NullCache]
print(sum(sum(k.stats.cache_hits.values()) for k in kernels), sum(sum(k.stats.cache_misses.values()) for k in kernels))
"""


@pytest.fixture(scope="module")
def shown(image, lsl_session_id, tmp_path_factory):
    """The demo's summaries: with its server outside, and with its server in a container."""
    outside, inside = (tmp_path_factory.mktemp(name) for name in ("outside", "inside"))
    files = {inside / "server.yaml": INSIDE}
    program = image.program(inside, environment={"LSL_SESSION_ID": lsl_session_id}, files=files)
    return {
        "outside": summary(outside, PYTHON, "neuroloop", str(outside / "server.yaml"), outside),
        "inside": summary(inside, program, image.entrypoint, INSIDE, "/var/lib/neuroloop"),
    }


def summary(folder, program, name, config, data):
    """What the demo says after a minute. The source and who reads the labels are processes outside. data: the server's
    folder, as it sees it.
    """
    plan = simulated(seed=0)
    settings = {"port": 0, "folder": str(data), "outlive_s": 0, "sessions": plan.sessions}
    (folder / "server.yaml").write_text(json.dumps(settings))
    with (
        Process(name, ["serve", config], program) as server,
        Process("neuroloop_sources", plan.source) as source,
    ):
        demo = Demo(plan, server, source, server.line("neuroloop listening on ").split()[-1])
        try:
            end = time.monotonic() + SECONDS
            while demo.step() and time.monotonic() < end:
                time.sleep(REFRESH_S)
            return demo.summary()
        finally:
            demo.end()


def test_a_container_has_no_compiler_no_rights_beyond_real_time_and_no_root_that_it_could_write_to(image, tmp_path):
    command = [*image.program(tmp_path), "python3", "-c", FACTS]
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    assert told == {"user": 10001, "rights": SYS_NICE, "root": "Read-only file system", "compilers": []}


def test_what_sessions_run_was_compiled_into_the_image(image, tmp_path):
    command = [*image.program(tmp_path), "python3", "-c", COMPILED]
    taken, compiled = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    assert int(taken) > 30
    assert compiled == "0"


def test_it_keeps_a_health_check_and_volumes_for_what_must_outlast_it(image):
    assert image.config["Healthcheck"]["Test"][0] == "CMD"
    assert set(image.config["Volumes"]) == {"/var/lib/neuroloop", "/var/lib/neuroloop/recordings"}
    assert image.config["User"] == "10001:10001"


def test_a_server_in_a_container_decodes_a_stream_from_outside_as_one_outside_does(image, shown, capsys):
    inside, outside = shown["inside"], shown["outside"]
    with capsys.disabled():
        print(f"\nimage: {image.size / 1e6:.0f} MB")
        for place, told in shown.items():
            print(
                f"{place}: accuracy {told['accuracy']}, latency ms {told['latency_ms']}, missed {told['missed_bins']}"
            )
    assert inside["missed_bins"] == 0
    assert inside["accuracy"]["maxrate"] == pytest.approx(outside["accuracy"]["maxrate"], abs=0.1)
    assert inside["accuracy"]["maxrate"] > 4 * inside["chance"]
    assert inside["latency_ms"]["p50"] < 2 * outside["latency_ms"]["p50"] + 1
