"""Any sequence of calls against a model of the registry that is a few dictionaries."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.registry.conftest import weights_of

from neuroloop.errors import Conflict, NotFound
from neuroloop.registry.registry import Registry
from neuroloop.registry.verify import collect, verify

names = st.sampled_from(["reach", "grasp"])
numbers = st.integers(1, 4)
aliases = st.sampled_from(["champion", "candidate"])
contents = st.integers(0, 2)


class RegistryMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.registry = Registry(Path(self.folder.name))
        self.versions = {"reach": {}, "grasp": {}}
        self.aliases = {"reach": {}, "grasp": {}}
        self.last = {"reach": 0, "grasp": 0}
        self.known = set()

    def teardown(self):
        self.registry.close()
        self.folder.cleanup()

    @rule(name=names, content=contents)
    def add(self, name, content):
        self.last[name] += 1
        assert self.registry.add_version(name, weights_of(content)).version == self.last[name]
        self.versions[name][self.last[name]] = content
        self.known.add(name)

    @rule(name=names, alias=aliases, number=numbers)
    def point(self, name, alias, number):
        if number in self.versions[name]:
            self.registry.set_alias(name, alias, number)
            self.aliases[name][alias] = number
        else:
            with pytest.raises(NotFound):
                self.registry.set_alias(name, alias, number)

    @rule(name=names, alias=aliases)
    def unpoint(self, name, alias):
        if alias in self.aliases[name]:
            self.registry.delete_alias(name, alias)
            del self.aliases[name][alias]
        else:
            with pytest.raises(NotFound):
                self.registry.delete_alias(name, alias)

    @rule(name=names, number=numbers)
    def delete(self, name, number):
        if number not in self.versions[name]:
            with pytest.raises(NotFound):
                self.registry.delete_version(name, number)
        elif number in self.aliases[name].values():
            with pytest.raises(Conflict):
                self.registry.delete_version(name, number)
        else:
            self.registry.delete_version(name, number)
            del self.versions[name][number]

    @rule(name=names)
    def delete_model(self, name):
        if name not in self.known:
            with pytest.raises(NotFound):
                self.registry.delete_model(name)
        elif self.aliases[name]:
            with pytest.raises(Conflict):
                self.registry.delete_model(name)
        else:
            self.registry.delete_model(name)
            self.known.remove(name)
            self.versions[name] = {}

    @rule()
    def collect(self):
        collect(self.registry, min_age_s=0)
        assert verify(self.registry).orphans == []

    @invariant()
    def the_registry_is_as_the_dictionaries_say(self):
        assert {m.name: (m.versions, m.aliases) for m in self.registry.models()} == {
            name: (list(self.versions[name]), self.aliases[name]) for name in self.known
        }
        for name, versions in self.versions.items():
            for number, content in versions.items():
                assert self.registry.weights(name, number) == weights_of(content)
        assert verify(self.registry).faults == []


TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(max_examples=12, stateful_step_count=15)
