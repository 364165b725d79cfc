import asyncio

import pytest
from tests.unit.registry.conftest import weights_of

from neuroloop_client import AsyncClient, Client, NeuroloopClientError


def test_a_model_is_uploaded_named_by_an_alias_and_comes_back_to_the_bit(server_url: str, unique_name: str) -> None:
    with Client(server_url) as client:
        first = client.upload_model(unique_name, weights_of(1))
        second = client.upload_model(unique_name, weights_of(2), parent=1, metrics={"accuracy": 0.9})
        assert (first["version"], second["version"], second["parent"]) == (1, 2, 1)
        assert client.version(unique_name, 2) == second
        assert client.weights(unique_name, 2) == weights_of(2)
        assert client.move_alias(unique_name, "champion", 2)["version"] == 2
        assert client.resolve(unique_name, "champion")["digest"] == second["digest"]
        assert [version["version"] for version in client.versions(unique_name)] == [1, 2]
        assert client.model(unique_name)["aliases"] == {"champion": 2}
        client.delete_alias(unique_name, "champion")
        client.delete_version(unique_name, 1)
        client.delete_model(unique_name)
        assert unique_name not in [model["name"] for model in client.models()]


def test_weights_that_are_none_are_refused_by_both_clients(server_url: str, unique_name: str) -> None:
    async def upload() -> None:
        async with AsyncClient(server_url) as client:
            await client.upload_model(unique_name, b"nothing")

    with Client(server_url) as client, pytest.raises(NeuroloopClientError) as refusal:
        client.upload_model(unique_name, b"nothing")
    with pytest.raises(NeuroloopClientError) as other:
        asyncio.run(upload())
    assert refusal.value.status == other.value.status == 422
