import sys

import pytest

from neuroloop import engine
from neuroloop.errors import ConfigError
from neuroloop.server_config import parse
from neuroloop.training.executor import LocalExecutor


def test_fits_run_on_this_machine_unless_told_otherwise():
    settings = parse({})
    assert settings.engine == "local"
    with engine.running(settings):
        assert isinstance(engine.executor_of(settings), LocalExecutor)


def test_a_server_that_asks_for_ray_where_it_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'neuroloop\[ray\]'"), engine.running(parse({"engine": "ray"})):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "dask"}, "engine"),
        ({"ray": {"fit": {"num_cpus": -1}}}, r"ray\.fit\.num_cpus"),
        ({"ray": {"fit": {"max_retries": 101}}}, r"ray\.fit\.max_retries"),
    ],
)
def test_impossible_settings_of_the_engine_are_refused_by_their_key(given, message):
    with pytest.raises(ConfigError, match=message):
        parse(given)
