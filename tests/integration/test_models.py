"""The model registry of real servers that share it, and that die."""

import hashlib
import threading
from contextlib import contextmanager

import httpx
import pytest
from tests import processes
from tests.commands import neuroloop
from tests.unit.registry.conftest import weights_of

from neuroloop.registry.registry import Registry


@pytest.fixture
def config(tmp_path):
    return processes.write_config(tmp_path)


@contextmanager
def serving(config):
    """A server: a client of it, and its process."""
    with processes.serving(config) as (url, process), httpx.Client(base_url=url, timeout=30) as http:
        yield http, process


def verify(config, *options):
    return neuroloop("registry", "verify", config, *options)


def test_versions_that_were_acknowledged_survive_the_end_of_the_server(config):
    acknowledged, many = {}, threading.Event()

    def upload(url, seed):
        with httpx.Client(base_url=url) as client:
            for n in range(100_000):
                weights = weights_of(seed * 100_000 + n)
                try:
                    answer = client.post("/v1/models/reach/versions", content=weights)
                except httpx.TransportError:
                    return  # the server is gone
                acknowledged[answer.json()["version"]] = weights
                if len(acknowledged) > 30:
                    many.set()

    with serving(config) as (http, process):
        uploads = [threading.Thread(target=upload, args=(http.base_url, seed)) for seed in range(3)]
        for thread in uploads:
            thread.start()
        assert many.wait(60)
        process.kill()
        for thread in uploads:
            thread.join()
    checked = verify(config)
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert "faults: 0;" in checked.stdout
    with serving(config) as (http, _):
        for version, weights in acknowledged.items():
            assert http.get(f"/v1/models/reach/versions/{version}/weights").content == weights
        added = http.post("/v1/models/reach/versions", content=weights_of()).json()
        assert added["version"] > max(acknowledged)


def test_two_servers_share_a_registry(config):
    with serving(config) as (one, _), serving(config) as (other, _):
        weights = weights_of(1)
        assert one.post("/v1/models", params={"name": "reach"}, content=weights).status_code == 201
        assert other.put("/v1/models/reach/aliases/champion", json={"version": 1}).status_code == 200
        assert one.get("/v1/models/reach").json()["aliases"] == {"champion": 1}
        assert other.get("/v1/models/reach/versions/1/weights").content == weights
        assert one.delete("/v1/models/reach").status_code == 409


def test_a_registry_is_verified_by_a_command_that_names_what_is_wrong(config, tmp_path):
    absent = verify(config)
    assert (absent.exit_code, absent.stderr) == (
        1,
        f"neuroloop: no registry in {tmp_path / 'data'}; a server makes one when it starts\n",
    )
    registry = Registry(tmp_path / "data" / "registry")
    for n in range(3):
        registry.add_version("reach", weights_of(n))
    registry.delete_version("reach", 3)
    orphan = hashlib.sha256(weights_of(2)).hexdigest()
    whole = verify(config)
    assert (whole.exit_code, whole.stderr) == (0, "")
    assert f"blob sha256:{orphan}: belongs to no version" in whole.stdout
    assert "versions: 2; faults: 0; files of no version: 1" in whole.stdout
    assert "files of no version: 1, 0 removed" in verify(config, "--repair").stdout
    assert "files of no version: 0, 1 removed" in verify(config, "--repair", "--min-age", "0").stdout
    registry.blobs.path(registry.get("reach", 2).digest).unlink()
    damaged = verify(config, "--repair")
    assert damaged.exit_code == 1
    assert damaged.stderr.startswith("version 2 of model 'reach': its blob is missing; restore ")
    assert "versions: 2; faults: 1;" in damaged.stdout
    registry.close()
