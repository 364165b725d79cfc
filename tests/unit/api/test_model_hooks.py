"""What sessions tell the registry's routes, and are told by them."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.unit.registry.conftest import weights_of

from neuroloop.api.app import create_app
from neuroloop.errors import Conflict
from neuroloop.registry.registry import Registry
from neuroloop.server_config import parse


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    app = create_app(parse({"folder": str(tmp_path)}))
    with closing(Registry(tmp_path / "registry")) as registry:
        app.state.registry = registry
        for number in (1, 2):
            registry.add_version("reach", weights_of(number))
        yield app


def request(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, f"/v1/models/reach{path}", **options)

    return asyncio.run(send())


def test_a_version_that_a_session_uses_is_not_deleted(app: FastAPI) -> None:
    app.state.version_users.append(lambda model, number: None)
    app.state.version_users.append(lambda model, number: "session 'demo'" if number == 1 else None)
    refusal = request(app, "DELETE", "/versions/1")
    assert refusal.status_code == 409
    assert "version 1 of model 'reach' is in use by session 'demo'" in refusal.json()["detail"]
    assert request(app, "DELETE", "").status_code == 409
    assert request(app, "DELETE", "/versions/2").status_code == 204


def test_those_who_follow_an_alias_are_told_and_say_what_they_did(app: FastAPI) -> None:
    told = []

    async def follow(model: str, alias: str, version: int) -> list[dict[str, Any]]:
        told.append((model, alias, version))
        return [{"session": "demo", "seq": 7}]

    app.state.alias_followers.append(follow)
    moved = request(app, "PUT", "/aliases/champion", json={"version": 2})
    assert moved.json()["swaps"] == [{"session": "demo", "seq": 7}]
    assert request(app, "PUT", "/aliases/champion", json={"version": 9}).status_code == 404
    assert told == [("reach", "champion", 2)]


def test_a_follower_that_refuses_is_the_answer(app: FastAPI) -> None:
    async def follow(model: str, alias: str, version: int) -> list[dict[str, Any]]:
        raise Conflict("session 'demo' is starting")

    app.state.alias_followers.append(follow)
    refusal = request(app, "PUT", "/aliases/champion", json={"version": 2})
    assert (refusal.status_code, refusal.json()["detail"]) == (409, "session 'demo' is starting")
    assert request(app, "GET", "/aliases/champion").json()["version"] == 2
