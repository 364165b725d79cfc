"""Servers that share a registry, by what each tells the others that it uses."""

import time
from contextlib import closing

import pytest

from neuroloop.errors import Conflict
from neuroloop.registry.registry import Registry


@pytest.fixture
def other(tmp_path, registry, registry_url):
    with closing(Registry(tmp_path / "registry", registry_url, "b:1", lease_s=0.5)) as other:
        yield other


@pytest.fixture
def held(registry, other, make_weights):
    """Version 1, which the other server uses."""
    registry.add_version("reach", make_weights())
    other.hold("reach", 1, lambda version: None, "session 'demo'")


def test_what_another_server_uses_is_not_deleted(registry, held):
    for delete in (lambda: registry.delete_version("reach", 1), lambda: registry.delete_model("reach")):
        with pytest.raises(Conflict, match="in use by session 'demo' of server b:1; release it there first"):
            delete()


def test_the_server_itself_goes_by_what_it_knows(other, held):
    other.delete_version("reach", 1)
    assert other.model("reach").versions == []


def test_what_is_used_no_more_is_let_go_and_what_was_just_taken_is_not(registry, other, held, make_weights):
    registry.add_version("reach", make_weights(1))
    seen = time.time()
    other.hold("reach", 2, lambda version: None, "session 'demo'")
    other.leases.renew({}, seen)
    registry.delete_version("reach", 1)
    with pytest.raises(Conflict, match="session 'demo'"):
        registry.delete_version("reach", 2)
    other.leases.renew({}, time.time())
    registry.delete_version("reach", 2)


def test_a_server_that_ends_lets_everything_go(registry, other, held):
    other.leases.release()
    registry.delete_version("reach", 1)
    assert registry.model("reach").versions == []


def test_a_server_that_died_keeps_what_it_used_for_a_while(registry, other, held):
    other.leases.renew({("reach", 1): "session 'demo'"}, time.time())
    end = time.monotonic() + 30
    while True:
        try:
            registry.delete_version("reach", 1)
            return
        except Conflict:
            assert time.monotonic() < end
            time.sleep(0.05)
