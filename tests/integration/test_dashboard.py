"""The Grafana dashboard of docker/, beside what a real server says to Prometheus."""

import json
import re
from pathlib import Path

import httpx
from tests.integration.conftest import ALL, COUNTS, ones
from tests.processes import serving, wait_until, write_config

DASHBOARD = Path(__file__).parents[2] / "docker" / "grafana" / "neuroloop.json"
NOT_AT_ONCE = {"neuroloop_gpu_memory_bytes", "neuroloop_clock_drift_ppm"}  # with a GPU; after minutes


def test_every_figure_that_the_dashboard_asks_for_is_one_that_a_server_has(open_source, unique_name, tmp_path):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {name for p in panels for target in p["targets"] for name in re.findall(r"neuroloop_\w+", target["expr"])}
    session = {"name": unique_name, "stream": {"name": unique_name}, "front_end": COUNTS, "classes": ALL}
    source = open_source(unique_name)
    with serving(write_config(tmp_path, outlive_s=0, sessions=[session])) as (address, _):

        def told():
            """Names on the page, when bins have been answered."""
            source.push(ones(100))
            lines = httpx.get(f"{address}/metrics").text.splitlines()
            values = {re.split(r"[{ ]", line)[0]: float(line.split()[-1]) for line in lines if line[0] != "#"}
            return values if values.get("neuroloop_bins_total") else {}

        source.wait_for_consumers()
        names = set(wait_until(told))
    assert len(asked) > 20
    assert asked - names <= NOT_AT_ONCE
