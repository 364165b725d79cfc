import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from neuroloop_client import AsyncClient, NeuroloopClientError


def run(server_url: str, use: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    async def with_client() -> Any:
        async with AsyncClient(server_url) as client:
            return await asyncio.wait_for(use(client), 20)

    return asyncio.run(with_client())


def test_calls_give_the_same_as_those_of_the_other_client(server_url: str) -> None:
    async def use(client: AsyncClient) -> tuple[Any, ...]:
        await client.check_ready()
        weights = await client.rereference_weights("demo")
        return await client.info(), await client.sessions(), await client.history("demo", limit=3), weights

    info, sessions, predictions, weights = run(server_url, use)
    assert info["engine"] == "local"
    assert sessions[0]["name"] == "demo"
    assert len(predictions) == 3
    assert weights == b"0.0,0.0\n0.0,0.0\n"


def test_a_refusal_carries_the_problem_document(server_url: str) -> None:
    async def use(client: AsyncClient) -> Any:
        with pytest.raises(NeuroloopClientError) as refusal:
            await client.label("demo", "up")
        return refusal.value

    error = run(server_url, use)
    assert error.status == 422
    assert error.problem["instance"] == "/v1/sessions/demo/labels"


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_a_stream_connects_by_itself_and_takes_labels(server_url: str, format: str) -> None:
    async def use(client: AsyncClient) -> dict[str, Any]:
        stream = client.stream("demo", topics=["predictions"], format=format)
        await stream.send_label("right", id=5)
        seen = {}
        async for message in stream:
            seen.setdefault(message["type"], message)
            if len(seen) == 2:
                break
        await stream.close()
        return seen

    seen = run(server_url, use)
    assert seen["label_accepted"]["id"] == 5
    assert seen["prediction"]["session"] == "demo"


def test_a_stream_ends_with_its_session_and_is_refused_afterwards(server_url: str, unique_name: str) -> None:
    async def use(client: AsyncClient) -> list[dict[str, Any]]:
        await client.create({"name": unique_name, "stream": {"type": "EEG"}, "classes": ["a", "b"]})
        async with client.stream(unique_name, topics=["events"]) as stream:
            await client.delete(unique_name)
            messages = [message async for message in stream]
        with pytest.raises(NeuroloopClientError, match=unique_name):
            await client.stream(unique_name).connect()
        return messages

    assert run(server_url, use) == []


def test_a_server_that_is_not_there_is_an_error_of_the_client() -> None:
    async def use(client: AsyncClient) -> bool:
        with pytest.raises(NeuroloopClientError, match="does not answer"):
            await client.info()
        with pytest.raises(NeuroloopClientError, match="does not answer"):
            await client.stream("demo").connect()
        return True

    assert run("http://127.0.0.1:1", use)
