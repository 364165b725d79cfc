"""The configuration of a server, as a file, and the examples of it."""

from pathlib import Path

import pytest

from neuroloop import server_config
from neuroloop.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SESSION = {"name": "s", "stream": {"name": "x"}, "classes": ["a", "b"]}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_is_valid(path):
    assert server_config.load(path).sessions


def test_the_examples_that_the_readme_names_are_there():
    assert {path.stem for path in CONFIGS} == {"array", "counts", "demo", "headset", "motor_imagery", "retina"}


def test_two_sessions_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="name of its own"):
        server_config.parse({"sessions": [SESSION, SESSION]})


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("127.0.0.9", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("lab", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host, is_loopback):
    assert server_config.is_loopback(host) is is_loopback


def test_a_file_that_is_not_yaml_or_not_there_is_one_clear_error(tmp_path):
    path = tmp_path / "c.yaml"
    with pytest.raises(ConfigError, match="cannot be read"):
        server_config.load(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        server_config.load(path)
    path.write_text("- 1")
    with pytest.raises(ConfigError, match="expected a mapping"):
        server_config.load(path)
