"""The command `neuroloop` in the process of the tests, which has imported what it needs."""

from collections.abc import Mapping

from typer.testing import CliRunner, Result

from neuroloop.cli import app


def neuroloop(*arguments: object, env: Mapping[str, str] | None = None) -> Result:
    """Its exit code, standard output and standard error. Raises what is not told in one line."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env, catch_exceptions=False)
