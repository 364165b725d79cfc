"""What docker/compose.yaml and the files around it say of each other, without an engine that runs them."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from neuroloop.cli import app
from neuroloop.server_config import load

DOCKER = Path(__file__).parents[2] / "docker"
OURS = ("server", "tokens", "simulator")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


def test_the_servers_configuration_can_work_and_is_reached_from_other_containers():
    settings = load(DOCKER / "compose-server.yaml")
    assert (settings.host, settings.port, str(settings.folder)) == ("0.0.0.0", 8765, "/var/lib/neuroloop")
    assert [session.stream.name for session in settings.sessions] == ["array"]  # what `neuroloop simulate` is called
    assert load(DOCKER / "server.yaml").folder == settings.folder


def test_every_file_and_volume_that_is_mounted_is_there(compose, services):
    sources = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", ())]
    assert len(sources) > 8
    for source in sources:
        assert (DOCKER / source).is_file() if source.startswith("./") else source in compose["volumes"], source


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_a_read_only_root_and_no_rights(services, name):
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_every_image_of_others_is_of_a_release(services):
    others = [service["image"] for name, service in services.items() if name not in OURS]
    assert len(others) == 2
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in others), others


def test_only_this_machine_reaches_what_is_published(services):
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_server_knows_the_simulator_as_a_peer_and_prometheus_knows_the_server(services):
    assert services["server"]["environment"]["LSL_KNOWN_PEERS"] in services
    [job] = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["server:8765"]}]
    assert job["authorization"]["credentials_file"] in services["tokens"]["command"][0]


def test_commands_of_our_containers_are_commands_of_neuroloop(services):
    commands = [services["simulator"]["command"]]
    commands += [
        line.split()[1:] for line in services["tokens"]["command"][0].splitlines() if "neuroloop token" in line
    ]
    assert len(commands) == 2
    for command in commands:
        words = [word for word in command[:2] if word.isalpha()]
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0, command


def test_every_panel_of_the_dashboard_asks_something_of_the_datasource_that_is_provisioned():
    [source] = yaml.safe_load((DOCKER / "grafana" / "datasources.yaml").read_text())["datasources"]
    dashboard = json.loads((DOCKER / "grafana" / "neuroloop.json").read_text())
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == source["uid"]
        assert all("neuroloop_" in target["expr"] for target in panel["targets"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 10
