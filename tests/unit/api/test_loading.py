"""What becomes of versions and aliases while a session loads one; the session here does what the test says."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.registry.conftest import weights_of

from neuroloop.api import loading
from neuroloop.api.hub import Hub
from neuroloop.errors import Conflict
from neuroloop.registry.registry import Registry, UsedBy

LOADED = {"state": "carry", "reprime_bins": 50}


class Process:
    """A session that uses what it loaded last. meanwhile: called with each version while it is loaded."""

    was_found = False
    state = "ready"

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.meanwhile: Callable[[int], None] = lambda version: None

    async def command(self, name: str, timeout: float = 5.0, **arguments: Any) -> dict[str, Any]:
        if name.endswith("_load"):
            self.what = name.removesuffix("_load")
            self.model = arguments["model"]
            self.loaded.append(self.model["version"])
            await asyncio.to_thread(self.meanwhile, self.model["version"])
            return {self.what: "one", "current": self.model}
        more = LOADED if self.what == "decoder" else {}
        running = {
            "name": "one",
            "role": "active",
            "model": self.model,
            "loaded": more | {"alias": self.model["alias"]},
        }
        return {"time": float(len(self.loaded)), "decoders": [], f"{self.what}s": [running]}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path)
    for number in (1, 2, 3):
        registry.add_version("reach", weights_of(number))
    registry.set_alias("reach", "champion", 1)
    return registry


@pytest.fixture
def session() -> Any:
    return SimpleNamespace(name="demo", process=Process(), hub=Hub(), loading=[], aliases={})


@pytest.fixture
def sessions(session: Any) -> Any:
    return SimpleNamespace(all=lambda: [session])


@pytest.fixture
def used_by(sessions: Any, registry: Registry) -> UsedBy:
    app: Any = SimpleNamespace(state=SimpleNamespace(version_users=[], alias_followers=[]))
    loading.install(app, sessions, registry)
    (used_by,) = app.state.version_users
    return used_by


def load(session: Any, registry: Registry, **load: Any) -> dict[str, Any]:
    kind = loading.LOADS[load.pop("what", "decoder")]
    return asyncio.run(loading.load_version(session, registry, kind(model="reach", **load)))


@pytest.mark.parametrize("what", ["decoder", "encoder"])
def test_a_version_that_is_being_loaded_is_not_deleted(
    session: Any, registry: Registry, used_by: UsedBy, what: str
) -> None:
    def delete(version: int) -> None:
        with pytest.raises(Conflict, match="session 'demo'"):
            registry.delete_version("reach", version, used_by)

    session.process.meanwhile = delete
    load(session, registry, version=2, what=what)
    assert used_by("reach", 2) == "session 'demo'"
    load(session, registry, version=3, what=what)
    assert session.loading == []
    registry.delete_version("reach", 2, used_by)


@pytest.mark.parametrize("what", ["decoder", "encoder"])
def test_an_alias_that_moves_while_it_is_loaded_is_followed(session: Any, registry: Registry, what: str) -> None:
    session.process.meanwhile = lambda version: registry.set_alias("reach", "champion", 2) and None
    assert load(session, registry, alias="champion", what=what)["current"]["version"] == 2
    assert session.process.loaded == [1, 2]


@pytest.mark.parametrize("what", ["decoder", "encoder"])
def test_an_alias_that_moves_takes_what_follows_it_along(
    session: Any, sessions: Any, registry: Registry, what: str
) -> None:
    load(session, registry, alias="champion", what=what)
    registry.set_alias("reach", "champion", 3)
    (outcome,) = asyncio.run(loading.follow(sessions, registry, "reach", "champion", 3))
    assert (outcome["session"], outcome[what], outcome["current"]["version"]) == ("demo", "one", 3)
    assert asyncio.run(loading.follow(sessions, registry, "reach", "champion", 3)) == []


def test_an_alias_that_is_deleted_while_it_is_loaded_is_followed_no_more(session: Any, registry: Registry) -> None:
    session.process.meanwhile = lambda version: registry.delete_alias("reach", "champion")
    assert load(session, registry, alias="champion")["current"]["version"] == 1
    assert session.process.loaded == [1]


def test_a_session_that_was_found_may_use_any_version_until_it_says_what_it_uses(session: Any, used_by: UsedBy) -> None:
    session.process.was_found, session.process.state = True, "starting"
    assert used_by("reach", 1) == "session 'demo', perhaps: it was found running and has not said yet what it uses"
    session.process.state = "ready"
    assert used_by("reach", 1) is None


def test_a_status_that_comes_late_does_not_hide_what_a_session_uses_now(
    session: Any, registry: Registry, used_by: UsedBy
) -> None:
    load(session, registry, version=2)
    session.hub.note_status({"time": 0.5, "decoders": []})
    assert used_by("reach", 2) == "session 'demo'"
